"""What a language model's loss is made of: by position in the text, and by token."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from functrain.evaluation.figures import style
from functrain.evaluation.panels.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]


def loss_by_position(sums: Numbers) -> Panel:
    """The mean loss of the tokens at about one position.

    Args:
        sums: `[3, G]`, of each group of positions: tokens, their positions (1 is the first), their losses in bits.
    """
    tokens, places, losses = sums[:, sums[0] > 0]
    data = {"position": (places / tokens).tolist(), "bits": (losses / tokens).tolist()}
    mean = float(losses.sum() / tokens.sum())
    return Panel("loss_by_position", "Loss by position", "loss_by_position", {**data, "mean": mean})


def draw_loss_by_position(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `loss_by_position`. The axis is logarithmic, as what one more token tells becomes less and less."""
    axes.plot(data["position"], data["bits"], color=style.BLUE, linewidth=1.4, marker="o", markersize=3)
    axes.axhline(data["mean"], color=style.RED, linewidth=1.2, linestyle="--", label=f"mean {data['mean']:.2f}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda place, _: f"{place:g}")
    axes.set_ylim(0, None)
    axes.set_xlabel("position in the text, tokens", fontsize=9)
    axes.set_ylabel("loss, bits per token", fontsize=9)


def token_losses(counts: Numbers, width: float, mean: float) -> Panel:
    """How many tokens have which loss.

    Args:
        counts: of each bar; the last one is of all greater losses, too.
        width: of a bar, in bits.
        mean: loss, in bits.
    """
    data = {"counts": counts.astype(int).tolist(), "width": width, "mean": mean}
    return Panel("token_losses", "Losses of tokens", "token_losses", data)


def draw_token_losses(axes: "Axes", data: dict[str, Any]) -> None:
    """Draw `token_losses`, as shares of all tokens."""
    counts = np.trim_zeros(np.asarray(data["counts"], float), "b")
    edges = np.arange(len(counts) + 1) * data["width"]
    more = ", the last bar or more" if len(counts) == len(data["counts"]) else ""
    axes.stairs(100 * counts / counts.sum(), edges, fill=True, color=style.SKY)
    axes.axvline(data["mean"], color=style.RED, linewidth=1.2, linestyle="--", label=f"mean {data['mean']:.2f}")
    axes.set_xlim(0, edges[-1])
    axes.set_xlabel(f"loss of a token, bits{more}", fontsize=9)
    axes.set_ylabel("share of tokens, %", fontsize=9)
