"""functrain: `fit` as it comes, and the bare compiled step. Imports torch and functrain."""

from typing import Any, Literal

import functrain as ft
from benchmarks.peers.by_hand import tensors
from benchmarks.peers.clock import Clock
from benchmarks.peers.networks import BETAS, EPS, LR, WEIGHT_DECAY, Network
from functrain.data import Loader
from functrain.data.datasets import Arrays

LARGE = 1 << 20  # parameters


def _state(network: Network, **options: Any) -> ft.TrainState:
    objective = ft.language_modelling() if network.tokens else ft.classification()
    optimizer = ft.optim.adamw(LR, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)
    return ft.init_state(network.model(), objective, optimizer, **options)


def fit(
    network: Network,
    clock: Clock,
    rounds: int,
    compile: bool | Literal["auto"],
    batches: Any = None,
    **options: Any,
) -> None:
    """With its other defaults: shuffling loader, accuracy, progress display, donation; `options` are of the state."""
    state = _state(network, **options)
    # A callback between epochs is given copies of the state, which must not count; one after each step costs two
    # microseconds, which must not count either.
    large = sum(p.numel() for p in state.params.values()) > LARGE

    @ft.on("before_epoch")
    def before(_event: ft.Event) -> None:
        clock.begin()

    @ft.on("after_step" if large else "after_epoch")
    def after(event: ft.Event) -> None:
        if not large or event.state.step % network.steps == 0:
            clock.end()

    loader = batches or Loader(Arrays(*tensors(network)), network.batch)
    ft.fit(state, loader, epochs=rounds, compile=compile, callbacks=[before, after])


def step(network: Network, clock: Clock, rounds: int, *, compiled: bool = True) -> None:
    """The step alone, on batches that are ready."""
    state: Any = _state(network)
    inputs, targets = tensors(network)
    batches = list(zip(inputs.split(network.batch), targets.split(network.batch)))
    train_step = ft.compile(ft.train_step, donate=True) if compiled else ft.train_step
    for _ in range(rounds):
        clock.begin()
        for batch in batches:
            state, _ = train_step(state, batch)
        clock.end()
