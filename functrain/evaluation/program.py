"""A model's forward pass as a program of torch.export, which runs without the model's source.

The program holds no weights: it is a function of parameters and buffers by name, and of the inputs.
"""

import contextlib
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from functrain.data import batch_length
from functrain.evaluation.forward import forward
from functrain.evaluation.plain_trees import Description, places, put_together, taken_apart
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.trees import tree_map
from functrain.step.state import TrainState

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# What `torch.export.save` writes of a program without objects that need pickle, and without compiled code.
_MEMBERS = re.compile(
    r"[^/]+/(archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/\w+\.json"
    r"|data/weights/\w+_config\.json|data/constants/(\w+_config\.json|tensor_\d+)|(data/sample_inputs/\w+\.pt))"
)


class Untraceable(Exception):  # noqa: N818 - no error of the user's: the archive is made without a program
    """A model cannot be a program; the message says why."""


@dataclass(frozen=True)
class Program:
    """A traced forward pass.

    Attributes:
        content: in the format of `torch.export.save`.
        tensors: names of the parameters and buffers that it takes.
        inputs: their structure (`plain_trees`); of each tensor its dtype and shape, with None for the batch's size.
        outputs: likewise; nothing about a tensor.
        rows: examples in a batch; None: any number.
        dtype: of the parameters. Floating inputs are converted to it.
    """

    content: bytes
    tensors: tuple[str, ...]
    inputs: Description
    outputs: Description
    rows: int | None
    dtype: torch.dtype

    def to_json(self) -> dict[str, Any]:
        """All but the content."""
        return {
            "tensors": list(self.tensors),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "rows": self.rows,
            "dtype": _name(self.dtype),
        }

    @staticmethod
    def from_json(content: bytes, values: Mapping[str, Any]) -> "Program":
        """The program that `to_json` told of."""
        dtype = getattr(torch, values["dtype"])
        return Program(content, tuple(values["tensors"]), values["inputs"], values["outputs"], values["rows"], dtype)

    def checked(self, inputs: Any) -> list[Tensor]:
        """The tensors of inputs, in the parameters' precision.

        Raises:
            TypeError: the program takes others.
        """
        given = cast_floating(inputs, self.dtype)
        description, found = taken_apart(given if isinstance(given, (tuple, list, Mapping)) else (given,), _shape_of)
        expected, actual = dict(places(self.inputs)), dict(places(description))
        fits = expected.keys() == actual.keys() and all(_fits(expected[path], actual[path]) for path in expected)
        if not fits:
            raise TypeError(f"the program takes {_listed(expected)}; got {_listed(actual)}")
        order = list(actual)
        return [found[order.index(path)] for path in expected]


def trace(state: TrainState, inputs: Any, *, any_rows: bool) -> Program:
    """Trace a state's forward pass.

    Args:
        state: with the parameters and buffers to trace with, on the CPU; see `to_evaluate`.
        inputs: an example, of at least two rows: as a model is called with, a tuple or a mapping.
        any_rows: let the program take any number of examples, not only as many as the example has.

    Raises:
        Untraceable: it cannot be traced.
    """
    from torch.export import Dim, export  # takes seconds to import

    inputs = cast_floating(inputs, state.recipe.param_dtype)
    rows = batch_length(inputs)
    try:
        described, found = taken_apart(inputs, lambda leaf: _shape_of(leaf, rows if any_rows else None))
    except TypeError as error:
        raise Untraceable(f"of its inputs, {error}") from error
    outputs: list[Description] = []
    traced, tensors = _Traced(state, described, outputs.append), {**state.params, **state.buffers}
    rowed = {0: Dim("rows", min=1)} if any_rows else None
    dynamic = (dict.fromkeys(tensors), [rowed if _has_rows(leaf, rows) else None for leaf in found])
    try:
        with torch.no_grad(), _torch_silent():
            content = _saved(export(traced, (tensors, found), dynamic_shapes=dynamic, strict=False))
    except Exception as error:  # of the model, of torch's exporter
        raise Untraceable(in_a_line(error)) from error
    return Program(
        content, tuple(tensors), described, outputs[-1], None if any_rows else rows, state.recipe.param_dtype
    )


@contextlib.contextmanager
def _torch_silent() -> Iterator[None]:
    """Keep torch's warnings about its own tracing, and the graph that it prints where tracing fails, to ourselves."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


class _Traced(nn.Module):
    """The forward pass as torch.export takes it: a module without tensors, with plain arguments and results.

    `tell` is told what the outputs are made of: torch.export puts a module's attributes back.
    """

    def __init__(self, state: TrainState, inputs: Description, tell: Callable[[Description], None]) -> None:
        super().__init__()
        self._state, self._inputs, self._tell = state, inputs, tell

    def forward(self, tensors: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
        params = {name: tensors[name] for name in self._state.params}
        buffers = {name: tensors[name] for name in self._state.buffers}
        outputs = forward(self._state.replace(params=params, buffers=buffers), put_together(self._inputs, inputs))
        description, found = taken_apart(outputs)
        self._tell(description)
        return found


def _saved(exported: "ExportedProgram") -> bytes:
    """The program without the example, and without the places in source files, which name directories."""
    from torch.export import save

    exported.example_inputs = None
    for module in exported.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
                    node.meta.pop(key, None)
    buffer = io.BytesIO()
    save(exported, buffer)
    content = buffer.getvalue()
    refuse_code(content)
    return content


def refuse_code(content: bytes) -> None:
    """Refuse a program with pickled objects or compiled code in it, which `torch.export.load` would run.

    Raises:
        ValueError: likewise.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            match = _MEMBERS.fullmatch(info.filename)
            pickled = match is not None and match[4] is not None and info.file_size > 0
            if match is None or pickled:
                raise ValueError(f"the program holds {info.filename}, which may be code")
            if info.filename.endswith("_config.json"):
                records = json.loads(archive.read(info))["config"].values()
                if any(record["use_pickle"] for record in records):
                    raise ValueError("the program holds tensors that only pickle can read")


def _has_rows(leaf: Tensor, rows: int) -> bool:
    return leaf.ndim > 0 and leaf.shape[0] == rows


def _shape_of(leaf: Tensor, rows: int | None = None) -> dict[str, Any]:
    shape: list[int | None] = list(leaf.shape)
    if rows is not None and _has_rows(leaf, rows):
        shape[0] = None
    return {"dtype": _name(leaf.dtype), "shape": shape}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _fits(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    shapes = expected["shape"], actual["shape"]
    return (
        expected["dtype"] == actual["dtype"]
        and len(shapes[0]) == len(shapes[1])
        and all(size is None or size == given for size, given in zip(*shapes))
    )


def _listed(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{path}: {about['dtype']} [{', '.join('rows' if size is None else str(size) for size in about['shape'])}]"
        for path, about in tensors.items()
    )


def in_a_line(error: Exception) -> str:
    """An error's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def rows_of(inputs: Any, begin: int, end: int) -> Any:
    """Some examples of inputs."""
    rows = batch_length(inputs)
    return tree_map(lambda leaf: leaf[begin:end] if _has_rows(leaf, rows) else leaf, inputs)
