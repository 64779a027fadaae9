"""A configuration with three stages, and what the run of a stage leaves behind."""

import torch

from functrain.checkpoint.reader import read_arrays

REST = """\
model: {name: "tiny_project:net", width: 8}
data: {name: "tiny_project:points", batch_size: 8}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-2, weight_decay: 0.1}
training: {epochs: 2, clip_norm: 1.0}
compile: false
"""
STAGES = """\
stages:
  one:
    training: {epochs: 3, clip_norm: null}
  two:
    init_from: {stage: one, which: best}
    freeze: ["0.*"]
    optimizer: {lr: 1e-3}
  three:
    model: {width: 4}
    seed: 7
    init_from: {stage: two, new: ["*"]}
"""


def left_by(run):
    """All that a stage leaves behind that must not depend on interruptions."""
    return {
        "last": bits_of(run / "checkpoints" / "last"),
        "best": bits_of(run / "checkpoints" / "best") if (run / "checkpoints" / "best").exists() else None,
        "log": (run / "metrics.jsonl").read_text(),
        "ancestry": (run / "ancestry.json").read_text() if (run / "ancestry.json").exists() else None,
    }


def bits_of(checkpoint):
    """The bits of its leaves."""
    return {
        (group, path): leaf.numpy().tobytes() if isinstance(leaf, torch.Tensor) else leaf
        for group, leaves in read_arrays(checkpoint).items()
        for path, leaf in leaves.items()
    }
