"""Transforms of the step: per-sample gradients, private training, curvature, influence, differentiated training."""

from functrain.transforms.accounting import noise_multiplier_for as noise_multiplier_for
from functrain.transforms.accounting import privacy_spent as privacy_spent
from functrain.transforms.averaging import average_along as average_along
from functrain.transforms.averaging import average_states as average_states
from functrain.transforms.averaging import interpolate as interpolate
from functrain.transforms.connectivity import Connectivity as Connectivity
from functrain.transforms.connectivity import mode_connectivity as mode_connectivity
from functrain.transforms.fisher import fisher_diagonal as fisher_diagonal
from functrain.transforms.hessian import hvp as hvp
from functrain.transforms.influence import Influence as Influence
from functrain.transforms.influence import influence as influence
from functrain.transforms.lanczos import Eigenvalues as Eigenvalues
from functrain.transforms.lanczos import top_eigenvalues as top_eigenvalues
from functrain.transforms.noise_scale import NoiseScale as NoiseScale
from functrain.transforms.noise_scale import gradient_noise_scale as gradient_noise_scale
from functrain.transforms.per_sample import per_sample_gradient_norms as per_sample_gradient_norms
from functrain.transforms.per_sample import per_sample_gradients as per_sample_gradients
from functrain.transforms.private import private as private
from functrain.transforms.statistics import recompute_buffers as recompute_buffers
from functrain.transforms.trace import Trace as Trace
from functrain.transforms.trace import hutchinson_trace as hutchinson_trace
from functrain.transforms.unrolling import Unrolled as Unrolled
from functrain.transforms.unrolling import unroll as unroll
