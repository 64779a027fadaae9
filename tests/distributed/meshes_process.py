"""States on a mesh of two dimensions: what a rank finds, written as JSON.

Usage: meshes_process.py OUT RANKS FUNCTION[,ARGUMENT ...]

The ranks are forks of this process: it imports once what all of them need.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from digests_process import OPTIMIZERS, batches, make_state, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.foundation.trees import nbytes
from functrain.models import GPT, TENSOR_PARALLEL, ByteTransformer
from functrain.step.execution import Core, eager

MLP = {"0": "column", "2": "row"}
FUSED = {"blocks.*.query_key_value": "column:3", "*.mixed": "row", "*.feed.0": "column", "*.feed.2": "row"}
HYBRID = {"dp_replicate": 2, "dp_shard": 2}


def rank_and_ranks() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def hybrid_digests() -> dict[str, object]:
    """Of exact sums, on groups of two where there are four processes; and the bytes of a state at rest."""
    rank, ranks = rank_and_ranks()
    mesh, found = (HYBRID if ranks == 4 else None), {}
    for optimizer in OPTIMIZERS[:3]:
        for strategy in ("zero1", "zero3"):
            state = ft.shard(make_state(optimizer), mesh, strategy, reduction="exact")
            state, metrics = train(state, ft.train_step, rank, ranks)
            again = ft.shard(state, mesh, "zero3", reduction="exact")
            numbers = [metrics[name].item() for name in ("loss", "grad_norm", "f1")]
            assert ft.digest(again) == ft.digest(state)
            found[f"{optimizer} {strategy}"] = f"{ft.digest(state)} {numbers}"
    return found


def hybrid_bytes() -> dict[str, int]:
    """Of the parameters at rest, on groups of two and all together."""
    made = ft.init_state(nn.Linear(64, 64), ft.regression(), ft.optim.adamw(0.1))
    return {
        name: nbytes(ft.shard(made, mesh, "zero3").params)
        for name, mesh in (("hybrid", HYBRID), ("all", None), ("whole", {"dp_replicate": 4}))
    }


def hybrid_fast() -> dict[str, list[float]]:
    """Parameters after updates by fast sums, each rank with its rows of each micro-batch, by strategy."""
    rank, ranks = rank_and_ranks()
    found = {}
    for strategy in ("zero1", "zero3"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        made = ft.init_state(
            model, ft.classification(), ft.optim.adamw(0.01), accumulate=4, precision="fp64", clip_norm=0.1
        )
        state = ft.shard(made, HYBRID if ranks == 4 else None, strategy)
        for inputs, targets in batches():
            rows = torch.cat([inputs, inputs])[rank::ranks], torch.cat([targets, targets])[rank::ranks]
            state, metrics = ft.train_step(state, rows)
        flat = torch.cat([param.reshape(-1) for param in ft.unshard(state).params.values()])
        found[strategy] = [*flat.tolist(), metrics["loss"].item(), metrics["grad_norm"].item()]
    return found


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5)), MLP),
    "gpt": (lambda: GPT(vocabulary=5, length=6, width=16, layers=2, heads=4), TENSOR_PARALLEL),
    "bytes": (lambda: ByteTransformer(width=16, layers=1, heads=4, length=6), FUSED),
}


def data_of(name: str, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    if name == "mlp":
        pairs = [(torch.randn(8, 6, generator=generator), torch.randint(5, (8,), generator=generator))]
        return [(inputs + number, targets) for number in range(count) for inputs, targets in pairs]
    return [(torch.randint(5, (8, 6), generator=generator),) * 2 for _ in range(count)]


def cross_entropy(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> ft.Loss:
    inputs, targets = batch
    logits = model(inputs)
    total = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum")
    return ft.Loss(total, torch.tensor(float(targets.numel())))


def state_of(
    name: str, optimizer: str = "adamw", objective: object = cross_entropy, **options: object
) -> ft.TrainState:
    torch.manual_seed(0)
    return ft.init_state(
        NETWORKS[name][0](), objective, ft.optim.REGISTRY[optimizer](0.01), clip_norm=0.1, ema_decay=0.9, **options
    )


def trained(name: str, mesh: dict | None, strategy: str, optimizer: str, backend: str | None = None) -> dict:
    """Whole parameters and averages, and the last loss and norm, after some updates in float64."""
    rank, ranks = rank_and_ranks()
    made = state_of(name, optimizer, accumulate=2, precision="fp64")
    if ranks == 1:
        state, position, positions = made, 0, 1
    else:
        state = ft.shard(made, mesh, strategy, tensor_parallel=NETWORKS[name][1])
        position, positions = rank // mesh["tp"], ranks // mesh["tp"]
        assert state.recipe.exchange.rank == position
    step = ft.compile(ft.train_step, backend=backend) if backend else ft.train_step
    for inputs, targets in data_of(name, 6):
        state, metrics = step(state, (inputs[position::positions], targets[position::positions]))
    whole = ft.unshard(state)
    # The gradient of a key's bias is 0 but for rounding, which Adam blows up.
    leaves = [leaf for name, leaf in (whole.params | whole.ema.params).items() if not name.endswith("key.bias")]
    leaves += [leaf for name, leaf in whole.params.items() if not name.endswith("key.bias")]
    if name == "bytes":
        leaves = [leaf for leaf in leaves if leaf.shape != (48,)]
    flat = torch.cat([leaf.reshape(-1) for leaf in leaves])
    return [*flat.tolist(), metrics["loss"].item(), metrics["grad_norm"].item()]


def sliced() -> dict[str, list[float]]:
    """Of layers in slices, by what differs."""
    _, ranks = rank_and_ranks()
    mesh = {"dp": ranks // 2, "tp": 2}
    cases = [("mlp", "ddp", "adamw", None), ("gpt", "zero3", "adamw", None), ("bytes", "zero1", "adamw", None)]
    cases += [("mlp", "zero3", "muon", None), ("gpt", "ddp", "adamw", "aot_eager")]
    if ranks == 4:
        cases += [("gpt", "zero3", "muon", None), ("mlp", "zero1", "lamb", None)]
    elif ranks == 1:
        cases = [(name, "", optimizer, None) for name in NETWORKS for optimizer in ("adamw", "muon", "lamb")]
    return {
        f"{name} {strategy} {optimizer} {b}": trained(name, mesh, strategy, optimizer, b)
        for name, strategy, optimizer, b in cases
    }


def sliced_exact() -> dict[str, str]:
    """The digest of exact sums, with two slices of the layers on any number of processes."""
    found = {}
    for optimizer in ("adamw", "muon"):
        made = state_of("gpt", optimizer, accumulate=4)
        state = ft.shard(made, {"tp": 2}, "zero3", reduction="exact", tensor_parallel=TENSOR_PARALLEL)
        data, share = data_of("gpt", 8), state.recipe.exchange.share(4)
        for number, batch in enumerate(data):
            if share.first <= number % 4 < share.first + share.number:
                state, metrics = ft.train_step(state, batch)
        found[optimizer] = f"{ft.digest(state)} {metrics['loss'].item()} {metrics['grad_norm'].item()}"
    return found


def sliced_bytes() -> dict[str, int]:
    """Bytes of parameters and of the optimizer's state at rest."""
    made = ft.init_state(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), ft.regression(), ft.optim.adamw(0.1))
    state = ft.shard(made, {"tp": 2}, tensor_parallel={"0": "column", "1": "row"})
    return {"params": nbytes(state.params), "whole": nbytes(made.params)}


def sliced_programs() -> list[str]:
    """Which programs of a step a compiler gets: not the pass, in which the layers send."""
    state = ft.shard(state_of("mlp"), {"tp": 2}, tensor_parallel=MLP)
    seen: list[str] = []

    def run(core: Core, *arguments: object, **options: object) -> object:
        seen.append(core.name)
        return eager(core, *arguments, **options)

    ft.train_step(state, data_of("mlp", 1)[0], run=run)
    return seen


def sliced_run(run_dir: str, epochs: str, tp: str) -> dict[str, object]:
    """A run by `fit`, with evaluations, metrics and checkpoints; its records and its last parameters."""
    _, ranks = rank_and_ranks()
    made = state_of("mlp", precision="fp64", accumulate=2, metrics=["f1"], objective=ft.classification())
    if ranks > 1:
        made = ft.shard(
            made, {"tp": int(tp)}, "zero3" if ranks > int(tp) else "ddp", tensor_parallel=MLP if tp != "1" else None
        )
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(44, 6, generator=generator), torch.randint(5, (44,), generator=generator))
    result = ft.fit(
        made,
        DataLoader(data, batch_size=8, shuffle=True, drop_last=True),
        eval_loader=DataLoader(data, batch_size=10),
        epochs=int(epochs),
        run_dir=run_dir,
        compile=False,
        save_every=2,
        deterministic=True,
        progress=False,
    )
    flat = torch.cat([leaf.reshape(-1) for leaf in ft.unshard(result.state).params.values()])
    return {"history": result.history, "params": flat.tolist(), "samples": result.state.samples_seen}


def wrong_plans() -> dict[str, str]:
    """What is said of plans that only the values of a step show to be wrong."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(inputs) * self.scale)

    found = {}
    batch = data_of("mlp", 1)[0]
    both = {"first": "column", "second": "row"}
    for name, plan in (
        ("inside", both),
        ("row", {"second": "row"}),
        ("column", {"first": "column"}),
        ("last", {"second": "column"}),
    ):
        torch.manual_seed(0)
        state = ft.init_state(Scaled(), cross_entropy if name != "last" else first_output, ft.optim.adamw(0.1))
        try:
            ft.train_step(ft.shard(state, {"tp": 2}, tensor_parallel=plan), batch)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def first_output(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> ft.Loss:
    return ft.Loss(model(batch[0])[:, 0].square().sum(), torch.tensor(8.0))


def write(out: str, function: str) -> None:
    rank, _ = rank_and_ranks()
    name, *arguments = function.split(",")
    Path(f"{out}.{rank}").write_text(json.dumps(globals()[name](*arguments)))


if __name__ == "__main__":
    from forked_ranks import run_ranks

    out, number, function = sys.argv[1:]
    torch.set_num_threads(1)
    codes = run_ranks(int(number), lambda: write(out, function))
    sys.exit(max(map(abs, codes)))
