"""Type checkers know what `import functrain` offers. Never called: `make check` type-checks this file."""

from pathlib import Path
from typing import assert_type

import functrain as ft
from functrain.data import Loader
from functrain.evaluation import Report
from functrain.foundation.errors import TracingError
from functrain.loop import FitResult
from functrain.models import DigitsCNN
from functrain.step import TrainState


def types() -> None:
    """A type other than these, or Any, is an error of the type checker."""
    model = ft.models.DigitsCNN()
    loader = ft.data.Loader(ft.data.digits("train"), batch_size=64)
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3))
    assert_type(model, DigitsCNN)
    assert_type(loader, Loader)
    assert_type(state, TrainState)
    assert_type(ft.fit(state, loader, epochs=1), FitResult)
    assert_type(ft.evaluation_report(state, loader), Report)
    assert_type(ft.evaluation.write_report(ft.evaluation_report(state, loader), "test")[0], Path)
    assert_type(ft.errors.TracingError(), TracingError)
    assert_type(ft.__version__, str)
