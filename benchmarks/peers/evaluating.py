"""Evaluations and loaders of one's own, in each way. A module of another trainer is imported where it is used.

An evaluation is a pass over the network's batches: mean loss and accuracy, except that HF Trainer computes the loss
alone. JAX has no evaluation of the digits' network here, whose function is that of training.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from benchmarks.peers.clock import Clock
from benchmarks.peers.networks import NETWORKS, Network

EVALUATED = ("tiny", "digits")  # networks
LOADED = "tiny"


def by_hand(network: Network, clock: Clock, rounds: int) -> None:
    import torch
    import torch.nn.functional as F

    from benchmarks.peers.by_hand import tensors

    inputs, targets = tensors(network)
    batches = list(zip(inputs.split(network.batch), targets.split(network.batch)))
    model = network.model().eval()
    for _ in range(rounds):
        clock.begin()
        loss, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        with torch.inference_mode():
            for x, y in batches:
                logits = model(x)
                loss += F.cross_entropy(logits, y, reduction="sum")
                right += (logits.argmax(1) == y).sum()
        loss.item(), right.item()
        clock.end()


def lightning(network: Network, clock: Clock, rounds: int) -> None:
    import lightning
    import torch
    import torch.nn.functional as F

    from benchmarks.peers.by_hand import loader

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network.model()

        def on_validation_epoch_start(self) -> None:
            clock.begin()
            self.loss, self.right = torch.zeros(()), torch.zeros((), dtype=torch.int64)

        def validation_step(self, batch: Any, _index: int) -> None:
            logits = self.model(batch[0])
            self.loss += F.cross_entropy(logits, batch[1], reduction="sum")
            self.right += (logits.argmax(1) == batch[1]).sum()

        def on_validation_epoch_end(self) -> None:
            self.loss.item(), self.right.item()
            clock.end()

    trainer, module = lightning.Trainer(accelerator="cpu", devices=1, barebones=True), Module()
    for _ in range(rounds):
        trainer.validate(module, loader(network), verbose=False)


def accelerate(network: Network, clock: Clock, rounds: int) -> None:
    import torch
    import torch.nn.functional as F
    from accelerate import Accelerator

    from benchmarks.peers.by_hand import loader

    accelerator = Accelerator(cpu=True)
    model, batches = accelerator.prepare(network.model()).eval(), loader(network)
    for _ in range(rounds):
        clock.begin()
        loss, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        with torch.inference_mode():
            for x, y in batches:
                logits, y = accelerator.gather_for_metrics((model(x), y))
                loss += F.cross_entropy(logits, y, reduction="sum")
                right += (logits.argmax(1) == y).sum()
        loss.item(), right.item()
        clock.end()


def ignite(network: Network, clock: Clock, rounds: int) -> None:
    import torch.nn.functional as F
    from ignite.engine import create_supervised_evaluator
    from ignite.metrics import Accuracy, Loss

    from benchmarks.peers.by_hand import loader

    metrics = {"loss": Loss(F.cross_entropy), "accuracy": Accuracy()}
    evaluator, batches = create_supervised_evaluator(network.model(), metrics=metrics), loader(network)
    for _ in range(rounds):
        clock.begin()
        evaluator.run(batches)
        clock.end()


def hf_trainer(network: Network, clock: Clock, rounds: int) -> None:
    import tempfile

    import torch.nn.functional as F
    from torch import Tensor, nn
    from transformers import Trainer, TrainingArguments

    from benchmarks.peers.by_hand import loader

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = network.model()

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.model(inputs)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    class InMemory(Trainer):
        def get_eval_dataloader(self, *_: Any) -> Any:
            return loader(network, ("inputs", "labels"))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_eval_batch_size=network.batch,
            prediction_loss_only=True,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = InMemory(WithLoss(), arguments, eval_dataset=loader(network).dataset)
        for _ in range(rounds):
            clock.begin()
            trainer.evaluate()
            clock.end()


def jax(name: str, network: Network, clock: Clock, rounds: int) -> None:
    import jax
    import jax.numpy as jnp
    import optax

    from benchmarks.peers.jax_loop import MODELS

    if name != "tiny":
        raise ValueError(f"JAX has an evaluation of the tiny network only; got {name!r}")
    params, buffers, apply = MODELS[name]()

    @jax.jit
    def step(params: Any, sums: Any, x: Any, y: Any) -> Any:
        logits, _ = apply(params, buffers, x, None)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
        return sums[0] + loss, sums[1] + (logits.argmax(1) == y).sum()

    inputs, targets = (jnp.asarray(array) for array in network.arrays())
    batches = list(zip(jnp.split(inputs, network.steps), jnp.split(targets, network.steps)))
    for _ in range(rounds):
        clock.begin()
        sums = jnp.zeros(()), jnp.zeros((), jnp.int32)
        for x, y in batches:
            sums = step(params, sums, x, y)
        float(sums[0]), int(sums[1])
        clock.end()


def functrain(network: Network, clock: Clock, rounds: int, *, compiled: bool) -> None:
    import functrain as ft
    from benchmarks.peers.by_hand import tensors

    state = ft.init_state(network.model(), ft.classification(), ft.optim.sgd(0.1))
    loader = ft.data.Loader(ft.data.Arrays(*tensors(network)), network.batch, shuffle=False)
    for _ in range(rounds):
        clock.begin()
        ft.evaluate(state, loader, compile=compiled)
        clock.end()


def _rows(network: Network) -> Any:
    """One's own map-style data set of single examples."""
    from torch.utils.data import Dataset

    from benchmarks.peers.by_hand import tensors

    inputs, targets = tensors(network)

    class Rows(Dataset[Any]):
        def __len__(self) -> int:
            return len(inputs)

        def __getitem__(self, index: int) -> Any:
            return inputs[index], targets[index]

    return Rows()


def _iterable(network: Network) -> Any:
    """One's own iterable of batches."""
    from benchmarks.peers.by_hand import tensors

    inputs, targets = tensors(network)
    batches = list(zip(inputs.split(network.batch), targets.split(network.batch)))

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            return (batch for batch in batches)

    return Batches()


def _loader(kind: str, network: Network) -> Any:
    from torch.utils.data import DataLoader

    if kind == "an iterable":
        return _iterable(network)
    workers = 2 if kind.endswith("workers") else 0
    return DataLoader(_rows(network), network.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def train_by_hand(kind: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers.by_hand import adamw, loss_fn

    model, loss_of, batches = network.model().train(), loss_fn(network), _loader(kind, network)
    optimizer = adamw(model)
    for _ in range(rounds):
        clock.begin()
        for inputs, targets in batches:
            loss = loss_of(model(inputs), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        clock.end()


def train_lightning(kind: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import frameworks

    frameworks.lightning(network, clock, rounds, _loader(kind, network))


def train_ignite(kind: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import frameworks

    frameworks.ignite(network, clock, rounds, _loader(kind, network))


def train_accelerate(kind: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import frameworks

    frameworks.accelerate(network, clock, rounds, _loader(kind, network))


def train_functrain(kind: str, network: Network, clock: Clock, rounds: int) -> None:
    from benchmarks.peers import ours

    ours.fit(network, clock, rounds, True, _loader(kind, network))


KINDS = ("one's own data set", "one's own data set, 2 workers", "an iterable")
TRAINERS: dict[str, tuple[str, Callable[[str, Network, Clock, int], None]]] = {
    "torch by hand, eager": ("torch", train_by_hand),
    "Ignite": ("ignite", train_ignite),
    "Accelerate": ("accelerate", train_accelerate),
    "Lightning": ("lightning", train_lightning),
    "functrain.fit": ("functrain", train_functrain),
}


def section(title: str, text: str, found: Mapping[str, Mapping[str, Iterable[float]]]) -> Iterator[str]:
    """The lines of a report: microseconds a batch by heading and way, of all rounds."""
    yield from ("", f"## {title}", "", text)
    for heading, ways in found.items():
        name = NETWORKS[heading].title if heading in NETWORKS else heading
        yield from ("", f"### {name}", "", "| way | us a batch |", "|---|---|")
        for way, times in sorted(ways.items(), key=lambda item: min(item[1])):
            yield f"| {way} | {min(times) * 1e6:.0f} |"
