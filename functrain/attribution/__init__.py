"""Attribution by gradients: how much each input contributes to a score. Pure functions of a score and inputs.

A score is a function from inputs, a tree of tensors with a row for each example, to one number for each row. Floating
tensors of the tree get attributions; others, such as token numbers or a class, are held fixed.
"""

from functrain.attribution.gradients import Attribution as Attribution
from functrain.attribution.gradients import input_x_gradient as input_x_gradient
from functrain.attribution.gradients import saliency as saliency
from functrain.attribution.integrated import integrated_gradients as integrated_gradients
from functrain.attribution.rows import Score as Score
from functrain.attribution.sampled import gradient_shap as gradient_shap
from functrain.attribution.sampled import smooth_grad as smooth_grad
