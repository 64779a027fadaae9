"""Figures: the curves of a run, a learning-rate range test, and the style of all of them."""

from functrain.evaluation.figures.curves import curves_figure as curves_figure
from functrain.evaluation.figures.curves import learning_rate_schedule as learning_rate_schedule
from functrain.evaluation.figures.curves import training_curves as training_curves
from functrain.evaluation.figures.curves import with_corners as with_corners
from functrain.evaluation.figures.learning_rates import learning_rate_range as learning_rate_range
from functrain.evaluation.figures.style import check_figure as check_figure
