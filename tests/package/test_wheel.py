"""A wheel, installed in a folder far from the checkout, trains."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CONFIG = """
model: {name: digits_cnn, channels: 4}
data: {name: digits}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-3}
training: {epochs: 1}
compile: false
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree."""
    root = tmp_path_factory.mktemp("wheel")
    source = root / "source"
    shutil.copytree(CHECKOUT / "functrain", source / "functrain", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(root)]
    subprocess.run([*pip, str(source)], check=True, timeout=300)
    (built,) = root.glob("*.whl")
    return built


def test_it_holds_code_data_types_and_licence_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "functrain/py.typed" in names
    assert "functrain/app/starter/config.yaml.txt" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith(".npz") for name in names)
    assert "functrain/app/config/schema.json" in names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"functrain"}


def test_the_command_trains_outside_the_checkout(wheel, tmp_path):
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*install, str(wheel)], check=True, timeout=300)
    (tmp_path / "digits.yaml").write_text(CONFIG)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    where = [sys.executable, "-c", "import functrain; print(functrain.__file__)"]
    train = [sys.executable, "-m", "functrain", "train", "digits.yaml"]
    for words, wanted in ((where, str(tmp_path / "site")), (train, "test/metrics.csv")):
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=True
        )
        assert wanted in done.stdout + done.stderr
    assert (tmp_path / "runs" / "digits" / "test" / "metrics.json").is_file()
