"""What a sweep searches: values, ranges, lists, and the points that follow from them."""

import json

import pytest
from sweep_members import member

from functrain.app.config.ranges import Range, split
from functrain.app.sweeps.points import grid, label, listed, point_key, random_points
from functrain.app.sweeps.results import Result
from functrain.app.sweeps.space import read_space
from functrain.app.sweeps.suggesting import suggested
from functrain.foundation.errors import ConfigError


def test_a_comma_separates_values_but_not_in_brackets_quotes_or_within_one_value():
    space = read_space(
        ["a.lr=1e-3,3e-4", "model={name: n, width: 3},{name: m}", "x=[1,2]", "b.text='p,q',r", "+c.d=choice(5, 6)"]
    )
    assert {key.name: key.texts for key in space.keys} == {
        "a.lr": ("1e-3", "3e-4"),
        "model": ("{name: n, width: 3}", "{name: m}"),
        "b.text": ("'p,q'", "r"),
        "+c.d": ("5", "6"),
    }
    assert space.fixed == ("x=[1,2]",)
    assert split("it's,1") == ["it's", "1"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["a=1,,2"], "override 'a=1,,2': there is a comma with no value at its side"),
        (["a=1,"], "there is a comma with no value at its side"),
        (["a=1,2", "a=3,4"], "a is searched twice"),
        (["a=1,2", "a=3"], "a is searched, and override 'a=3' sets it"),
        (["a=log(0, 1)"], "write log(low, high), such as log(1e-4, 1e-2); low must be below high, and above 0"),
        (["a=uniform(2, 1)"], "low must be below high"),
        (["a=int(1, 2.5)"], "write int(low, high), such as int(1, 8)"),
        (["a=uniform(1)"], "write uniform(low, high)"),
        (["a=[1,{2"], None),
        (["a=1,{b: ]}"], "not valid YAML"),
    ],
)
def test_what_is_wrong_with_a_space_is_said(overrides, said):
    if said is None:
        assert read_space(overrides).fixed == tuple(overrides)  # the planner refuses it
        return
    with pytest.raises(ConfigError) as refused:
        read_space(overrides)
    assert said in str(refused.value)


def test_a_grid_has_all_combinations_and_takes_no_ranges():
    points = grid(read_space(["a=1,2", "fixed=0", "b=x,y,z"]))
    assert points[:4] == [("a=1", "b=x"), ("a=1", "b=y"), ("a=1", "b=z"), ("a=2", "b=x")]
    assert len(points) == 6
    with pytest.raises(ConfigError, match=r"a=log\(0.1, 1\) is a range, which a grid cannot go through"):
        grid(read_space(["a=log(0.1, 1)"]))
    with pytest.raises(ConfigError, match="the sweep would have 1,000,000 members; at most 10,000"):
        grid(read_space([f"{key}={','.join(map(str, range(100)))}" for key in "abc"]))


def test_random_points_are_a_function_of_seed_key_and_number():
    space = read_space(["a=log(1e-4, 1e-1)", "b=uniform(-1, 1)", "c=int(1, 3)", "d=x,y"])
    points = random_points(space, 40, 0)
    assert points == random_points(space, 40, 0) != random_points(space, 40, 1)
    assert points[:10] == random_points(space, 10, 0)  # more members keep the first ones
    without = random_points(read_space(["a=log(1e-4, 1e-1)", "c=int(1, 3)"]), 10, 0)
    assert [point[0] for point in without] == [point[0] for point in points[:10]]
    assert {point[2] for point in points} == {"c=1", "c=2", "c=3"}
    assert {point[3] for point in points} == {"d=x", "d=y"}
    rates = [float(point[0].partition("=")[2]) for point in points]
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    assert 8 <= sum(rate < 10**-2.5 for rate in rates) <= 32  # about half of them: log-uniform


def test_a_small_space_has_fewer_random_points_and_none_twice():
    points = random_points(read_space(["a=1,2", "b=int(1, 2)"]), 20, 0)
    assert len(points) == len(set(points)) == 4
    assert len(random_points(read_space(["a=1,1.0,2"]), 20, 0)) == 3
    with pytest.raises(ConfigError, match="--random needs keys to draw"):
        random_points(read_space(["a=1"]), 2, 0)


def test_the_ends_of_a_range_can_be_drawn_and_nothing_beyond():
    for given in (Range("log", 1.23456e-4, 1e-2), Range("uniform", -0.123456, 0.5), Range("int", -2, 2)):
        for fraction in (0.0, 1 - 2**-48):
            assert given.low <= given.at(fraction) <= given.high


def test_members_are_listed_in_yaml_json_or_lines(tmp_path):
    members = [{"optimizer.lr": 1e-3, "model": {"name": "a", "width": 2}}, {"optimizer.lr": 1e-05}]
    (tmp_path / "m.json").write_text(json.dumps(members))
    (tmp_path / "m.yaml").write_text("- optimizer.lr: 1e-3\n  model: {name: a, width: 2}\n- {optimizer.lr: 1e-5}\n")
    (tmp_path / "m.txt").write_text(
        "# members\noptimizer.lr=1e-3 'model={name: a, width: 2}'\n\noptimizer.lr=1e-5  # low\n"
    )
    space = read_space(["seed=0,1"])
    found = [listed(tmp_path / name, space) for name in ("m.json", "m.yaml", "m.txt")]
    keys = [[point_key(point) for point in points] for points in found]
    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) == 4
    assert found[2][1] == ("optimizer.lr=1e-3", "model={name: a, width: 2}", "seed=1")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.yaml", "a: 1", "a list of members is wanted"),
        ("m.yaml", "[1]", "a list of members is wanted"),
        ("m.yaml", "[]", "lists no members"),
        ("m.txt", "a=1\nb", "m.txt:2: write key.path=value"),
        ("m.txt", "a='1", "m.txt:1: No closing quotation"),
        ("m.txt", "seed=1", "seed is set both by"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as refused:
        listed(tmp_path / name, read_space(["seed=0,1"]))
    assert said in str(refused.value)


def test_a_label_is_fit_for_a_folder():
    assert label(("+model.depth=3", "data.name=../x y:z", "a.b=[1, 2]")) == "depth=3,name=..-x-y-z,b=1--2"
    assert len(label(tuple(f"key{number}=1" for number in range(100)))) <= 60
    assert label(("a=/",)) == "a"


def test_suggestions_follow_from_seed_and_results_alone():
    pytest.importorskip("optuna")
    space = read_space(["optimizer.lr=log(1e-4, 1e-1)", "model.width=2,4"])
    made = [member([f"optimizer.lr={0.001 * number}", "model.width=2"]) for number in range(1, 13)]
    results, others = (
        {each.name: Result("eval_loss", sign * number) for number, each in enumerate(made)} for sign in (1.0, -1.0)
    )
    first, again = (suggested(space, 3, 4, 0, made, results) for _ in range(2))
    assert first == again != suggested(space, 3, 5, 0, made, results)
    assert first != suggested(space, 3, 4, 0, made, others)
    for rate, width in first:
        assert 1e-4 <= float(rate.partition("=")[2]) <= 1e-1
        assert width in ("model.width=2", "model.width=4")
    failed = {each.name: Result() for each in made}
    assert len(suggested(space, 3, 4, 0, made, failed)) == 3
