"""Predictions as files: a table, masks, or arrays, by what the model was trained to do."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from functrain.evaluation.predicting.masks import Postprocessing
from functrain.evaluation.predicting.streaming import Prediction

TABLE = "predictions.csv"
COLUMNS = 100  # of a table; more outputs are written as arrays


def write_predictions(
    predictions: Iterable[Prediction],
    task: str | None,
    folder: str | os.PathLike[str],
    *,
    threshold: float = 0.5,
    after: Postprocessing | None = None,
    classes: Sequence[str] = (),
) -> Iterator[Path]:
    """Write predictions as they come; gives each file when it is complete.

    | task | files |
    |---|---|
    | classification | `predictions.csv`: name, class, probability of each class |
    | binary classification of labels | `predictions.csv`: name, 0 or 1, probability, of each label |
    | segmentation, labels of pixels | `masks/<name>.png`: the class of each pixel; 0 and 255 for yes or no |
    | regression | `predictions.csv`: name, values; more than 100 values as for others |
    | of an ensemble | a table also has how far the members are apart, see `predict_each_of_members` |
    | others | `arrays/<name>.npy`: the model's output |

    Args:
        predictions: of `predict_each`.
        task: the objective's; see `functrain.objectives.tasks`.
        folder: where to; it is made if need be.
        threshold: of probabilities of yes or no.
        after: what is done with masks.
        classes: their names, in a table in place of their numbers; empty: not known.

    Raises:
        ValueError: for a threshold outside of 0 to 1.
        OSError: if a file cannot be written.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"a threshold of probabilities must be between 0 and 1, got {threshold}")
    folder, iterator = Path(folder), iter(predictions)
    first = next(iterator, None)
    if first is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    everything, shape = chain([first], iterator), first.scores.shape
    pixels = len(shape) >= 2
    if task in ("classification", "segmentation") and pixels:
        yield from _masks(everything, folder, lambda scores: _classes(scores, after))
    elif task == "binary_classification" and pixels:
        yield from _masks(everything, folder, lambda scores: _yes(scores, threshold, after))
    elif task == "classification":
        names = _names(classes, len(first.scores))
        header = ["name", "predicted", *(f"p({label})" for label in names)]
        yield _table(everything, folder, header, lambda scores: _class_row(scores, names))
    elif task == "binary_classification":
        count = first.scores.numel()
        yes_or_no = _names(classes if count == 1 else (), 2)
        ends = [f" {label}" for label in range(count)] if count > 1 else [""]
        header = ["name", *(f"{part}{end}" for end in ends for part in ("predicted", "p"))]
        if count == 1 and classes:
            header[-1] = f"p({yes_or_no[1]})"
        yield _table(everything, folder, header, lambda scores: _label_row(scores, threshold, yes_or_no))
    elif task == "regression" and first.scores.numel() <= COLUMNS:
        count = first.scores.numel()
        header = ["name", *(f"predicted {i}" if count > 1 else "predicted" for i in range(count))]
        yield _table(everything, folder, header, lambda scores: scores.double().flatten().tolist())
    else:
        yield from _arrays(everything, folder)


def _names(classes: Sequence[str], count: int) -> Sequence[Any]:
    """The names of the classes, or their numbers if these are not names of so many."""
    return classes if len(classes) == count else range(count)


def _class_row(scores: Tensor, names: Sequence[Any]) -> list[Any]:
    shares = scores.double().softmax(0)
    return [names[int(shares.argmax())], *shares.tolist()]


def _label_row(scores: Tensor, threshold: float, names: Sequence[Any]) -> list[Any]:
    chances = scores.double().sigmoid().flatten().tolist()
    return [part for chance in chances for part in (names[int(chance >= threshold)], chance)]


def _table(predictions: Iterable[Prediction], folder: Path, header: list[str], row: Any) -> Path:
    path = folder / TABLE
    with _completed(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, one in enumerate(predictions):
            writer.writerows([[*header, *one.spread]] if number == 0 else [])
            writer.writerow([one.name, *row(one.scores), *one.spread.values()])
    return path


def _yes(scores: Tensor, threshold: float, after: Postprocessing | None) -> NDArray[np.uint8]:
    chances = scores.double().sigmoid()
    mask = (chances[0] if chances.ndim > 2 and len(chances) == 1 else chances).numpy() >= threshold
    return (mask if after is None else after(mask)).astype(np.uint8) * 255


def _classes(scores: Tensor, after: Postprocessing | None) -> NDArray[np.uint8]:
    """The class of each pixel. What post-processing takes from a class is 0; what it adds, it adds to class 0 only."""
    found = scores.argmax(0).numpy()
    if after is not None:
        result = np.zeros_like(found)
        for label in range(1, len(scores)):
            result[after(found == label) & ((found == label) | (result == 0))] = label
        found = result
    return found.astype(np.uint8 if len(scores) <= 256 else np.uint16)


def _masks(predictions: Iterable[Prediction], folder: Path, mask_of: Any) -> Iterator[Path]:
    from PIL import Image

    (folder / "masks").mkdir(exist_ok=True)
    for one in predictions:
        content = io.BytesIO()
        Image.fromarray(mask_of(one.scores)).save(content, "png")
        yield _bytes(folder / "masks" / f"{one.name}.png", content.getvalue())


def _arrays(predictions: Iterable[Prediction], folder: Path) -> Iterator[Path]:
    (folder / "arrays").mkdir(exist_ok=True)
    for one in predictions:
        content = io.BytesIO()
        scores = one.scores.float() if one.scores.dtype == torch.bfloat16 else one.scores
        np.save(content, scores.numpy(), allow_pickle=False)
        yield _bytes(folder / "arrays" / f"{one.name}.npy", content.getvalue())


def _bytes(path: Path, content: bytes) -> Path:
    with _completed(path) as temporary:
        temporary.write_bytes(content)
    return path


@contextmanager
def _completed(path: Path) -> Iterator[Path]:
    """A hidden file to write, which is put in its place at the end; an error or an interruption removes it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
