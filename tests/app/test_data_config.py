"""Data from files in a configuration: transforms, padding, and a preprocessor that predicts from the run alone."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from functrain.app.cli import main
from functrain.app.config.build import build_loader, build_training_loader
from functrain.app.config.loading import load_config
from functrain.data import Transformed
from functrain.errors import ConfigError

REST = """\
objective: {name: classification}
optimizer: {name: adamw, lr: 0.02}
training: {epochs: 12}
compile: false
"""
FLOWERS = f"""\
model: {{name: mlp, inputs: 5, outputs: 2, width: 8}}
data: {{name: table, path: flowers.csv, target: kind, ignore: [number], batch_size: 8}}
{REST}"""
DIGITS = f"""\
model: {{name: digits_cnn, channels: 4}}
data: {{name: digits, batch_size: 512}}
{REST}transforms: TRANSFORMS
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def write_flowers(path: Path, rows: int = 60, target: bool = True) -> list[str]:
    rng = np.random.default_rng(0)
    kinds = ["rose" if i % 2 else "tulip" for i in range(rows)]
    header = ["number", "height", "colour", "width", *(["kind"] if target else [])]
    lines = [",".join(header)]
    for number, kind in enumerate(kinds):
        height = "" if number % 10 == 0 else f"{rng.normal(50 if kind == 'rose' else 30, 3):.2f}"
        colour = ("red", "white")[int(rng.integers(2))]
        lines.append(",".join([str(number), height, colour, f"{rng.normal():.3f}", *([kind] if target else [])]))
    path.write_text("\n".join(lines) + "\n")
    return kinds


def predictions(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((path / "predictions.csv").read_text().splitlines()))


def test_a_raw_row_is_predicted_from_the_run_directory_alone(folder, capsys):
    (folder / "project").mkdir()
    kinds = write_flowers(folder / "project" / "flowers.csv")
    (folder / "project" / "flowers.yaml").write_text(FLOWERS)
    assert main(["train", "project/flowers.yaml", "training.epochs=6"]) == 0  # the path is relative to that file
    assert main(["train", "project/flowers.yaml"]) == 0  # a resume keeps the preprocessor
    assert main(["export", "runs/flowers", "model.zip"]) == 0
    shutil.copytree("runs/flowers", "elsewhere")
    shutil.rmtree("project")
    shutil.rmtree("runs")
    write_flowers(folder / "new.csv", target=False)
    assert main(["predict", "elsewhere", "new.csv", "--out", "out"]) == 0
    found = predictions(folder / "out")
    assert found[0].keys() == {"name", "predicted", "p(rose)", "p(tulip)"}
    assert main(["predict", "model.zip", "new.csv", "--out", "again"]) == 0
    assert [row["predicted"] for row in predictions(folder / "again")] == [row["predicted"] for row in found]
    right = sum(row["predicted"] == kind for row, kind in zip(found, kinds, strict=True))
    assert right >= 50  # of 60, 6 of which have no height
    written = json.loads(Path("elsewhere/checkpoints/last/functrain.json").read_text())
    assert "rose" in json.dumps(written)
    assert main(["predict", "elsewhere", "new.csv", "--columns", "height"]) == 2
    assert "leave --columns out" in capsys.readouterr().err
    (folder / "bad.csv").write_text("height,colour\n1,red\n")
    assert main(["predict", "elsewhere", "bad.csv"]) == 2
    assert "the table has no column 'width', which the model was trained with" in capsys.readouterr().err


def test_a_number_that_was_standardised_is_predicted_in_its_unit(folder):
    rng = np.random.default_rng(0)
    sizes = rng.normal(5, 1, 80)
    lines = ["size,price", *(f"{size:.3f},{1000 + 100 * size:.1f}" for size in sizes)]
    (folder / "houses.csv").write_text("\n".join(lines) + "\n")
    own = "path: houses.csv, target: price, target_is: number, standardise_target: true"
    text = FLOWERS.replace("inputs: 5, outputs: 2", "inputs: 1, outputs: 1").replace("classification", "regression")
    text = text.replace("path: flowers.csv, target: kind, ignore: [number]", own)
    (folder / "houses.yaml").write_text(text)
    assert main(["train", "houses.yaml"]) == 0
    assert main(["predict", "runs/houses", "houses.csv"]) == 0
    found = [float(row["predicted"]) for row in predictions(folder / "runs" / "houses" / "predictions")]
    assert np.abs(np.array(found) - (1000 + 100 * sizes)).mean() < 60


def test_images_are_prepared_as_they_were_for_training(folder, capsys):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 100, (9, 7, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / name / f"{number}.png")
    own = "{name: image_folder, path: images, size: 8, mode: grey, batch_size: 4}"
    text = DIGITS.replace("{name: digits, batch_size: 512}", own).replace("TRANSFORMS", "[flip]")
    text = text.replace("channels: 4", "channels: 4, num_classes: 2")
    (folder / "images.yaml").write_text(text)
    assert main(["train", "images.yaml", "training.epochs=1"]) == 0
    Image.new("RGB", (40, 30), (250, 250, 250)).save(folder / "new.png")
    assert main(["predict", "runs/images", "new.png", "--out", "out"]) == 0, capsys.readouterr().err
    assert predictions(folder / "out")[0]["predicted"] in ("dark", "light")


def test_transforms_change_the_training_data_only_and_a_resume_repeats_them(folder):
    own = "[{name: random_crop, size: 8, padding: 1}, {name: noise, std: 0.1}, {name: mixup, classes: 10}]"
    (folder / "digits.yaml").write_text(DIGITS.replace("TRANSFORMS", own))
    config = load_config("digits.yaml")
    training, validation = build_training_loader(config), build_loader(config, "val")
    assert isinstance(training.dataset, Transformed)
    assert not isinstance(validation.dataset, Transformed)
    batch = next(iter(training))
    assert batch[1].shape == (512, 10)
    again = build_training_loader(config).stream(1)
    assert torch.equal(next(again.batches(1, start=1))[0], list(again.batches(1))[1][0])
    assert main(["train", "digits.yaml", "training.epochs=1"]) == 0


def test_transforms_of_ones_own_are_functions_or_make_them(folder):
    (folder / "changes_of_mine.py").write_text(
        "def brighter(sample, key, by: float = 1.0):\n"
        "    return sample[0] + by, *sample[1:]\n"
        "def halved(batch, key):\n"
        "    return batch[0] / 2, batch[1]\n"
        "def nothing(strength: int = 1):\n"
        "    return strength\n"
    )
    text = DIGITS.replace(
        "TRANSFORMS", "[{name: 'changes_of_mine:halved'}, {name: 'changes_of_mine:brighter', by: 2.0}]"
    )
    (folder / "digits.yaml").write_text(text)
    images, _ = next(iter(build_training_loader(load_config("digits.yaml"))))
    assert images.min() >= 1.0
    assert images.max() <= 1.5
    (folder / "digits.yaml").write_text(text.replace("brighter', by: 2.0", "nothing'"))
    with pytest.raises(ConfigError, match=r"transforms.1 .*: a transform is a function of \(sample, key\)"):
        build_training_loader(load_config("digits.yaml"))


@pytest.mark.parametrize(
    ("transforms", "words"),
    [
        ("[flop]", "unknown transform 'flop'; did you mean 'flip'?"),
        ("[{name: flip, horizontal: often}]", "transforms.0.horizontal must be a number; got 'often'"),
        ("[{name: flip, diagonal: 1.0}]", "diagonal"),
        ("[{name: mixup, classes: 1}]", "classes must be a whole number >= 2"),
        ("[random_crop]", "size"),
    ],
)
def test_wrong_transforms_are_refused(folder, transforms, words):
    (folder / "digits.yaml").write_text(DIGITS.replace("TRANSFORMS", transforms))
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        build_training_loader(load_config("digits.yaml"))


def test_sequences_are_padded_and_grouped_by_length(folder):
    (folder / "texts_of_mine.py").write_text(
        "import torch\n"
        "class Texts(torch.utils.data.Dataset):\n"
        "    lengths = [1 + i % 40 for i in range(400)]\n"
        "    def __len__(self): return 400\n"
        "    def __getitem__(self, i): return torch.ones(self.lengths[i]), 0\n"
        "def texts(split): return Texts()\n"
    )
    own = "{name: 'texts_of_mine:texts', batch_size: 10, pad_to: 1, group_by_length: true}"
    text = DIGITS.replace("{name: digits, batch_size: 512}", own)
    (folder / "texts.yaml").write_text(text.replace("TRANSFORMS", "[]"))
    config = load_config("texts.yaml")
    shapes = [inputs.shape[1] for inputs, _ in build_training_loader(config)]
    assert sum(shapes) * 10 * 0.95 <= sum(1 + i % 40 for i in range(400))
    assert [inputs.shape[1] for inputs, _ in build_loader(config, "val")][:4] == [10, 20, 30, 40]
    with pytest.raises(ConfigError, match=r"data.pad_to.* must be a whole number >= 1.*got 0"):
        load_config("texts.yaml", ["data.pad_to=0"])
