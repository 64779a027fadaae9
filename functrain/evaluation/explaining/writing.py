"""The files of an explanation, of embeddings, and of attention."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from functrain.evaluation import panels
from functrain.evaluation.explaining.explanation import Explanation
from functrain.evaluation.explaining.observing import Observed
from functrain.evaluation.explaining.projections import pca, tsne
from functrain.evaluation.panels import Panel, attention, embeddings, gates, importance
from functrain.evaluation.panels.panel import write_json
from functrain.evaluation.writing.files import write_arrays
from functrain.metrics.attention import entropies

LAYOUTS = ("table", "spectrum", "image")
FEATURES = 64  # numbers in a row: more are taken for a spectrum
MAPS = 8  # attention maps on a sheet
FIGURES = "figures"


def write_explanation(
    explanation: Explanation,
    folder: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    layout: str | None = None,
    about: Mapping[str, Any] | None = None,
    title: str | None = None,
    ending: str = ".png",
) -> list[Path]:
    """Write an explanation into a folder.

    | file | what |
    |---|---|
    | `explanation.json` | method, and for each example: what is explained, scores, completeness, evaluations |
    | `attributions.npz` | the inputs, and the attribution of each number |
    | `feature_importance.png` | the means over the examples: features, bands or pixels; a few images |
    | `figures/*.json` | what the figure shows; `panels.read_panel` and `panels.draw` make it again |

    Args:
        explanation: what `explain` gave.
        folder: where to; it is made if need be.
        names: of the features of a table.
        labels: of the classes.
        layout: what the inputs are: "table" (`[F]` each), "spectrum" (`[..., L]` each, bands last) or "image" (`[H, W]`
            or `[C, H, W]`). None: by their shape, `[F]` up to 64 numbers being a table, more of them and `[S, L]` a
            spectrum, and `[C, H, W]` an image.
        about: more for `explanation.json`: name -> text or number.
        title: of the figure.
        ending: of the figure's file: ".png", ".svg" or ".pdf".

    Returns:
        The files.

    Raises:
        ValueError: for names, labels or a layout that do not fit.
        ModuleNotFoundError: without matplotlib.
        OSError: if a file cannot be written.

    Example:
        >>> import tempfile, torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in write_explanation(ft.explain(state, torch.ones(4, 2)), folder)][:2]
        ['explanation.json', 'attributions.npz']
    """
    folder = Path(folder)
    drawn = _importance(explanation, names, labels, layout)
    folder.mkdir(parents=True, exist_ok=True)
    content = {**(about or {}), "method": explanation.method, **_content(explanation, labels)}
    arrays = {"target": explanation.target, "score": explanation.scores}
    for name, (leaf, value) in explanation.named().items():
        arrays |= {f"inputs/{name}": leaf, f"attributions/{name}": value}
    return [
        write_json(folder / "explanation.json", content, indent=2),
        write_arrays(folder / "attributions.npz", {name: array.numpy() for name, array in arrays.items()}),
        *_sheet(drawn, folder, f"feature_importance{ending}", title),
    ]


def write_observed(
    observed: Observed,
    folder: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    with_tsne: bool = False,
    seed: int = 0,
    title: str | None = None,
    ending: str = ".png",
) -> list[Path]:
    """Write embeddings, attention and gates into a folder, as far as the model has some.

    | file | what |
    |---|---|
    | `pca_analysis.png` | the first two principal components, the variance of each; with `with_tsne` t-SNE |
    | `attention_analysis.png` | mean attention weights of each head, and their entropies |
    | `gate_analysis.png` | how far each gate is open |
    | `figures/*.json` | what these show |

    Args:
        observed: what `observe` gave.
        folder: where to; it is made if need be.
        names: of the features of a table, for gates of as many features.
        labels: names of the classes.
        with_tsne: also t-SNE, which needs scikit-learn.
        seed: of t-SNE.
        title: of the figures.
        ending: of their files.

    Raises:
        ValueError: for an embedding of less than two examples.
        ModuleNotFoundError: without matplotlib, or scikit-learn.
        OSError: if a file cannot be written.
    """
    folder, files = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    if observed.embedding is not None:
        drawn = _embedding(observed, observed.embedding, labels, seed if with_tsne else None)
        files += _sheet(drawn, folder, f"pca_analysis{ending}", title)
    if observed.attention:
        files += _sheet(_attention(observed.attention), folder, f"attention_analysis{ending}", title)
    if observed.gates:
        files += _sheet(_gates(observed.gates, names), folder, f"gate_analysis{ending}", title)
    return files


def _sheet(drawn: list[Panel], folder: Path, name: str, title: str | None) -> list[Path]:
    (folder / FIGURES).mkdir(exist_ok=True)
    data = [panels.write_panel(panel, folder / FIGURES / f"{panel.name}.json") for panel in drawn]
    return [panels.draw_sheet(list(map(panels.read_panel, data)), folder / name, title), *data]


def _content(explanation: Explanation, labels: Sequence[str] | None) -> dict[str, Any]:
    """What is known of each example."""
    columns: dict[str, list[Any]] = {"explained": explanation.target.tolist(), "score": explanation.scores.tolist()}
    if labels is not None:
        columns["label"] = [_label(labels, number) for number in columns["explained"]]
    further = {
        "baseline_score": explanation.baseline_scores,
        "completeness": explanation.completeness,
        "error": explanation.error,
        "evaluations": explanation.evaluations,
    }
    columns |= {name: found.tolist() for name, found in further.items() if found is not None}
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    worst = {} if explanation.completeness is None else {"largest_completeness": float(explanation.completeness.max())}
    return {**worst, "examples": [{"example": number, **row} for number, row in enumerate(rows)]}


def _label(labels: Sequence[str], number: int) -> str:
    if number >= len(labels):
        raise ValueError(f"there are {len(labels)} labels ({', '.join(labels)}), but there is a class {number}")
    return labels[number]


def _importance(
    explanation: Explanation, names: Sequence[str] | None, labels: Sequence[str] | None, layout: str | None
) -> list[Panel]:
    found = explanation.named()
    drawn: list[Panel] = []
    for name, (leaf, value) in found.items():
        mark = "" if len(found) == 1 else f"_{name.replace('/', '_')}"
        given, values = (part.double().numpy() for part in (leaf, value))
        kind = layout_of(tuple(leaf.shape), layout)
        if kind == "table":
            features = _features(values.shape[1], names)
            drawn.append(importance.feature_importance(f"feature_importance{mark}", values, features))
        elif kind == "spectrum":
            drawn.append(importance.band_importance(f"band_importance{mark}", values))
        else:
            given, values = (part[:, None] if part.ndim == 3 else part for part in (given, values))
            texts = [f"{_label(labels, number) if labels else number}" for number in explanation.target.tolist()]
            drawn.append(importance.pixel_importance(f"pixel_importance{mark}", values))
            drawn.append(importance.image_examples(f"examples{mark}", given, values, texts))
        if len(found) > 1:
            drawn[-1] = drawn[-1]._replace(title=f"{drawn[-1].title}: {name}")
    if len(found) > 1:
        sizes = {name: value.double().abs().flatten(1).sum(1).numpy() for name, (_, value) in found.items()}
        total = np.sum(list(sizes.values()), 0)
        shares = {name: each / np.where(total > 0, total, 1.0) for name, each in sizes.items()}
        drawn.append(importance.input_shares("input_shares", shares))
    return drawn


def layout_of(shape: tuple[int, ...], layout: str | None) -> str:
    """What an input `[N, ...]` is: "table", "spectrum" or "image".

    Raises:
        ValueError: if there is no such layout, or the shape is none of it.

    Example:
        >>> layout_of((8, 30), None), layout_of((8, 700), None), layout_of((8, 3, 32, 32), None)
        ('table', 'spectrum', 'image')
    """
    dimensions = len(shape) - 1
    if layout is None:
        by_size = "table" if dimensions == 1 and shape[1] <= FEATURES else "spectrum"
        layout = "image" if dimensions == 3 else by_size
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}; got {layout!r}")
    fits = {"table": dimensions == 1, "spectrum": dimensions >= 1, "image": dimensions in (2, 3)}[layout]
    if not fits:
        raise ValueError(f"inputs of shape {list(shape)} are no {layout}: give the layout that they have")
    return layout


def _features(count: int, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [str(number) for number in range(count)]
    if len(names) != count:
        raise ValueError(f"there are {count} features, but {len(names)} names: {', '.join(names)}")
    return list(names)


def _embedding(
    observed: Observed, embedding: Tensor, labels: Sequence[str] | None, tsne_seed: int | None
) -> list[Panel]:
    values = embedding.double().numpy()
    classes = _classes(observed.targets)
    names = None if classes is None or labels is None else [_label(labels, n) for n in range(int(classes.max()) + 1)]
    found = pca(values, min(2, values.shape[1]))
    points = found.points if found.points.shape[1] == 2 else np.pad(found.points, ((0, 0), (0, 1)))
    shares = [*found.explained, 0.0, 0.0]
    ends = (f"component 1 ({shares[0]:.0%} of the variance)", f"component 2 ({shares[1]:.0%})")
    drawn = [
        embeddings.scatter("pca", f"Principal components ({observed.place})", points, classes, names, ends),
        embeddings.explained_variance("explained_variance", found.explained),
    ]
    if tsne_seed is not None:
        points = tsne(values, seed=tsne_seed).points
        drawn.append(embeddings.scatter("tsne", "t-SNE", points, classes, names, ("t-SNE 1", "t-SNE 2")))
    return drawn


def _classes(targets: Any) -> Any:
    """Targets that are classes, int64 `[N]`; None: they are something else."""
    if not isinstance(targets, Tensor) or targets.is_floating_point():
        return None
    targets = targets.squeeze(1) if targets.ndim == 2 and targets.shape[1] == 1 else targets
    return targets.long().numpy() if targets.ndim == 1 and int(targets.min()) >= 0 else None


def _attention(weights: Mapping[str, Tensor]) -> list[Panel]:
    """A map for each head, or a profile where there is one query; then the entropies of all."""
    drawn: list[Panel] = []
    found: dict[str, Any] = {}
    for name, whole in weights.items():
        for mark, each in _heads(whole):
            named = name.replace("_", " ") if len(weights) > 1 else ""
            label = " ".join(part for part in (named, mark) if part) or "all"
            values = each.double()
            by_row, known = entropies(values)
            counted = known.flatten(1).sum(1).clamp(min=1)
            found[label] = (by_row.flatten(1).sum(1) / counted).numpy()
            file, many = f"attention_{len(drawn)}", values.shape[1] > 1
            make: Callable[..., Panel] = attention.attention_map if many else attention.attention_profile
            drawn.append(make(file, label, (values.mean(0) if many else values[:, 0]).numpy()))
    return [*drawn[:MAPS], attention.attention_entropy("attention_entropy", found)]


def _gates(openings: Mapping[str, Tensor], names: Sequence[str] | None) -> list[Panel]:
    drawn: list[Panel] = []
    for name, values in openings.items():
        fits = names is not None and len(names) == values.shape[1]
        title = name.replace("_", " ").replace("gates ", "Gates: ")
        features = _features(values.shape[1], names if fits else None)
        drawn.append(gates.gate_openings(f"gates_{len(drawn)}", title, values.double().numpy(), features))
    return drawn


def _heads(weights: Tensor) -> list[tuple[str, Tensor]]:
    """Each head of attention weights `[N, ..., K]`, as `[N, Q, K]`."""
    if weights.ndim == 2:
        return [("", weights[:, None])]
    if weights.ndim == 3:
        return [("", weights)]
    merged = weights.flatten(1, -3)
    return [(f"head {number}", merged[:, number]) for number in range(merged.shape[1])]
