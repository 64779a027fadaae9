"""Three updates of somebody's model, by functrain and by a loop in plain torch: how far apart are they?"""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import functrain as ft
from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.errors import FunctrainError
from functrain.foundation.keys import fold_in, torch_seed

STEPS = 3
# Adam would divide by the gradient's size, and so magnify rounding where a gradient is nearly 0.
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
WAYS = ("eager", "aot_eager", "inductor")


@dataclass(frozen=True)
class Case:
    """A model, a batch, and what is minimised, said in functrain and in plain torch.

    Attributes:
        library: the package that it is from.
        build: returns the model, with random weights, and a batch.
        objective: for functrain.
        loss: for the loop by hand: model and batch to a mean.
        tolerance: largest difference in float64; more than 1e-8 only with a reason.
        reason: why the tolerance is larger.
        refused: ways that functrain refuses by name; both compiled ones if it cannot be compiled at all.
        default_dtype: for a model that makes tensors of torch's default type and needs them to be float64.
    """

    library: str
    build: Callable[[], tuple[nn.Module, Any]]
    objective: Callable[[Any, Any], ft.Loss]
    loss: Callable[[Any, Any], Tensor]
    tolerance: float = 1e-8
    reason: str = ""
    refused: tuple[str, ...] = ()
    default_dtype: torch.dtype = torch.float32


def measure(case: Case, ways: tuple[str, ...]) -> dict[str, Any]:
    """Number of parameters, and for each way of running a step the largest difference, or the refusal."""
    with warnings.catch_warnings(), _default_dtype(case.default_dtype):
        warnings.simplefilter("ignore")  # the libraries' own
        torch.manual_seed(0)
        model, batch = case.build()
        model.train()
        state = ft.init_state(model, case.objective, ft.optim.sgd(**SGD), precision="fp64")
        found: dict[str, Any] = {way: _refusal_or(lambda way=way: _by_functrain(state, batch, way)) for way in ways}
        expected = _by_hand(model, case, batch, state.key)
    record: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    for way, tensors in found.items():
        record[way] = tensors if isinstance(tensors, str) else _distance(tensors, expected)
    return record


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _by_functrain(state: ft.TrainState, batch: Any, way: str) -> dict[str, Tensor]:
    step = ft.train_step if way == "eager" else ft.compile(ft.train_step, backend=way)
    for _ in range(STEPS):
        state, metrics = step(state, batch)
        assert not metrics["skipped"], "the update was refused: it is not finite"
    return {**state.params, **state.buffers}


def _by_hand(model: nn.Module, case: Case, batch: Any, key: int) -> dict[str, Tensor]:
    """The usual loop; seeded as functrain seeds a step, so that dropout draws the same."""
    model.double()
    register_containers(batch)
    batch = cast_floating(batch, torch.float64)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], **SGD)
    for step in range(STEPS):
        optimizer.zero_grad()
        with torch_seed(fold_in(key, "step", step, 0, 0)):
            case.loss(model, batch).backward()
        optimizer.step()
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _refusal_or(run: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor] | str:
    """What was trained; or in words why not, if functrain refused it by name and with the way out."""
    try:
        return run()
    except (FunctrainError, ValueError, TypeError) as error:
        if "compile=False" not in str(error):
            raise
        return str(error)


def _distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference between two sets of tensors, relative where a tensor is larger than 1."""
    assert found.keys() == expected.keys()
    largest = 0.0
    for name, tensor in expected.items():
        ours, theirs = found[name].double(), tensor.detach().double()
        assert ours.shape == theirs.shape, name
        if ours.numel() and not torch.equal(ours, theirs):
            scale = theirs[theirs.isfinite()].abs().max().clamp(min=1) if theirs.isfinite().any() else 1.0
            difference = torch.where(ours == theirs, 0.0, (ours - theirs).abs() / scale)
            largest = max(largest, difference.nan_to_num(float("inf")).max().item())
    return largest


def read(path: Path) -> dict[str, dict]:
    """The records of a file, by name: of each way of running a step the latest result, and in "commits" its commit."""
    records: dict[str, dict] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        record = json.loads(line)
        before = records.get(record["name"], {})
        commits = {way: record["commit"] for way in WAYS if way in record}
        records[record["name"]] = {**before, **record, "commits": {**before.get("commits", {}), **commits}}
    return records
