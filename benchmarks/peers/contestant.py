"""One contestant: a process that trains one network in one way, a round at a time.

Usage: python -m benchmarks.peers.contestant NETWORK WAY ROUNDS STEPS (the judge, benchmarks.peers, starts it)
"""

import dataclasses
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.peers import evaluating
from benchmarks.peers.clock import Clock
from benchmarks.peers.networks import NETWORKS, Network

Run = Callable[[str, Network, Clock, int], None]


@dataclass(frozen=True)
class Way:
    """A way of training.

    Attributes:
        module: what must be installed.
        run: trains so many rounds.
    """

    module: str
    run: Run


def _by_hand(name: str, network: Network, clock: Clock, rounds: int, *, compiled: bool) -> None:  # noqa: ARG001
    from benchmarks.peers import by_hand

    by_hand.loop(network, clock, rounds, compiled=compiled)


def _framework(which: str) -> Run:
    def run(_name: str, network: Network, clock: Clock, rounds: int) -> None:
        from benchmarks.peers import frameworks

        getattr(frameworks, which)(network, clock, rounds)

    return run


def _jax(name: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import jax_loop

    jax_loop.loop(name, network, clock, rounds)


def _fit(compile: bool | Literal["auto"]) -> Run:
    def run(_name: str, network: Network, clock: Clock, rounds: int) -> None:
        from benchmarks.peers import ours

        ours.fit(network, clock, rounds, compile)

    return run


def _fit_unguarded(_name: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import ours

    ours.fit(network, clock, rounds, True, refuse_nonfinite=False)


def _step(_name: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import ours

    ours.step(network, clock, rounds)


def _evaluation(which: str, **options: bool) -> Run:
    def run(_name: str, network: Network, clock: Clock, rounds: int) -> None:
        getattr(evaluating, which)(network, clock, rounds, **options)

    return run


def _from_loader(kind: str, train: Run) -> Run:
    def run(_name: str, network: Network, clock: Clock, rounds: int) -> None:
        train(kind, network, clock, rounds)

    return run


WAYS = {
    "torch by hand, eager": Way("torch", lambda *a: _by_hand(*a, compiled=False)),
    "torch by hand, torch.compile on model + loss": Way("torch", lambda *a: _by_hand(*a, compiled=True)),
    "Ignite": Way("ignite", _framework("ignite")),
    "Accelerate": Way("accelerate", _framework("accelerate")),
    "Lightning": Way("lightning", _framework("lightning")),
    "HF Trainer": Way("transformers", _framework("hf_trainer")),
    "jax.jit + optax, donated": Way("optax", _jax),
    "functrain.fit": Way("functrain", _fit(True)),
    "functrain.fit, refuse_nonfinite=False": Way("functrain", _fit_unguarded),
    "functrain: compiled step alone, donated": Way("functrain", _step),
}

# Ways to start a run. How long their steps take, others say.
STARTS = {
    'functrain.fit, compile="auto"': Way("functrain", _fit("auto")),
    "functrain.fit, compile=False": Way("functrain", _fit(False)),
}

# Ways to evaluate, and ways to train from loaders of one's own.
EVALUATIONS = {
    "evaluation: torch by hand, eager": Way("torch", _evaluation("by_hand")),
    "evaluation: Ignite": Way("ignite", _evaluation("ignite")),
    "evaluation: Accelerate": Way("accelerate", _evaluation("accelerate")),
    "evaluation: Lightning": Way("lightning", _evaluation("lightning")),
    "evaluation: HF Trainer": Way("transformers", _evaluation("hf_trainer")),
    "evaluation: jax.jit": Way("optax", lambda name, *a: evaluating.jax(name, *a)),
    "evaluation: functrain.evaluate": Way("functrain", _evaluation("functrain", compiled=False)),
    "evaluation: functrain.evaluate, compile=True": Way("functrain", _evaluation("functrain", compiled=True)),
}
LOADERS = {
    f"{kind}: {name}": Way(module, _from_loader(kind, train))
    for kind in evaluating.KINDS
    for name, (module, train) in evaluating.TRAINERS.items()
}
ALL = WAYS | STARTS | EVALUATIONS | LOADERS


def main() -> None:
    name, way, rounds, steps = sys.argv[1:]
    network = dataclasses.replace(NETWORKS[name], steps=int(steps))
    clock = Clock(network.steps)
    chosen = ALL[way]
    if chosen.module != "optax":
        import torch

        torch.manual_seed(0)
    chosen.run(name, network, clock, int(rounds))
    sys.stdout.flush()
    os._exit(0)  # some frameworks take their time to shut down


if __name__ == "__main__":
    main()
