"""The loop that schedules: fit, events, signals, logs, resume. No tensor arithmetic."""

from functrain.loop.events import Event as Event
from functrain.loop.events import Stop as Stop
from functrain.loop.events import on as on
from functrain.loop.fit import FitResult as FitResult
from functrain.loop.fit import fit as fit
from functrain.loop.hunt import NonFinite as NonFinite
from functrain.loop.hunt import find_nonfinite as find_nonfinite
from functrain.loop.profiling import Profile as Profile
from functrain.loop.profiling import profile as profile
from functrain.loop.replay import Comparison as Comparison
from functrain.loop.replay import ReplayReport as ReplayReport
from functrain.loop.replay import replay as replay
from functrain.loop.saving import ResumeRefusedError as ResumeRefusedError
from functrain.loop.saving import ResumeWarning as ResumeWarning
from functrain.loop.signals import Interrupted as Interrupted
