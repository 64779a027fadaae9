"""Transforms of the step: per-sample gradients, private training, curvature, influence, differentiated training."""

from functrain.transforms.per_sample import per_sample_gradient_norms as per_sample_gradient_norms
from functrain.transforms.per_sample import per_sample_gradients as per_sample_gradients
