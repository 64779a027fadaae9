"""functrain reproduce and bisect: a run is trained again, and compared by the digests of its log."""

import json
import shutil
import subprocess
import sys

import pytest

from functrain.app.runs.code_version import code_version, export
from functrain.loop.output.log_files import read_records

PARTING = (
    "1 digest equal, up to step 3, at the end of the epoch; the first that differs is at step 6, at the end of the "
    "epoch"
)


def _replace_digest(run, number):
    """Put another digest in place of one of a run's log."""
    log = run / "metrics.jsonl"
    digest = [record["digest"] for record in read_records(log) if "digest" in record][number]
    log.write_text(log.read_text().replace(digest, "0" * 32))


def test_a_run_is_reproduced_from_its_directory(functrain, runs):
    before = sorted(runs.rglob("*"))
    code, out, err = functrain("reproduce", "runs/tiny", "--no-progress")
    assert (code, err) == (0, "")
    assert out == (
        "note: the run's code was in no git repository: the code of now is used\n"
        "the environment is as it was\n"
        "runs/tiny: reproduced bit for bit: 3 digests equal, up to step 9, at the end of the epoch\n"
    )
    starts = json.loads((runs / "interrupted" / "environment.json").read_text())["starts"]
    assert len(starts) == 1  # the second was in the same environment
    code, out, err = functrain("reproduce", "runs/interrupted", "--no-progress")
    assert (code, out.splitlines()[-1]) == (
        0,
        "runs/interrupted: reproduced bit for bit: 8 digests equal, up to step 6, at the end of the epoch",
    )
    assert sorted(runs.rglob("*")) == before


def test_the_first_digest_that_differs_is_named_and_what_differs_around_the_run(functrain, runs):
    _replace_digest(runs / "tiny", 1)
    recorded = runs / "tiny" / "environment.json"
    values = json.loads(recorded.read_text())
    values["starts"][0]["packages"]["scipy"] = "0.0.1"
    values["starts"][0]["data"]["val"] = "0" * 16
    values["starts"][0]["environment"]["cpu_capability"] = "another"
    recorded.write_text(json.dumps(values))
    code, out, _ = functrain("reproduce", "runs/tiny", "--no-progress")
    assert code == 1
    lines = out.splitlines()
    assert lines[-1] == f"runs/tiny: NOT reproduced: {PARTING}"
    assert any(line.startswith("note: cpu_capability was another and is ") for line in lines)
    assert any(line.startswith("note: scipy was 0.0.1 and is ") for line in lines)
    assert "note: the split 'val' of the data holds other values" in lines


def test_bisect_names_the_first_update_and_leaf(functrain, runs):
    code, out, err = functrain("bisect", "runs/tiny", "runs/all")
    assert (code, err) == (0, "")
    assert out == "3 digests equal, up to step 9, at the end of the epoch; none differs\n"
    code, _, err = functrain("branch", "runs/tiny@4", "training.clip_norm=1e-3", "name=clipped", "--no-progress")
    assert code == 0
    code, out, err = functrain("bisect", "runs/all", "runs/clipped", "--no-progress")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == PARTING
    assert lines[1].startswith("the runs part at step 5: ")
    assert any(line.split()[:1] == ["params/0.weight"] for line in lines)


def test_runs_without_a_common_digest_are_trained_again_from_the_beginning(functrain, runs):
    for name in ("tiny", "all"):
        log = runs / name / "metrics.jsonl"
        kept = [json.dumps({k: v for k, v in r.items() if k != "digest"}) for r in read_records(log)]
        log.write_text("\n".join([*kept, ""]))
        shutil.rmtree(runs / name / "checkpoints")
    config = runs / "all" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 1"))
    code, out, _ = functrain("bisect", "runs/tiny", "runs/all", "--trust", "--no-progress")
    lines = out.splitlines()
    assert (code, lines[0]) == (1, "the logs have no digest of one step: both runs are trained again, up to step 9")
    assert lines[1].startswith("the runs part at step 0: ")
    code, _, err = functrain("reproduce", "runs/tiny")
    assert (code, err.startswith("functrain: error: the log in runs/tiny has no digests")) == (2, True)


MISTAKES = [
    (["reproduce", "runs/nope"], "there is no run directory runs/nope"),
    (["reproduce", "tiny.yaml"], "tiny.yaml is no run directory"),
    (["bisect", "runs/tiny", "runs/nope"], "there is no run directory runs/nope"),
]


def test_mistakes_are_one_message_and_exit_code_2(functrain, runs):
    for arguments, message in MISTAKES:
        code, _, err = functrain(*arguments)
        assert (code, err.count("\n"), err.startswith(f"functrain: error: {message}")) == (2, 1, True), err
    (runs / "tiny" / "environment.json").write_text("{")
    code, _, err = functrain("reproduce", "runs/tiny")
    assert (code, "environment.json is damaged" in err) == (2, True)


@pytest.fixture
def repository(project):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=project, check=True, capture_output=True)

    git("init")
    git("add", "tiny.yaml", "tiny_project.py")
    git("commit", "-m", "first")
    return project, git


def test_the_code_of_the_run_is_recorded_and_used_though_it_has_changed(functrain, repository):
    project, git = repository
    code = project / "tiny_project.py"
    code.write_text(code.read_text().replace("dropout: float = 0.1", "dropout: float = 0.2"))
    (project / "helper.py").write_text("x = 1\n")
    assert functrain("train", "tiny.yaml", "--no-progress", "training.epochs=1")[0] == 0
    start = json.loads((project / "runs/tiny/environment.json").read_text())["starts"][0]
    patch = (project / "runs/tiny" / start["code"]["patch"]).read_text()
    assert "+def net(width: int = 4, dropout: float = 0.2):" in patch
    assert "b/helper.py" in patch
    code.write_text(code.read_text().replace("dropout: float = 0.2", "dropout: float = 0.5"))
    git("commit", "-am", "second")
    sys.modules.pop("tiny_project")
    status, out, err = functrain("reproduce", "runs/tiny", "--no-progress")
    assert (status, err) == (0, "")
    assert "note: the code has changed since: commit " in out
    assert "reproduced bit for bit: 1 digest equal" in out
    (project / "runs/tiny" / start["code"]["patch"]).write_text(patch.replace("0.2", "0.3"))
    status, _, err = functrain("reproduce", "runs/tiny", "--no-progress")
    assert (status, "are not what your run wrote" in err) == (2, True)


def test_code_versions_round_trip_and_leave_the_repository_alone(repository, tmp_path_factory):
    project, git = repository
    (project / "data.bin").write_bytes(bytes(range(256)))
    git("add", "data.bin")
    git("commit", "-m", "binary")
    (project / "data.bin").write_bytes(bytes(range(255, -1, -1)))
    (project / "new.py").write_text("y = 2\n")
    (project / "large.py").write_text("#" * 200_000)
    index = (project / ".git" / "index").read_bytes()
    version = code_version(project)
    assert (project / ".git" / "index").read_bytes() == index
    assert version.left_out == ("large.py, which git does not track",)
    folder = tmp_path_factory.mktemp("export")
    export(version, folder)
    for name in ("data.bin", "new.py", "tiny_project.py"):
        assert (folder / name).read_bytes() == (project / name).read_bytes()
    assert not (folder / "large.py").exists()
    assert code_version(tmp_path_factory.mktemp("elsewhere")) is None
