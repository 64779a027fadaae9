"""`functrain compare --evaluate`."""

import csv
import io
import json

import pytest


def test_runs_are_evaluated_on_the_same_examples_and_tested(functrain, runs, project):
    asked = ("compare", "runs/tiny", "runs/interrupted", "--evaluate")
    code, out, err = functrain(*asked)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "split: test" in lines
    assert "tiny: runs/tiny, checkpoint step-00000009 (step 9, after epoch 3), averaged parameters" in lines
    header = next(line for line in lines if line.startswith("metric  ") and "tiny" in line)
    assert header.split() == ["metric", "tiny", "interrupted"]
    assert any(line.split()[:5] == ["accuracy", "McNemar", "tiny", "-", "interrupted"] for line in lines)
    names = ("model_comparison.csv", "model_comparison.png", "roc_comparison.png", "paired_tests.csv")
    for name in names:
        assert f"written: comparison/{name}" in lines
        assert (project / "comparison" / name).stat().st_size > 0
    rows = {
        row["model"]: row
        for row in csv.DictReader(io.StringIO((project / "comparison/model_comparison.csv").read_text()))
    }
    for name in ("tiny", "interrupted"):
        functrain("evaluate", f"runs/{name}")
        expected = json.loads((runs / name / "test/metrics.json").read_text())["numbers"]
        assert {key: float(rows[name][key]) for key in expected} == expected


def test_the_parts_of_an_evaluation_are_chosen(functrain, runs, project):
    code, out, err = functrain(
        *("compare", "runs/tiny", "runs/all", "--evaluate", "--json", "--split", "val", "--checkpoint", "best"),
        *("--no-ema", "--metrics", "f1,accuracy", "--out", "elsewhere"),
    )
    assert (code, err) == (0, "")
    found = json.loads(out)["evaluation"]
    assert (found["split"], found["examples"]) == ("val", 20)
    assert "averaged" not in found["tiny"]
    assert list(found["models"]["all"]) == ["f1", "accuracy"]
    assert {(test["metric"], test["test"]) for test in found["tests"]} == {
        ("f1", "bootstrap"),
        ("accuracy", "McNemar"),
        ("accuracy", "bootstrap"),
    }
    assert all((test["difference"], test["p"]) == (0, 1) for test in found["tests"])  # the same training
    assert (project / "elsewhere/roc_comparison.png").is_file()


def other_examples(runs, name, count):
    """Give a run's data set other parameters, which its user then has to vouch for."""
    path = runs / name / "config.yaml"
    path.write_text(
        path.read_text().replace("name: tiny_project:points", f"name: tiny_project:points\n  count: {count}")
    )


def test_unpaired_examples_are_refused(functrain, runs):
    other_examples(runs, "all", 19)
    code, out, err = functrain("compare", "runs/tiny", "runs/all", "--evaluate", "--trust")
    assert (code, out) == (2, "")
    assert "paired tests need the same examples, but those of the split 'test' of tiny and all differ" in err
    assert "data.count is None and 19" in err
    code, out, err = functrain("compare", "runs/tiny", "runs/all", "--evaluate", "--same-examples", "--trust")
    assert (code, out) == (2, "")
    assert "tiny was evaluated on 20 examples and all on 19" in err


def test_another_preparation_of_the_same_examples_is_compared_on_request(functrain, runs, project):
    (project / "tiny_prepared.py").write_text(
        "from tiny_project import Arrays, points\n\ndef scaled(split):\n    x, y = points(split).tensors\n"
        "    return Arrays(2 * x, y)\n"
    )
    path = runs / "all" / "config.yaml"
    path.write_text(path.read_text().replace("tiny_project:points", "tiny_prepared:scaled"))
    asked = ("compare", "runs/tiny", "runs/all", "--evaluate", "--trust")
    code, _, err = functrain(*asked)
    assert code == 2
    assert "give --same-examples" in err
    assert functrain(*asked, "--same-examples")[::2] == (0, "")


MISTAKES = [
    (["--split", "val"], "--split is an option of an evaluation; give --evaluate, too"),
    (["--same-examples"], "--same-examples is an option of an evaluation; give --evaluate, too"),
    (["--no-ema"], "--ema is an option of an evaluation; give --evaluate, too"),
    (["--evaluate", "--checkpoint", "nope"], "there is no checkpoint 'nope'"),
    (["--evaluate", "--metrics", "acuracy"], "metrics to compare must be some of accuracy, "),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda value: str(value)[:20])
def test_mistakes_end_in_one_message(functrain, runs, options, message):
    code, out, err = functrain("compare", "runs/tiny", "runs/all", *options)
    assert (code, out) == (2, "")
    assert message in err
