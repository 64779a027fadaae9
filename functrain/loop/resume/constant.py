"""What every checkpoint of a run says beside its state."""

from typing import Any

from functrain.compiler.request import recorded
from functrain.data.preprocessing import preprocessor_of
from functrain.loop.batches import Feed
from functrain.loop.resume.environment import described, fingerprint
from functrain.loop.resume.environment import settings as settings_of
from functrain.loop.resume.metadata import RunMetadata
from functrain.loop.resume.saving import initial_learning_rate
from functrain.loop.settings import Settings
from functrain.step.state import TrainState


def constant_metadata(settings: Settings, state: TrainState, loader: Any, feed: Feed) -> RunMetadata:
    """What every checkpoint of a run says.

    Args:
        settings: of the run.
        state: a fresh one.
        loader: as given to `fit`.
        feed: made of it.
    """
    compiled = recorded(settings.backend, settings.mode, settings.engine) if settings.compile else "eager"
    parts = {} if settings.micro_batch == "auto" else {"micro_batch": settings.micro_batch}
    return RunMetadata(
        environment=fingerprint(state.device, compiled),
        settings=settings_of(state, feed.stream, settings.tail) | parts | settings.limits(),
        described=described(state, feed.stream),
        lr=initial_learning_rate(state),
        preprocessor=preprocessor_of(loader),
        own=settings.metadata or {},
    )
