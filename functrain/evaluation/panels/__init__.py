"""The figures of an evaluation, each drawn from data that are kept as JSON."""

from collections.abc import Sequence
from pathlib import Path

from functrain.evaluation.figures import style
from functrain.evaluation.panels import (
    attention,
    classes,
    confusion,
    curves,
    embeddings,
    ensembles,
    gates,
    importance,
    layers,
    models,
    panel,
    probabilities,
    tokens,
    values,
)
from functrain.evaluation.panels.panel import Draw
from functrain.evaluation.panels.panel import Panel as Panel
from functrain.evaluation.panels.panel import read_panel as read_panel
from functrain.evaluation.panels.panel import write_panel as write_panel

KINDS: dict[str, Draw] = {
    "roc": curves.draw_roc,
    "precision_recall": curves.draw_precision_recall,
    "threshold": curves.draw_threshold,
    "calibration": probabilities.draw_calibration,
    "histogram": probabilities.draw_histogram,
    "confusion_matrix": confusion.draw_confusion_matrix,
    "predicted_over_true": values.draw_predicted_over_true,
    "residuals": values.draw_residuals,
    "loss_by_position": tokens.draw_loss_by_position,
    "token_losses": tokens.draw_token_losses,
    "class_scores": classes.draw_class_scores,
    "members": ensembles.draw_members,
    "metric_bars": models.draw_metric_bars,
    "feature_importance": importance.draw_feature_importance,
    "band_importance": importance.draw_band_importance,
    "pixel_importance": importance.draw_pixel_importance,
    "image_examples": importance.draw_image_examples,
    "input_shares": importance.draw_input_shares,
    "scatter": embeddings.draw_scatter,
    "explained_variance": embeddings.draw_explained_variance,
    "attention_map": attention.draw_attention_map,
    "attention_profile": attention.draw_attention_profile,
    "attention_entropy": attention.draw_attention_entropy,
    "gate_openings": gates.draw_gate_openings,
    "layer_heat_map": layers.draw_layer_heat_map,
}


def draw(panel_: Panel, path: str | Path) -> Path:
    """Draw a figure into a file; its ending (.png, .pdf, .svg) says the format.

    Raises:
        ValueError: for another ending, or a kind of figure that does not exist.
    """
    return panel.draw(panel_, path, KINDS)


def draw_sheet(
    panels: Sequence[Panel], path: str | Path, title: str | None = None, *, height: float = style.HEIGHT
) -> Path:
    """Draw figures on one sheet, in rows of three, each so many inches high; errors as of `draw`."""
    return panel.draw_sheet(panels, path, KINDS, title, height)
