"""`functrain sweep --vectorize`: members that differ in numbers are trained in one program, and stay ordinary runs."""

import json
import os
import signal
import subprocess
import time

import pytest
from fake_members import plan_here, rows

from functrain.app.config.loading import load_stages
from functrain.app.lifeline import python
from functrain.app.sweeps import workers
from functrain.app.sweeps.grouping import sharing
from functrain.app.sweeps.plan import read_plan
from functrain.app.sweeps.programs import noted, program_id
from functrain.app.sweeps.results import latest, result

ONE_BY_ONE = ["training.vectorize=false", "training.threads=1"]  # equal to runs alone to the bit


@pytest.fixture
def planned(monkeypatch):
    """Sweeps that are planned in this process, and look at their processes often."""
    monkeypatch.setattr(workers, "POLL", 0.02)
    return plan_here(monkeypatch)


@pytest.fixture
def reasons(project):
    """Which members of `tiny.yaml` share a program, and why others do not."""

    def reasons(*points, file="tiny.yaml"):
        found = sharing([load_stages(file, list(point)) for point in points])
        return [each.program for each in found], [each.why for each in found]

    return reasons


def log(run):
    return (run / "metrics.jsonl").read_text()


def without_digests(run):
    records = [json.loads(line) for line in log(run).splitlines()]
    return [{name: value for name, value in record.items() if name != "digest"} for record in records]


def test_members_of_a_program_are_the_runs_that_they_would_be_alone(functrain, project, planned):
    """With other rates, seeds and decays, and an early end of its own for each."""
    rule = ["training.epochs=6", "training.early_stopping={patience: 1}", *ONE_BY_ONE]
    command = ["sweep", "tiny.yaml", "optimizer.lr=0.01,0.1", "seed=0,1", *rule, "--vectorize"]
    code, out, err = functrain(*command)
    folder = project / "runs" / "tiny-sweep"
    [names] = read_plan(folder).programs
    assert (code, err) == (0, ""), out
    assert f"program-{program_id(names)}: 4 members in one step: " in out
    assert [row["status"] for row in rows(folder)] == ["finished"] * 4
    epochs = {row["epochs"] for row in rows(folder)}
    for name in names:
        config = folder / "configs" / f"{name}.yaml"
        assert functrain("train", config, "--run-dir", f"alone/{name}", "--no-progress")[0] == 0
        assert without_digests(folder / name) == without_digests(project / "alone" / name)
        assert log(folder / name).splitlines()[-1] == log(project / "alone" / name).splitlines()[-1]  # with a digest
        metrics = "test/metrics.json"
        assert (folder / name / metrics).read_text() == (project / "alone" / name / metrics).read_text()
    assert len(epochs) > 1, "choose a rule by which members end at different times"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*=*/*")}
    code, out, _ = functrain(*command)
    assert (code, "4 of them finished" in out, "started" in out) == (0, True, False)
    code, out, _ = functrain("sweep", "tiny.yaml", "optimizer.lr=0.01,0.1,0.02", "seed=0,1", *rule, "--vectorize")
    assert (code, out.count("started   program-"), len(rows(folder))) == (0, 1, 6)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert functrain("show", folder / names[0])[0] == functrain("evaluate", folder / names[0])[0] == 0


def test_a_program_that_is_interrupted_and_killed_ends_with_the_same_bits(functrain, project):
    searched = ["optimizer.lr=0.01,0.02", "training.epochs=30", "checkpoint.save_every=1", *ONE_BY_ONE]
    command = ["sweep", "tiny.yaml", *searched, "--vectorize"]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    folder = project / "runs" / "tiny-sweep"

    def start(*arguments):
        return subprocess.Popen(
            python("functrain.__main__", *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            text=True,
        )  # fmt: skip

    driver = start(*command)
    _wait_for_records(folder, 4, driver)
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, said
    assert "interrupted; the members have saved their state" in said
    with start(*command) as driver:
        _wait_for_records(folder, 10, driver)
        driver.send_signal(signal.SIGKILL)
    with start("sweep", "tiny.yaml", *searched) as driver:  # a program that has begun goes on without the option
        said, _ = driver.communicate(timeout=120)
    assert (driver.returncode, [row["status"] for row in rows(folder)]) == (0, ["finished"] * 2), said
    [names] = read_plan(folder).programs
    for name in names:
        config = folder / "configs" / f"{name}.yaml"
        assert functrain("train", config, "--run-dir", f"alone/{name}", "--no-progress")[0] == 0
        assert without_digests(folder / name) == without_digests(project / "alone" / name)


def _wait_for_records(folder, count, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in folder.glob(".programs/*/metrics.jsonl"):
            if path.read_text().count("\n") >= count:
                return
        time.sleep(0.01)
    raise AssertionError("the program has not come so far")


def test_a_member_whose_loss_is_not_finite_fails_alone(functrain, project, planned):
    code, out, _ = functrain("sweep", "tiny.yaml", "optimizer.lr=0.01,1e30", *ONE_BY_ONE, "--vectorize")
    folder = project / "runs" / "tiny-sweep"
    assert (code, [row["status"] for row in rows(folder)]) == (1, ["finished", "failed"]), out
    assert "its loss or gradient was not finite; the others trained on" in out


def test_members_share_a_program_if_they_differ_in_numbers(reasons):
    programs, why = reasons(
        ["optimizer.lr=0.1"],
        ["optimizer.lr=0.2", "seed=3", "optimizer.betas=[0.8, 0.9]"],
        ["optimizer.schedule={name: cosine}"],
        ["objective.label_smoothing=0.1"],
        ["model.width=4"],
        ["training.epochs=3"],
        ["training.epochs=3", "seed=1"],
        ["model.dropout=0.3"],
        ["data.batch_size=4"],
    )
    assert programs[0] == programs[1] == programs[3] == programs[7] != ""
    assert programs[5] == programs[6] not in ("", programs[0])
    assert [programs[number] for number in (2, 4, 8)] == ["", "", ""]
    assert why[0] == ""
    assert why[5] == "it differs from the first member in training.epochs"
    assert "states of one form" in why[4]
    assert "data.batch_size" in why[8]
    assert why[2]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["training.micro_batch=4"], "training.micro_batch"),
        (["training.members=2"], "training.members"),
        (["training.early_stopping={restore_best: true}"], "training.early_stopping.restore_best"),
        (["logging.wandb=true"], "logging.wandb"),
        (["distributed.strategy=zero1"], "distributed.strategy"),
    ],
)
def test_a_member_that_cannot_be_in_a_program_says_why(reasons, settings, named):
    programs, why = reasons(settings, [*settings, "seed=1"], ["seed=2"])
    assert programs == ["", "", ""]
    assert why[:2] == [f"{named} is set, which members of a program cannot have"] * 2
    assert why[2] == "no other member fits"


def test_members_with_other_data_share_a_program_if_the_batches_have_one_form(reasons):
    programs, why = reasons(["data.count=20"], ["data.count=19"], ["data.count=40"])
    assert programs[0] == programs[1] != programs[2]
    assert "the number of batches of train" in why[2]


def test_stages_are_trained_alone(reasons, staged):
    programs, why = reasons([], ["seed=1"], file=staged)
    assert (programs, why) == (["", ""], ["it trains several stages"] * 2)


def test_the_section_asks_for_it_and_asha_is_refused(functrain, fakes, project, write):
    name = write((project / "tiny.yaml").read_text() + "\nsweep: {axes: {seed: [0, 1]}, vectorize: true}\n")
    code, _, err = functrain("sweep", name, "--asha")
    assert (code, "--asha and --vectorize cannot be combined" in err) == (2, True), err
    code, out, _ = functrain("sweep", name, "--asha", "--no-vectorize", "training.epochs=4")
    assert (code, "program" in out) == (0, False)


def test_a_program_that_has_begun_as_something_else_is_refused_or_trained_again(functrain, fakes):
    command = ["sweep", "tiny.yaml", "seed=0,1", "--vectorize"]
    code, out, _ = functrain(*command)  # the fake knows of no programs, and fails
    assert (code, "failed    program-" in out) == (1, True)
    before = read_plan(fakes).programs
    code, _, err = functrain(*command, "training.epochs=3")
    assert (code, "and 1 more: the configuration changed: training.epochs: 2 -> 3" in err) == (2, True), err
    assert functrain(*command, "training.epochs=3", "--changed", "again")[0] == 1
    after = read_plan(fakes).programs
    assert len(before) == len(after) == 1
    assert not set(before[0]) & set(after[0])
    assert functrain(*command, "training.epochs=4", "--changed", "keep")[0] == 1
    assert read_plan(fakes).programs == after


def test_a_member_that_is_being_trained_is_shown_from_the_log_of_its_program(functrain, fakes):
    assert functrain("sweep", "tiny.yaml", "seed=0,1", "--vectorize")[0] == 1
    plan = read_plan(fakes)
    record = {"kind": "epoch", "epoch": 3, "step": 9, "eval_loss": 2.0, "members": {"eval_loss": [1.5, 2.5]}}
    for number, name in enumerate(plan.programs[0]):
        folder, own = noted(fakes / name)
        assert (folder.name, own) == (program_id(plan.programs[0]), number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        found = latest(plan.named([name])[0], fakes)
        assert (found.epochs, found.last) == (3, [1.5, 2.5][number])
        assert result(plan.named([name])[0], fakes).best == [1.5, 2.5][number]
