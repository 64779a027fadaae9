"""functrain init: a project that trains at once, whose tests pass, and which overwrites nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import functrain
from functrain.app.starting import TEMPLATES, project_files

NAMES = {".gitignore", "README.md", "config.yaml", "my_data.py", "my_model.py", "test_project.py"}


@pytest.fixture
def started(functrain, project, monkeypatch):
    code, out, err = functrain("init", "new")
    assert (code, err) == (0, "")
    assert out.endswith("go on with:\n  cd new\n  functrain train config.yaml\n  pytest\n")
    monkeypatch.chdir(project / "new")
    yield project / "new"
    for name in ("my_data", "my_model"):
        sys.modules.pop(name, None)


def test_the_project_trains_and_is_evaluated(functrain, started):
    assert {path.name for path in started.iterdir()} == NAMES
    code, out, err = functrain("train", "config.yaml", "--no-progress", "training.steps=30")
    assert (code, err) == (0, "")
    assert "SpiralNet" in out
    code, out, _ = functrain("evaluate", "runs/spirals")
    assert (code, "300 examples of split test" in out) == (0, True)


def test_its_own_tests_pass_in_a_process_of_their_own(started):
    environment = os.environ | {"PYTHONPATH": str(Path(functrain.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=started,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_its_files_have_the_style_of_functrain(started):
    settings = Path(__file__).parents[2] / "pyproject.toml"
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--ignore", "D103,I001"], ["format", "--check"]):
        done = subprocess.run([*ruff, *command, "--config", settings, "."], cwd=started, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert all(len(line) <= 120 for text in project_files().values() for line in text.splitlines())


def test_its_commands_parse_and_its_names_are_there(started):
    from functrain.app.parser import build_parser

    text = (started / "README.md").read_text() + (started / "config.yaml").read_text().replace("# ", "\nfunctrain ")
    commands = [
        line.split("#")[0].split()[1:] for line in text.splitlines() if line.startswith("functrain train config")
    ]
    assert len(commands) >= 2
    for command in commands:
        build_parser()[0].parse_known_args(command)
    for name in NAMES - {"README.md"}:
        assert f"`{name}`" in text


@pytest.mark.parametrize("present", sorted(NAMES))
def test_nothing_is_written_over_a_file_or_beside_it(functrain, project, present):
    (project / "new").mkdir()
    (project / "new" / present).write_text("mine")
    code, out, err = functrain("init", "new")
    assert (code, out) == (2, "")
    assert err == (f"functrain: error: new holds {present} already; nothing is written. Give another directory\n")
    assert [path.name for path in (project / "new").iterdir()] == [present]


def test_a_link_into_nothing_is_in_the_way_too(functrain, project):
    (project / "new").mkdir()
    (project / "new" / "config.yaml").symlink_to("nowhere")
    assert functrain("init", "new")[0] == 2
    assert not (project / "new" / "nowhere").exists()


def test_other_files_may_be_there_and_the_directory_may_be_this_one(functrain, project):
    code, out, _ = functrain("init", ".")
    assert (code, "  cd " in out) == (0, False)
    assert (project / "tiny.yaml").exists()


def test_wrong_places_are_messages(functrain, project):
    (project / "file").write_text("")
    assert functrain("init", "file")[2] == "functrain: error: file is a file; give the directory of the project\n"
    code, _, err = functrain("init", "file/below")
    assert (code, err) == (2, "functrain: error: file/below: Not a directory\n")
    code, _, err = functrain("init")
    assert (code, "required: DIR" in err) == (2, True)


def test_all_templates_are_written():
    assert len(project_files()) == len(list(TEMPLATES.iterdir()))
