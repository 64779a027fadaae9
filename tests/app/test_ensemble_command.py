"""`functrain train --members N`: each member is the run of its seed, and becomes a run of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from functrain.app.lifeline import python
from functrain.checkpoint import CheckpointWarning, read_info

EXACT = ["--no-progress", "training.vectorize=false"]
RULES = [
    "training.ema_decay=0.9",
    "training.plateau={patience: 0, threshold: 0.5}",
    "metrics=[f1]",
    "training.clip_norm=0.5",
]


@pytest.fixture
def train(functrain):
    """Train `tiny.yaml` into a directory; returns what is printed."""

    def train(run, *arguments, code=0):
        found = functrain("train", "tiny.yaml", "--run-dir", run, *arguments)
        assert found[0] == code, found
        return found[1] + found[2]

    return train


def log(run):
    return (run / "metrics.jsonl").read_text()


def records(run):
    return [json.loads(line) for line in log(run).splitlines()]


def without_digests(run):
    return [{name: value for name, value in record.items() if name != "digest"} for record in records(run)]


def saved(run):
    """What the metadata of the last checkpoint say, but for names."""
    found = dict(read_info(run / "checkpoints" / "last").metadata)
    return {key: value for key, value in found.items() if key not in ("config", "signature")}


def test_each_member_is_the_run_of_its_seed_to_the_bit(project, train):
    said = train("all", *EXACT, *RULES, "--members", "2", "seed=3")
    assert "in each of 2 members (seeds 3 to 4)" in said
    for number in range(2):
        train("alone", "--no-progress", *RULES, f"seed={3 + number}", "--resume", "never")
        member, alone = project / f"all/members/00{number}", project / "alone"
        assert log(member) == log(alone)  # with the digest of the whole state after each epoch
        assert (member / "metrics.csv").read_bytes() == (alone / "metrics.csv").read_bytes()
        assert saved(member) == saved(alone)


def test_vectorised_members_are_these_runs_to_rounding(project, train):
    double = ["--no-progress", "training.precision=fp64"]
    train("all", *double, "--members", "2", "training.vectorize=true")
    train("alone", *double, "seed=1")
    for one, other in zip(records(project / "all/members/001"), records(project / "alone"), strict=True):
        assert list(one) == list(other)
        assert one["kind"] == other["kind"]
        numbers = [name for name in one if name not in ("kind", "digest")]
        assert [one[name] for name in numbers] == pytest.approx([other[name] for name in numbers], rel=1e-9)


def test_a_member_is_an_ordinary_run(project, functrain, train):
    train("all", *EXACT, "--members", "2")
    member = "all/members/001"
    code, out, err = functrain("show", member)
    assert (code, err, "tiny-001" in out, "finished" in out) == (0, "", True, True)
    assert functrain("evaluate", member)[0] == 0
    np.save("inputs.npy", np.zeros((3, 2), np.float32))
    assert functrain("predict", member, "inputs.npy")[0] == 0
    assert functrain("export", member, "member.pt")[0] == 0
    assert functrain("train", f"{member}/config.yaml", "--run-dir", member, "--no-progress")[0] == 0
    code, out, err = functrain(
        "train", f"{member}/config.yaml", "--run-dir", member, "training.epochs=3", "--no-progress"
    )
    assert (code, "not bit-for-bit" in err) == (0, False), err
    train("alone", "--no-progress", "seed=1", "training.epochs=3")
    assert log(project / member) == log(project / "alone")
    said = train("all", *EXACT, "--members", "2", "training.epochs=4")
    assert "all/members/001 was trained on after it was written, and stays as it is" in said
    assert [records(project / f"all/members/00{number}")[-1]["epoch"] for number in range(2)] == [4, 3]


def test_an_ensemble_that_is_interrupted_and_killed_ends_with_the_same_bits(project, train):
    arguments = [*EXACT, "--members", "2", "training.epochs=6", "checkpoint.save_every=1", "training.threads=1"]
    train("whole", *arguments)
    said = train("killed", *arguments, "--max-time", "0.0001", code=75)
    assert "To continue: functrain train tiny.yaml" in said
    command = python("functrain.__main__", "train", "tiny.yaml", "--run-dir", "killed", *arguments)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(project)}
    )
    deadline = time.monotonic() + 120
    while log(project / "killed").count("\n") < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it has ended before it could be killed"
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointWarning)
        assert "was killed" in train("killed", *arguments)
    assert log(project / "killed") == log(project / "whole")
    for number in range(2):
        assert log(project / f"killed/members/00{number}") == log(project / f"whole/members/00{number}")


def test_evaluate_tells_of_the_mean_prediction_and_of_each_member(functrain, train):
    train("all", *EXACT, "--members", "3")
    code, out, err = functrain("evaluate", "all")
    assert (code, err) == (0, "")
    assert "test (mean prediction)" in out
    assert "all/test/members_loss.png" in out
    found = json.loads(functrain("evaluate", "all", "--json")[1])
    assert found["ensemble"] == 3
    uncertainty = {name: found["numbers"][f"{name}_uncertainty"] for name in ("total", "data", "model")}
    assert uncertainty["total"] == pytest.approx(uncertainty["data"] + uncertainty["model"])
    assert found["loss"] == pytest.approx(found["numbers"]["log_loss"])
    assert [row["member"] for row in found["members"]] == ["mean prediction", "member 0", "member 1", "member 2"]
    for number, row in enumerate(found["members"][1:]):
        alone = json.loads(functrain("evaluate", f"all/members/00{number}", "--json")[1])
        assert (row["loss"], row["accuracy"]) == pytest.approx((alone["loss"], alone["accuracy"]), rel=1e-5)
        assert row["calibration_error"] == pytest.approx(alone["numbers"]["calibration_error"], abs=1e-6)
    code, out, _ = functrain("evaluate", "all", "--all-checkpoints")
    assert (code, "step-00000003" in out) == (0, True)


def test_predict_gives_the_mean_prediction_and_its_spread(project, functrain, train):
    train("all", *EXACT, "--members", "2")
    np.save("inputs.npy", np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32))
    tables = {}
    for run in ("all", "all/members/000", "all/members/001"):
        assert functrain("predict", run, "inputs.npy")[0] == 0
        with (project / run / "predictions/predictions.csv").open() as file:
            tables[run] = list(csv.DictReader(file))
    for mean, *members in zip(*tables.values(), strict=True):
        for label in range(3):
            each = [float(member[f"p({label})"]) for member in members]
            assert float(mean[f"p({label})"]) == pytest.approx(sum(each) / 2)
        assert float(mean["disagreement"]) == float(members[0]["predicted"] != members[1]["predicted"])
        assert float(mean["model_uncertainty"]) >= -1e-9


def test_show_and_curves_tell_of_the_members(project, functrain, train):
    train("all", *EXACT, "--members", "2")
    code, out, _ = functrain("show", "all")
    assert "ensemble  2 members, seeds 0 to 1; each as a run in all/members" in out
    assert "members in the last record" in out
    assert json.loads(functrain("show", "all", "--json")[1])["ensemble"] == 2
    assert functrain("curves", "all", "--out", "drawn")[0] == code == 0
    assert (project / "drawn/training_curves.png").stat().st_size > 5000


def test_a_member_that_stops_early_is_a_finished_run(project, functrain, train):
    rule = ["training.early_stopping={patience: 1}", "optimizer.lr=0.1", "training.epochs=8"]
    train("all", *EXACT, "--members", "4", *rule)
    ended = []
    for number in range(4):
        train("alone", "--no-progress", f"seed={number}", *rule, "--resume", "never")
        member = project / f"all/members/00{number}"
        # Only records whose checkpoints are there have digests.
        assert without_digests(member) == without_digests(project / "alone")
        assert records(member)[-1] == records(project / "alone")[-1]
        assert read_info(member / "checkpoints/last").status == "COMPLETE"
        ended.append(records(member)[-1]["epoch"])
    assert len(set(ended)) > 1, "choose a rule by which members stop at different times"
    out = functrain("show", f"all/members/00{ended.index(min(ended))}")[1]
    assert "finished (early stopping)" in out


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.micro_batch=4", "batches of members are not split"),
        ("training.early_stopping={restore_best: true}", "members are best at different times"),
        ("distributed.strategy=zero1", "the members of a stack train in one process"),
        ("distributed.mesh={dp: 2}", "the members of a stack train in one process"),
        ("init_from.path=other", "members begin with initial parameters of their own"),
    ],
)
def test_what_members_cannot_have_is_refused_with_its_place(functrain, write, setting, said):
    code, _, err = functrain("train", "tiny.yaml", "--members", "2", setting)
    assert (code, said in err, "Traceback" in err) == (2, True, False), err
    assert err.startswith(f"functrain: error: override '{setting}': ")


def test_a_file_with_members_is_refused_at_its_line(functrain, project, write):
    text = (project / "tiny.yaml").read_text()
    name = write(text.replace("training: {epochs: 2}", "training:\n  epochs: 2\n  members: 2\n  micro_batch: 4"))
    code, _, err = functrain("train", name)
    assert (code, f"{name}:8:3: training.micro_batch does not go with training.members=2" in err) == (2, True), err


def test_stages_have_no_members(functrain, staged):
    code, _, err = functrain("train", staged, "--all-stages", "training.members=2")
    assert (code, "a stage trains one model" in err) == (2, True), err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--members", "1"], "training.members must be greater than or equal to 2; got 1"),
        (["--members", "2", "--nproc", "2"], "--members trains in one process, and --nproc starts several"),
        (["--members", "two"], "'two' must be a whole number"),
    ],
)
def test_bad_arguments_are_one_message(functrain, arguments, said):
    code, _, err = functrain("train", "tiny.yaml", *arguments)
    assert (code, said in err, "Traceback" in err) == (2, True, False), err


def test_commands_of_one_model_say_which_member_to_give(project, functrain, train):
    train("all", *EXACT, "--members", "2")
    for command in (["explain", "all"], ["at", "all", "2"], ["reproduce", "all"], ["export", "all", "a.pt"]):
        code, _, err = functrain(*command)
        assert (code, "give a member, such as all/members/000" in err) == (2, True), (command, err)
    code, _, err = functrain("plan", "all/config.yaml", "--world", "1")
    assert (code, "add training.members=null to measure one member" in err) == (2, True), err


def test_unstack_writes_the_members_of_a_run_that_has_not_ended(project, functrain, train):
    train("all", *EXACT, "--members", "2", "--max-time", "0.0001", code=75)
    assert not (project / "all/members").exists()
    code, out, _ = functrain("unstack", "all")
    assert (code, out.splitlines()) == (0, ["written: all/members/000", "written: all/members/001"])
    member = project / "all/members/001"
    assert read_info(member / "checkpoints/last").status == "INTERRUPTED"
    assert functrain("train", member / "config.yaml", "--run-dir", member, "--no-progress")[0] == 0
    train("alone", "--no-progress", "seed=1")
    assert log(member) == log(project / "alone")
    assert functrain("unstack", "all")[1].startswith("nothing to write: the members in all/members are of")
    assert log(member) == log(project / "alone")  # it stays as it is
    code, _, err = functrain("unstack", "alone")
    assert (code, "is the run of one model already" in err) == (2, True)


def test_a_dry_run_tries_the_members_and_writes_nothing(project, functrain):
    before = sorted(project.iterdir())
    code, out, err = functrain("train", "tiny.yaml", "--members", "2", "--dry-run")
    assert (code, err) == (0, "")
    assert "each as a run in runs/tiny/members" in out
    assert sorted(project.iterdir()) == before
    assert "tiny_project" in sys.modules
