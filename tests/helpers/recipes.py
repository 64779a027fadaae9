"""The examples as modules, and the comparison in pairs by which their claims are tested."""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

FOLDER = Path(__file__).parents[2] / "examples"
PAGES = Path(__file__).parents[2] / "docs" / "recipes"
SEEDS = range(20)


def load(name: str) -> dict[str, Any]:
    """What an example defines; what it does under `if __name__ == "__main__":` is not done."""
    return runpy.run_path(str(FOLDER / name), run_name=Path(name).stem)


def p_value(better: Sequence[float], worse: Sequence[float]) -> float:
    """That the first are no greater than the second, seed by seed: the one-sided Wilcoxon signed-rank test."""
    return float(stats.wilcoxon(better, worse, alternative="greater").pvalue)
