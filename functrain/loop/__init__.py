"""The loop that schedules: fit, events, signals, logs, resume. No tensor arithmetic."""

from functrain.loop.events import Event as Event
from functrain.loop.events import Stop as Stop
from functrain.loop.events import on as on
from functrain.loop.fit import FitResult as FitResult
from functrain.loop.fit import fit as fit
from functrain.loop.population import population as population
from functrain.loop.process.signals import Interrupted as Interrupted
from functrain.loop.resume.saving import ResumeRefusedError as ResumeRefusedError
from functrain.loop.resume.saving import ResumeWarning as ResumeWarning
