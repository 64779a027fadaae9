"""The runs of a configuration's stages, and what they leave behind."""

import json
import shutil
import signal

import torch
from staged_runs import bits_of, left_by

from functrain.app.config.files import STAGES_FILE
from functrain.app.config.loading import load_stages
from functrain.checkpoint import read_info
from functrain.loop.output.log_files import read_records


def test_each_stage_is_a_run_that_names_what_it_began_with(functrain, staged_run):
    assert sorted(path.name for path in staged_run.iterdir()) == ["one", STAGES_FILE, "three", "two"]
    best, last = ((staged_run / each).resolve() for each in ("one/checkpoints/best", "two/checkpoints/last"))
    digests = {
        (name, record["step"]): record["digest"]
        for name in ("one", "two")
        for record in read_records(staged_run / name / "metrics.jsonl")
        if record["kind"] == "epoch"
    }
    for stage, other, source in (("two", "one", best), ("three", "two", last)):
        ancestry = json.loads((staged_run / stage / "ancestry.json").read_text())
        assert ancestry["run"].endswith(f"runs/staged/{other}")
        assert (ancestry["checkpoint"], ancestry["takes"]) == (source.name, "parameters")
        assert ancestry["digest"] == digests[other, ancestry["step"]]
        assert read_info(staged_run / stage / "checkpoints/last").metadata["ancestry"] == ancestry
        assert read_info(staged_run / stage / "checkpoints/last").metadata["config"]["stage"] == stage
        said = f"the parameters of {ancestry['run']}, {source.name} (digest {ancestry['digest']})"
        assert f"It began with {said}." in (staged_run / stage / "README.md").read_text()
        assert said in functrain("show", staged_run / stage)[1]
        assert bits_of(staged_run / stage / "start/checkpoints" / source.name) == bits_of(source)
    assert [stage.config.model_dump(exclude={"code"}) for stage in load_stages(staged_run / STAGES_FILE)] == [
        stage.config.model_dump(exclude={"code"}) for stage in load_stages("staged.yaml", ["name=staged"])
    ]


def test_finished_stages_are_not_repeated(functrain, staged_run, staged):
    before = {name: left_by(staged_run / name) for name in ("one", "two", "three")}
    times = {path: path.stat().st_mtime_ns for path in staged_run.rglob("*") if path.is_file()}
    for command in (["train", staged, "--all-stages"], ["train", "--resume", "runs/staged"]):
        code, out, err = functrain(*command)
        assert (code, err) == (0, "")
        assert out.count("already finished (step ") == 3
    assert {path: path.stat().st_mtime_ns for path in staged_run.rglob("*") if path.is_file()} == times
    assert {name: left_by(staged_run / name) for name in before} == before


def test_an_interrupted_stage_goes_on_and_ends_with_the_same_bits(functrain, staged_run, project, monkeypatch):
    from functrain.app.runs import running

    expected = {name: left_by(staged_run / name) for name in ("one", "two", "three")}
    shutil.rmtree(staged_run)
    usual, places = running.fit, [("two", 1), ("two", 4), ("three", 5)]

    def fit(state, loader, **options):
        from functrain import on

        @on("after_step")
        def interrupt(event):
            if places and options["run_dir"].name == places[0][0] and event.state.step == places[0][1]:
                places.pop(0)
                signal.raise_signal(signal.SIGTERM)

        return usual(state, loader, **{**options, "callbacks": [*options["callbacks"], interrupt]})

    monkeypatch.setattr(running, "fit", fit)
    command = ["train", "staged.yaml", "--all-stages"]
    for _ in range(3):
        code, _, err = functrain(*command, "--no-progress")
        assert code == 143
        assert "To continue: functrain train " in err
        assert ("--all-stages" in err) == (command[1] != "--resume")
        command = ["train", "--resume", "runs/staged"]  # which needs no configuration
        code, _, err = functrain("evaluate", "runs/staged")
        assert (code, "runs/staged holds the runs of stages: give one of them: runs/staged/one" in err) == (2, True)
    code, out, _ = functrain(*command, "--no-progress")
    assert (code, places) == (0, [])
    assert out.count("already finished") == 2
    found = {name: left_by(staged_run / name) for name in expected}
    for name, parts in expected.items():
        for part, value in parts.items():
            assert found[name][part] == value, (name, part)


def test_resume_needs_no_other_argument(functrain, project, staged_run):
    settings = ["--no-progress", "--run-dir", "short"]
    assert functrain("train", "tiny.yaml", "training.epochs=3", "--max-time", "0.0001", *settings)[0] == 75
    code, out, err = functrain("train", "--resume", "short", "--no-progress", "checkpoint.keep=9")
    assert (code, err, "resumed from step " in out) == (0, "", True)
    assert functrain("train", "tiny.yaml", "training.epochs=3", *settings[:1], "--run-dir", "whole")[0] == 0
    assert bits_of(project / "short/checkpoints/last") == bits_of(project / "whole/checkpoints/last")
    middle = sorted(path for path in (project / "short/checkpoints").glob("step-*"))[-2]
    code, out, _ = functrain("train", "--resume", middle, "--no-progress")
    assert (code, f"resumed from step {int(middle.name[5:])}," in out) == (0, True)
    assert bits_of(project / "short/checkpoints/last") == bits_of(project / "whole/checkpoints/last")
    code, out, err = functrain("train", "--resume", "runs/staged/two", "training.epochs=3", "--no-progress")
    assert (code, err, "training.epochs: 2 -> 3" in out) == (0, "", True)


def test_a_stage_is_reproduced_and_rebuilt_from_its_own_directory(functrain, staged_run, project):
    shutil.copytree(staged_run / "two", project / "alone", symlinks=True)
    shutil.rmtree(staged_run / "one")
    code, out, err = functrain("reproduce", "alone", "--no-progress")
    assert (code, err, "alone: reproduced bit for bit: 2 digests equal" in out) == (0, "", True)
    shutil.rmtree(project / "alone/checkpoints")
    assert functrain("at", "alone", "3", "--no-progress")[0] == 0
    assert bits_of(project / "alone/states/step-00000003") == bits_of(staged_run / "two/checkpoints/step-00000003")
    code, _, err = functrain("branch", "alone@3", "--no-progress")
    assert (code, err) == (0, "")
    assert functrain("diff", "two-at-3", "runs/staged/two")[0] == 0


def test_a_run_that_began_with_a_file_is_reproduced_only_with_that_file(functrain, project):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a")[0] == 0
    assert functrain("export", "a", "a.pt")[0] == 0
    assert functrain("train", "tiny.yaml", "--no-progress", "--init-from", "a.pt", "--run-dir", "b")[0] == 0
    code, out, _ = functrain("reproduce", "b", "--no-progress")
    assert (code, "reproduced bit for bit" in out) == (0, True)
    assert functrain("export", "b", "a.pt")[0] == 0
    code, _, err = functrain("reproduce", "b", "--no-progress")
    assert (code, "b cannot be trained again: its first state had the digest " in err) == (2, True)


def test_a_stage_whose_source_has_changed_says_so(functrain, staged_run, staged):
    more = ["--no-progress", "stages.one.training.epochs=4"]
    assert functrain("train", staged, "--stage", "one", *more)[0] == 0
    code, out, _ = functrain("train", staged, "--all-stages", *more)
    assert code == 0
    before = json.loads((staged_run / "two/ancestry.json").read_text())
    assert f"this run began with the parameters of {before['run']}, {before['checkpoint']}" in out
    code, out, _ = functrain("train", staged, "--stage", "two", "--resume", "never", *more)
    assert (code, "this run began with" in out) == (0, False)
    assert (staged_run / "two/previous-1").is_dir()
    after = json.loads((staged_run / "two/ancestry.json").read_text())
    assert after["checkpoint"] == (staged_run / "one/checkpoints/best").resolve().name


def test_a_stage_may_begin_with_one_that_has_not_ended_and_says_so(functrain, staged):
    assert functrain("train", staged, "--stage", "one", "--no-progress", "--max-time", "0.0001")[0] == 75
    which = "stages.two.init_from.which=last"
    code, out, _ = functrain("train", staged, "--stage", "two", "--no-progress", which)
    assert (code, "note: the stage one, which two begins with, has not ended\n" in out) == (0, True)


def test_the_time_limit_is_that_of_all_stages(functrain, staged, monkeypatch):
    from functrain.app.runs import running, stages

    usual, limits, times = running.fit, [], iter([0.0, 1.0, 600.0, 2000.0])

    def fit(state, loader, **options):
        limits.append(options["max_time"])
        return usual(state, loader, **options)

    monkeypatch.setattr(running, "fit", fit)
    monkeypatch.setattr(stages, "monotonic", lambda: next(times))
    code, _, err = functrain("train", staged, "--all-stages", "--no-progress", "--max-time", "1000")
    assert (code, limits) == (75, [999.0, 400.0, 0.001])
    assert "To continue: functrain train staged.yaml --all-stages --max-time 1000\n" in err


def test_a_refused_stage_leaves_nothing_behind(functrain, staged, project):
    (project / "refusing.py").write_text(
        "import functrain\n@functrain.on('before_epoch')\ndef refuse(event):\n"
        "    assert __import__('os').path.isfile('runs/staged/stages.yaml')\n"
        "    raise functrain.errors.ConfigError('not today')\n"
    )
    before = sorted(project.iterdir())
    refused = ["train", staged, "--all-stages", "--no-progress", "callbacks=[{name: 'refusing:refuse'}]"]
    assert functrain(*refused)[::2] == (2, "functrain: error: not today\n")
    assert [path for path in sorted(project.iterdir()) if path.name != "__pycache__"] == before


def test_a_stage_that_a_callback_ended_has_ended(functrain, staged, project):
    (project / "stopping.py").write_text(
        "import functrain\n@functrain.on('after_step')\ndef stop(event):\n"
        "    return functrain.Stop() if event.state.step == 2 else None\n"
    )
    stops = "stages.one.callbacks=[{name: 'stopping:stop'}]"
    assert functrain("train", staged, "--stage", "one", "--no-progress", stops)[0] == 0
    expected = left_by(project / "runs/staged/one")
    status = project / "runs/staged/one/status.json"
    for concluded in (True, False):  # as after a kill before the results were written
        status.write_text(json.dumps({**json.loads(status.read_text()), "concluded": concluded}))
        code, out, _ = functrain("train", staged, "--stage", "one", "--no-progress", stops)
        assert (code, "already finished (step 2" in out) == (0, True)
    assert left_by(project / "runs/staged/one") == expected


def test_the_threads_of_a_stage_are_not_the_next_ones(functrain, staged, project):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert functrain("train", staged, "--all-stages", "--no-progress", "stages.one.training.threads=1")[0] == 0
        starts = [
            json.loads((project / "runs/staged" / name / "environment.json").read_text())["starts"][-1]
            for name in ("one", "two")
        ]
        assert [start["environment"]["threads"] for start in starts] == [1, 2]
    finally:
        torch.set_num_threads(before)


def test_stages_of_somebody_else_are_not_run(functrain, staged_run, project, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "another user"))
    for path in ("runs/staged", "runs/staged/two", "runs/staged/two/checkpoints/last"):
        code, _, err = functrain("train", "--resume", path)
        assert (code, "names functions that are not functrain's own" in err) == (2, True), err
