"""What the command line prints, as text files: the help of each command, and errors.

`python tests/helpers/screens.py` writes the files anew. Look at the difference then.
"""

import contextlib
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "app" / "screens"
COMMAND = "python tests/helpers/screens.py"
ENVIRONMENT = {"COLUMNS": "120", "NO_COLOR": "1"}

CONFIG = """\
model: {name: digits_cnn, channels: 4}
data: {name: digits}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-3}
training: {epochs: 1}
"""
FILES = {
    "digits.yaml": CONFIG,
    "typos.yaml": CONFIG.replace("channels", "chanels").replace("epochs", "epocs").replace("adamw", "adam2"),
    "syntax.yaml": "model: {name: digits_cnn\ndata: [",
    "circle.yaml": "extends: circle.yaml\n",
    "number.yaml": CONFIG.replace("epochs: 1", "epochs: many"),
    "environment.yaml": CONFIG.replace("epochs: 1", 'epochs: "${EPOCHS}"'),
    "full/config.yaml": CONFIG,
}

# None of these starts a training.
ERRORS: dict[str, str] = {
    "no-command": "",
    "unknown-command": "trian digits.yaml",
    "unknown-option": "train digits.yaml --run-dr x",
    "setting-as-option": "train digits.yaml --epochs 3",
    "option-without-value": "train digits.yaml --run-dir",
    "missing-argument": "evaluate",
    "too-many-arguments": "show a b",
    "no-such-configuration": "train nope.yaml",
    "typos": "config typos.yaml use_amp=true",
    "syntax": "config syntax.yaml",
    "circle": "config circle.yaml",
    "wrong-value": "config number.yaml optimizer.lr=fast",
    "no-such-variable": "config environment.yaml",
    "unknown-kind": "list optimisers",
    "unknown-name": "list optimizers adamm",
    "no-such-run": "show runs/nope",
    "no-run": "runs digits.yaml",
    "nothing-to-export": "export runs/nope out.zip",
    "unknown-format": "export runs/nope out.onnx",
    "no-step": "branch runs/digits optimizer.lr=1",
    "negative-step": "at runs/digits -1",
    "two-beginnings": "train digits.yaml --init-from a.pt --resume b",
    "present-project": "init full",
    "unknown-shell": "completion tcsh",
    "schema-elsewhere": "schema schema.yaml",
}


def screens() -> Iterator[tuple[str, str]]:
    """The name of each file, and what it has to hold."""
    from functrain.app.parser import COMMANDS

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), _environment():
        for name, text in FILES.items():
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text)
        yield "help.txt", screen("--help")
        for name in COMMANDS:
            yield f"help-{name}.txt", screen(f"{name} --help")
        for name, command in ERRORS.items():
            yield f"error-{name}.txt", screen(command)


def screen(command: str) -> str:
    """A command line, what it prints, and its exit code."""
    from functrain.app.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: object = main(shlex.split(command))
        except SystemExit as stop:
            code = stop.code
    ending = "" if code == 0 else f"[exit code {code}]\n"
    return f"$ functrain {command}".rstrip() + f"\n{out.getvalue()}{err.getvalue()}{ending}"


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= ENVIRONMENT
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def write() -> None:
    """Write all files, and remove those that are no screens any more."""
    FOLDER.mkdir(exist_ok=True)
    found = dict(screens())
    for path in FOLDER.glob("*.txt"):
        if path.name not in found:
            path.unlink()
    for name, text in found.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    write()
