"""The members of a sweep: what makes them the ones they are, what becomes of them when that changes, who goes on."""

import json
import math

import pytest
from sweep_members import member, members, request

from functrain.app.sweeps.halving import Halving, length
from functrain.app.sweeps.identity import changed_file, digest_of_file
from functrain.app.sweeps.plan import Plan, joined, read_plan, write_plan
from functrain.app.sweeps.planner import requested
from functrain.app.sweeps.results import Mark, Result, csv_text, is_done, latest, result, write_mark
from functrain.foundation.errors import ConfigError

EMPTY = Plan(threads=1, batch_size=1)


def test_equal_members_are_one_however_they_are_written(tmp_path):
    asked = [request(["own=1e-3"]), request(["own=0.001"]), request(["own=2"])]
    plan, found = joined(EMPTY, asked, tmp_path, None)
    assert [each.name for each in found] == [plan.members[0].name] * 2 + [plan.members[1].name]
    assert plan.members[0].name == f"own=1e-3-{asked[0].parts.identity[:8]}"
    again, same = joined(plan, [request(["own=0.001"])], tmp_path, None)
    assert again == plan
    assert same == [plan.members[0]]


def test_a_plan_is_read_back_as_it_was_written(tmp_path):
    assert read_plan(tmp_path) is None
    plan, found = joined(EMPTY, [request(["own=1"]), request(["own=2"])], tmp_path, None)
    plan = plan.replace(search="own=1,2", batches=((found[0].name,), (found[1].name, found[0].name)))
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    for text in ("", "{}", '{"threads": 1}', json.dumps({**json.loads((tmp_path / "sweep.json").read_text())})[:-9]):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(ConfigError, match=r"sweep.json is damaged \("):
            read_plan(tmp_path)


def test_a_member_that_has_begun_as_something_else_is_refused_with_all_that_differs(tmp_path):
    plan, (one, other) = joined(EMPTY, [request(["own=1"]), request(["own=2"])], tmp_path, None)
    for each in (one, other):
        (tmp_path / each.name).mkdir()
    changed = {"epochs": 20, "code": "x", "data": "y", "functrain": "2"}
    with pytest.raises(ConfigError) as refused:
        joined(plan, [request(["own=1"], **changed), request(["own=2"], **changed)], tmp_path, None)
    who = f"member {one.id} (own=1) and 1 more"
    assert str(refused.value).splitlines()[1:-1] == [
        f"  {who}: the configuration changed: training.epochs: 9 -> 20",
        f"  {who}: the code changed: net.py has changed",
        f"  {who}: the data changed: the split 'train' holds other values",
        f"  {who}: functrain was 1 and is 2",
    ]
    with pytest.raises(ConfigError, match=r"member \w+ \(own=2\): the code changed"):
        joined(plan, [request(["own=1"]), request(["own=2"], code="x")], tmp_path, None)


def test_changed_members_are_kept_or_trained_again_beside_the_former_ones(tmp_path):
    plan, (one, other) = joined(EMPTY, [request(["own=1"]), request(["own=2"])], tmp_path, None)
    (tmp_path / one.name).mkdir()
    asked = [request(["own=1"], code="x"), request(["own=2"], code="x")]
    kept, found = joined(plan, asked, tmp_path, "keep")
    assert found[0].name == one.name
    assert found[1].name != other.name  # it had not begun, so there is nothing to keep
    assert joined(kept, asked, tmp_path, None) == (kept, found)
    again, found = joined(plan.replace(batches=((one.name, other.name),)), asked, tmp_path, "again")
    assert found[0].name != one.name
    assert again.members == tuple(found)
    assert again.batches == (tuple(each.name for each in found),)


def test_other_values_are_further_members(tmp_path):
    plan, first = joined(EMPTY, [request(["own=1"])], tmp_path, None)
    plan, second = joined(plan, [request(["own=2"])], tmp_path, None)
    assert plan.members == (*first, *second)


def test_identities_come_of_configuration_data_and_code(project):
    def identity(*overrides, point=("optimizer.lr=1e-3",)):
        (found,) = requested("tiny.yaml", overrides, [point], 1, False)
        return found.parts

    before = identity()
    assert before.identity == identity(point=["optimizer.lr=0.001"]).identity
    # What shows in no bit of a result is no part of it.
    free = ("name=other", "checkpoint.keep=1", "logging.tensorboard=true", "data.num_workers=0")
    assert before.identity == identity(*free).identity
    for changed in ("seed=1", "training.epochs=3", "training.threads=2", "evaluation.watch=train_loss"):
        assert before.identity != identity(changed).identity, changed
    other = identity("data.count=12")
    assert other.data.keys() == before.data.keys() == {"train", "val", "test"}
    assert all(other.data[split] != before.data[split] for split in before.data)
    code = project / "tiny_project.py"
    assert str(code) in before.code
    assert not any("site-packages" in file or "functrain/app" in file.replace("tests/app", "") for file in before.code)
    assert changed_file(before.code) is None
    code.write_text(code.read_text() + "\n# changed\n")
    assert changed_file(before.code) == str(code)
    assert before.identity != identity().identity
    code.unlink()
    assert changed_file(before.code) == str(code)


def test_threads_are_set_where_the_configuration_does_not_say(project):
    found = [requested("tiny.yaml", given, [()], 3, False)[0] for given in ([], ["training.threads=2"])]
    assert [each.config["training"]["threads"] for each in found] == [3, 2]


def test_what_a_member_begins_with_is_a_part_of_it(project, runs):
    given = (["init_from.path=runs/tiny"], [()], 1, False)
    before = requested("tiny.yaml", *given)[0].parts
    assert before.init == digest_of_file(runs / "tiny" / "checkpoints" / "last" / "functrain.json")
    assert requested("tiny.yaml", [], [()], 1, False)[0].parts.init is None


def test_the_problems_of_all_members_are_told_at_once(project):
    with pytest.raises(ConfigError) as refused:
        requested("tiny.yaml", ["sed=1"], [["optimizer.lr=a"], ["training.epochs=b"], ["training.epochs=b"]], 1, False)
    text = str(refused.value)
    assert text.startswith("3 problems in the configuration:")
    assert all(text.count(given) == 1 for given in ("'sed'", "optimizer.lr=a", "training.epochs=b"))


def test_a_problem_of_a_searched_key_is_told_once_and_where_the_key_is_written(project):
    def told(*points):
        with pytest.raises(ConfigError) as refused:
            requested("tiny.yaml", [], points, 1, False, written={"optimzer.lr": "tiny.yaml:9:3", "seed": "override s"})
        return str(refused.value)

    unknown = told(["optimzer.lr=1", "seed=1"], ["optimzer.lr=2", "seed=1"], ["optimzer.lr=1", "seed=2"])
    assert unknown.startswith("tiny.yaml:9:3: ")
    assert "did you mean 'optimizer'" in unknown
    wrong = told(["seed=1"], ["seed=a"], ["seed=b"])
    assert "override 'seed=a'" in wrong
    assert "override 'seed=b'" in wrong
    assert "override 'seed=a'" in told(["seed=1"], ["seed=a"])


def test_rungs_grow_by_the_factor_and_end_before_the_run():
    assert [Halving(2, 3).rungs(epochs) for epochs in (2, 3, 6, 7, 20)] == [[], [2], [2], [2, 6], [2, 6, 18]]


@pytest.mark.parametrize(
    ("values", "mode", "expected"),
    [
        ([3, 1, 2, 5, 4, 6], "min", [1, 2]),
        ([3, 1, 2, 5, 4, 6], "max", [3, 5]),
        ([1, 1, 1], "min", [0]),  # the first of equal ones
        ([None, 2, None, 1], "min", [3]),  # failed members count for nothing
        ([None, None], "min", []),
        ([2, 1], "min", [1]),
    ],
)
def test_the_best_part_of_a_rung_goes_on(values, mode, expected):
    made, results = members(values, mode=mode)
    assert [made.index(each) for each in Halving(1, 3).survivors(made, results)] == expected


def test_members_of_several_lengths_have_no_common_rungs():
    assert length([member(["own=1"]), member(["own=2"])]) == 9
    for others in ([member(["own=1"], epochs=3)], [member(["own=1"], epochs=None)]):
        with pytest.raises(ConfigError, match=r"give all of them the same training.epochs"):
            length([member(["own=2"], epochs=None) if others[0].epochs is None else member(["own=2"]), *others])


def _log(folder, each, values):
    (folder / each.name).mkdir(exist_ok=True)
    records = [
        {"kind": "epoch", "epoch": epoch, "step": epoch, "eval_loss": value} for epoch, value in enumerate(values, 1)
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / each.name / "metrics.jsonl").write_text(text + '{"kind": "st')


def test_results_are_read_from_logs(tmp_path):
    one, best = member(["own=1"]), member(["own=2"], mode="max")
    assert result(one, tmp_path) == Result("eval_loss")
    for each in (one, best):
        _log(tmp_path, each, [3.0, 1.0, math.nan, 2.0, 1.0])
    assert result(one, tmp_path) == Result("eval_loss", 1.0, 2, 1.0, 5)
    assert result(best, tmp_path) == Result("eval_loss", 3.0, 1, 1.0, 5)
    assert result(one, tmp_path, 1) == Result("eval_loss", 3.0, 1, 3.0, 1)
    assert latest(one, tmp_path) == Result("eval_loss", last=1.0, epochs=5)


def test_a_member_is_done_when_its_process_has_ended_well(tmp_path):
    assert not is_done(tmp_path, 1)
    write_mark(tmp_path, Mark(3))
    assert [is_done(tmp_path, until) for until in (2, 3, 4, None)] == [True, True, False, False]
    write_mark(tmp_path, Mark(None))
    assert is_done(tmp_path, 4)
    assert is_done(tmp_path, None)
    (tmp_path / "member.json").write_text("{")
    assert not is_done(tmp_path, 1)


def test_the_table_has_a_column_for_each_key_that_any_member_sets(tmp_path):
    one, other = member(["own=1", "a.b=[1, 'x,y']"]), member(["c=null"])
    _log(tmp_path, one, [0.25])
    statuses = {one.name: "finished", other.name: "failed"}
    text = csv_text([one, other], statuses, {each.name: result(each, tmp_path) for each in (one, other)})
    assert text.splitlines() == [
        "member,own,a.b,c,status,metric,best,best_epoch,last,epochs",
        f"{one.name},1,\"[1, 'x,y']\",,finished,eval_loss,0.25,1,0.25,1",
        f"{other.name},,,null,failed,eval_loss,,,,0",
    ]
