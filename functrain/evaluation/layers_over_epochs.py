"""Statistics of gradients, updates and activations over the epochs of a run, as heat maps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from functrain.evaluation import panels
from functrain.evaluation.panels import Panel, layers

# What is drawn, of the statistics in a log ("grad/encoder.0/norm"): title and unit.
DRAWN = {
    ("grad", "norm"): ("Gradient", "norm of the gradient"),
    ("update", "ratio"): ("Update", "norm of the update / norm of the weights"),
    ("activation", "norm"): ("Output of the module", "norm of the output"),
    ("activation", "zeros"): ("Zeros in the output", "share of elements that are 0"),
}
ROW, LEAST, MOST = 0.17, 3.9, 9.0  # inches: of a layer, of a heat map


def layer_statistics(
    records: Sequence[Mapping[str, Any]], path: str | Path, *, title: str | None = None, data: Path | None = None
) -> list[Path]:
    """Draw the statistics of layers as heat maps: a row for each layer, a column for each epoch.

    A value is the mean over the epoch's logged updates. Runs log statistics with `init_state(statistics="module",
    activations=True)`, or `training.statistics` and `training.activations` in a configuration.

    Args:
        records: of a run, as `metrics.jsonl` holds them.
        path: the image to write; its ending says the format (.png, .pdf, .svg).
        title: above the heat maps.
        data: a folder for what they show, as JSON; None: it is not written.

    Returns:
        The files.

    Raises:
        ValueError: if there are no statistics in the records, and as `check_figure`.
        ModuleNotFoundError: without matplotlib.
    """
    drawn = heat_maps(records)
    if not drawn:
        raise ValueError(
            "the log has no statistics of layers: set training.statistics to 'module' or 'parameter', or "
            "training.activations to true"
        )
    count = max(len(panel.data["layers"]) for panel in drawn)
    written = [panels.draw_sheet(drawn, path, title, height=min(max(LEAST, 1.3 + ROW * count), MOST))]
    if data is not None:
        data.mkdir(parents=True, exist_ok=True)
        written += [panels.write_panel(panel, data / f"{panel.name}.json") for panel in drawn]
    return written


def heat_maps(records: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """The heat maps of the statistics that are in the records.

    Example:
        >>> records = [{"kind": "step", "epoch": e, "step": e, "grad/a/norm": float(e)} for e in (1, 1, 2)]
        >>> heat_maps(records)[0].data["values"]
        [[1.0, 2.0]]
    """
    found: dict[tuple[str, str], dict[str, dict[int, list[float]]]] = {kind: {} for kind in DRAWN}
    for record in records:
        for name, value in record.items():
            of, _, rest = name.partition("/")
            layer, _, statistic = rest.rpartition("/")
            if (of, statistic) in found and layer and value is not None:
                found[of, statistic].setdefault(layer, {}).setdefault(record["epoch"], []).append(float(value))
    drawn = []
    for (of, statistic), of_layers in found.items():
        epochs = sorted({epoch for of_epochs in of_layers.values() for epoch in of_epochs})
        if epochs:
            epochs = list(range(epochs[0], epochs[-1] + 1))
            values = [[_mean(of_epochs.get(epoch, [])) for epoch in epochs] for of_epochs in of_layers.values()]
            name, words = f"layers_{of}_{statistic}", DRAWN[of, statistic]
            drawn.append(layers.layer_heat_map(name, *words, list(of_layers), epochs, values))
    return drawn


def _mean(values: list[float]) -> float | None:
    """Of what is finite; None of nothing, so that an epoch of overflows is seen."""
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else None
