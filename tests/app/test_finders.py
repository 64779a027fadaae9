"""functrain find-lr and find-batch-size."""

import sys


def test_find_lr_prints_the_curve_and_a_suggestion_and_draws_it(functrain, project):
    code, out, err = functrain(
        "find-lr", "tiny.yaml", "optimizer.lr=5", "--steps", "40", "--figure", "lr.png", "seed=1"
    )
    assert (code, err) == (0, "")
    assert "smallest" in out
    assert "optimizer.lr=" in out
    assert (project / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in project.iterdir()} - {"__pycache__"} == {"lr.png", "tiny.yaml", "tiny_project.py"}


def test_find_batch_size_prints_what_fits(functrain):
    code, out, err = functrain("find-batch-size", "tiny.yaml", "--limit", "10")
    assert (code, err) == (0, "")
    assert "data.batch_size=10 (larger ones were not tried)" in out
    assert "data.batch_size=8, which fits" in out


def test_mistakes_are_errors_of_one_line(functrain, monkeypatch):
    for command in ("find-lr", "find-batch-size"):
        code, _, err = functrain(command, "nope.yaml")
        assert code == 2
        assert err.startswith("functrain: error:")
    for figure, message in (
        ("lr.txt", "a figure's name must end in .png, .pdf or .svg, got 'lr.txt'"),
        ("nowhere/lr.png", "there is no folder 'nowhere' to write the figure 'lr.png' to; make it first"),
    ):
        code, out, err = functrain("find-lr", "tiny.yaml", "--figure", figure)
        assert (code, out, err) == (2, "", f"functrain: error: {message}\n")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, out, err = functrain("find-lr", "tiny.yaml", "--figure", "lr.png")
    assert (code, out, "pip install 'functrain[plots]'" in err) == (2, "", True)
    code, _, err = functrain("find-lr", "tiny.yaml", "--steps", "1")
    assert (code, err) == (2, "functrain: error: steps must be a whole number, 2 or more; got 1\n")
