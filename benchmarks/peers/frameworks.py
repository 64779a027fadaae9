"""Lightning, Accelerate, HF Trainer and Ignite, each at its leanest: no logs, no checkpoints, no progress display."""

import tempfile
from typing import Any

from torch import Tensor, nn

from benchmarks.peers.by_hand import adamw, loader, loss_fn
from benchmarks.peers.clock import Clock
from benchmarks.peers.networks import Network


def lightning(network: Network, clock: Clock, rounds: int, batches: Any = None) -> None:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_of = network.model(), loss_fn(network)

        def training_step(self, batch: Any, _index: int) -> Tensor:
            return self.loss_of(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return adamw(self)

        def on_train_epoch_start(self) -> None:
            clock.begin()

        def on_train_epoch_end(self) -> None:
            clock.end()

    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=rounds, barebones=True)
    trainer.fit(Module(), batches or loader(network))


def accelerate(network: Network, clock: Clock, rounds: int, batches: Any = None) -> None:
    from accelerate import Accelerator

    model, loss_of = network.model().train(), loss_fn(network)
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, adamw(model))
    batches = batches or loader(network)  # prepared, it would be given another sampler, of single rows
    for _ in range(rounds):
        clock.begin()
        for inputs, targets in batches:
            loss = loss_of(model(inputs), targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        clock.end()


def hf_trainer(network: Network, clock: Clock, rounds: int) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.loss_of = network.model(), loss_fn(network)

        def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": self.loss_of(self.model(inputs), labels)}

    class Timed(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            clock.begin()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            clock.end()

    class InMemory(Trainer):
        def get_train_dataloader(self) -> Any:
            return loader(network, ("inputs", "labels"))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=rounds,
            per_device_train_batch_size=network.batch,
            max_grad_norm=0.0,  # its default would clip, which nobody else does
            lr_scheduler_type="constant",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            use_cpu=True,
        )
        model = WithLoss()
        dataset: Any = loader(network, ("inputs", "labels")).dataset
        InMemory(model, arguments, train_dataset=dataset, callbacks=[Timed()], optimizers=(adamw(model), None)).train()


def ignite(network: Network, clock: Clock, rounds: int, batches: Any = None) -> None:
    from ignite.engine import Engine, Events

    model, loss_of = network.model().train(), loss_fn(network)
    optimizer = adamw(model)

    def update(_engine: Engine, batch: Any) -> None:
        loss = loss_of(model(batch[0]), batch[1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    engine = Engine(update)
    engine.add_event_handler(Events.EPOCH_STARTED, clock.begin)
    engine.add_event_handler(Events.EPOCH_COMPLETED, clock.end)
    engine.run(batches or loader(network), max_epochs=rounds)
