"""Studies of a run: replay, earlier states, what is not finite, profiles, a summary, a learning rate or batch size."""

from functrain.diagnostics.batch_size import BatchSizes as BatchSizes
from functrain.diagnostics.batch_size import find_batch_size as find_batch_size
from functrain.diagnostics.hunt import NonFinite as NonFinite
from functrain.diagnostics.hunt import find_nonfinite as find_nonfinite
from functrain.diagnostics.lr_range import LRRange as LRRange
from functrain.diagnostics.lr_range import find_lr as find_lr
from functrain.diagnostics.model_summary import ModelSummary as ModelSummary
from functrain.diagnostics.model_summary import model_summary as model_summary
from functrain.diagnostics.profiling import Profile as Profile
from functrain.diagnostics.profiling import profile as profile
from functrain.diagnostics.replay import Comparison as Comparison
from functrain.diagnostics.replay import ReplayReport as ReplayReport
from functrain.diagnostics.replay import replay as replay
from functrain.diagnostics.time_travel import state_at as state_at
