"""Real files of Lightning and Accelerate.   Usage: python write_foreign_files.py FOLDER

Both train the same network in float64 on the same batches, save after `SAVED_AFTER` updates, train on, and save
again. Then Lightning loads FOLDER/ours.pt, in place of its own weights, and writes what it has read to
FOLDER/read_by_lightning.pt. A process of its own, as importing the two takes long and warns. Imports torch; the
others when a file is written.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

SAVED_AFTER, UPDATES = 3, 6
OPTIMIZERS = {
    "adam": (torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-2, "betas": (0.8, 0.9)}),
    "sgd": (torch.optim.SGD, {"lr": 1e-1, "momentum": 0.9, "nesterov": True}),
}


def network(seed=0):
    """A tied pair, BatchNorm, a frozen layer.

    No bias in front of BatchNorm: its gradient is nothing but rounding, which Adam would divide by itself.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first, last = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        last.weight = first.weight
        return nn.Sequential(first, nn.BatchNorm1d(6), nn.Linear(6, 6).requires_grad_(False), last).double()


def batches():
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(UPDATES, 12, 6, generator=generator, dtype=torch.float64)
    return list(zip(inputs, torch.randint(0, 6, (UPDATES, 12), generator=generator)))


def make_optimizer(name, module):
    kind, arguments = OPTIMIZERS[name]
    return kind([p for p in module.parameters() if p.requires_grad], **arguments)


def lightning_module():
    """A class that wraps the network, as is usual with Lightning."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self, optimizer="adam", width=6):
            super().__init__()
            self.save_hyperparameters()
            self.model = network()

        def training_step(self, batch, index):
            return F.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            optimizer = make_optimizer(self.hparams.optimizer, self.model)
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)]

    return Module


def write_lightning(name, folder):
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=SAVED_AFTER, save_top_k=-1)
    trainer = lightning.Trainer(
        max_steps=UPDATES, accelerator="cpu", devices=1, logger=False, callbacks=[saving], default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(lightning_module()(name), torch.utils.data.DataLoader(batches(), batch_size=None))


def write_accelerate(name, folder):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    module = network()
    model, optimizer = accelerator.prepare(module, make_optimizer(name, module))
    for number, (inputs, targets) in enumerate(batches(), 1):
        optimizer.zero_grad()
        accelerator.backward(F.cross_entropy(model(inputs), targets))
        optimizer.step()
        if number % SAVED_AFTER == 0:
            accelerator.save_state(folder / f"step={number}", safe_serialization=True)
            accelerator.save_state(folder / f"step={number}-pickled", safe_serialization=False)


def read_ours(folder):
    """As a user of Lightning would: the weights in a file of theirs replaced by ours, and loaded strictly."""
    content = torch.load(folder / "lightning" / "adam" / f"step={SAVED_AFTER}.ckpt", weights_only=True)
    ours = torch.load(folder / "ours.pt", weights_only=True)["model_state_dict"]
    torch.save({**content, "state_dict": {f"model.{k}": v for k, v in ours.items()}}, folder / "ours.ckpt")
    loaded = lightning_module().load_from_checkpoint(folder / "ours.ckpt", strict=True, weights_only=True)
    torch.save(loaded.model.state_dict(), folder / "read_by_lightning.pt")


def main(folder):
    torch.set_num_threads(1)
    for name in OPTIMIZERS:
        write_lightning(name, folder / "lightning" / name)
        write_accelerate(name, folder / "accelerate" / name)
    read_ours(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
