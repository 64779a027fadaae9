"""A model out of an archive: it predicts without the source of the model."""

import io
import os
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint import Archive, open_archive
from functrain.data import batch_length, pad_batch
from functrain.evaluation.plain_trees import put_together
from functrain.evaluation.program import Program, refuse_code, rows_of
from functrain.foundation.errors import CheckpointError
from functrain.foundation.trees import tree_map
from functrain.step.execution import Core

PROGRAM, OTHER_TENSORS = "program.pt2", "program.safetensors"


class ArchivedModel:
    """A trained model in evaluation mode, on the CPU. Call it as the model is called, or give it to `predict`.

    Attributes:
        about: what the archive says about itself: "step", "epoch", "parameters", "program" and others.
        tensors: the parameters and buffers by name.
        key: seeds what the model draws, if it draws anything.
        task: what it was trained to do (`functrain.objectives.tasks`); None: not known.
        output: the name or place of the output that its loss compares; None: not named.
    """

    def __init__(self, program: Program, tensors: Mapping[str, Tensor], key: int, about: Mapping[str, Any]) -> None:
        self.program, self.key, self.about = program, key, about
        self.task, self.output = about.get("task"), about.get("output")
        self.tensors = {name: tensors[name] for name in program.tensors}

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The outputs for a batch, as a tensor or in dictionaries, lists and tuples."""
        if inputs and named:
            raise TypeError("give an archived model its inputs by place or by name, not both")
        return self.outputs(named or inputs)

    def outputs(self, inputs: Any) -> Any:
        """The outputs for a tensor, a tuple of inputs, or a mapping of named ones."""
        if isinstance(inputs, Tensor):
            inputs = (inputs,)
        size = self.program.rows
        if size is None:
            return self._run(inputs)
        parts = [
            self._padded(rows_of(inputs, begin, begin + size), size) for begin in range(0, batch_length(inputs), size)
        ]
        return parts[0] if len(parts) == 1 else tree_map(lambda *rows: torch.cat(rows), *parts)

    def _padded(self, inputs: Any, size: int) -> Any:
        """The outputs for at most as many examples as the program takes, which it is given repeats of."""
        rows = batch_length(inputs)
        if rows == size:
            return self._run(inputs)
        outputs = self._run(pad_batch((inputs, None), size)[0])
        return tree_map(lambda leaf: leaf[:rows] if leaf.ndim and len(leaf) == size else leaf, outputs)

    def _run(self, inputs: Any) -> Any:
        with torch.no_grad():
            found = self._module(self.tensors, self.program.checked(inputs))
        return put_together(self.program.outputs, found)

    @cached_property
    def _module(self) -> Callable[[Mapping[str, Tensor], list[Tensor]], list[Tensor]]:
        from torch.export import load  # takes seconds to import

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about its own format
            return load(io.BytesIO(self.program.content)).module()

    def __repr__(self) -> str:
        """Which updates the model has had."""
        return f"ArchivedModel({self.about.get('name')!r}, step {self.about.get('step')})"


ARCHIVED = Core(ArchivedModel.outputs, "archived model", carries_state=False)


def load_archive(path: str | os.PathLike[str], *, trust: bool = False) -> ArchivedModel:
    """The model in an archive of `functrain export RUN OUT.zip`, without the source that it was trained with.

    To open the model's traced program, torch evaluates expressions that are in it. So a program that somebody else
    made could run code. It is opened only if you made the archive, or if you say that you trust it. Programs that
    need pickle, and compiled code, are refused in any case. The weights alone are data:
    `functrain.checkpoint.load_state_dict(path)` reads them from anybody's archive.

    Args:
        path: the file.
        trust: open the program of an archive that somebody else made, or you on another machine.

    Returns:
        The model. `predict(model, loader)` gives its outputs for all examples of a loader.

    Raises:
        CheckpointError: the file is no archive, is damaged, was made by somebody else, or has no traced program.
    """
    path = Path(path)
    with open_archive(path) as archive:
        return _model(archive, trust)


def _model(archive: Archive, trust: bool) -> ArchivedModel:
    path, about = archive.path, archive.manifest
    if PROGRAM not in archive:
        raise CheckpointError(
            f"{path} holds no traced program ({about['program'].get('missing')}). Its weights can be loaded into the "
            f"model: functrain.checkpoint.load_state_dict({str(path)!r})"
        )
    if not (archive.is_own or trust):
        raise CheckpointError(
            f"{path} carries no signature of yours, so somebody else may have made it, and to open its program could "
            "run their code. If you trust where it comes from: load_archive(..., trust=True), or --trust on the "
            "command line"
        )
    try:
        program = Program.from_json(archive.read(PROGRAM), about["program"])
        refuse_code(program.content)
        tensors = archive.tensors() | (archive.tensors(OTHER_TENSORS) if OTHER_TENSORS in archive else {})
        return ArchivedModel(program, tensors, about["key"], about)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: its program is not one of functrain's ({error})") from error
