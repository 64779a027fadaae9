"""Attributions of a trained state's outputs to its inputs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.attribution import (
    Attribution,
    gradient_shap,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smooth_grad,
)
from functrain.attribution.rows import ROWS, check_rows
from functrain.data import Loader, batch_length, to_device
from functrain.evaluation.prediction import inputs_of
from functrain.foundation.containers import register_containers
from functrain.foundation.dtypes import PRECISIONS, cast_floating, is_floating
from functrain.foundation.keys import fold_in, root_key, torch_seed
from functrain.foundation.trees import leaves_with_paths, tree_map
from functrain.objectives.examples import takes_lists
from functrain.objectives.outputs import output_of
from functrain.objectives.supervised import call
from functrain.objectives.tasks import task_of
from functrain.objectives.unfit import raise_explained_of_inputs
from functrain.step.state import TrainState, require_state
from functrain.step.to_module import to_evaluate

# The arguments of `explain` that a method takes.
METHODS: Mapping[str, tuple[str, ...]] = {
    "integrated_gradients": ("baseline", "tolerance", "max_evaluations"),
    "saliency": (),
    "input_x_gradient": (),
    "smooth_grad": ("samples", "noise", "seed"),
    "gradient_shap": ("baseline", "samples", "seed"),
}
COMPUTED_IN = ("fp32", "fp64")


class Explanation(NamedTuple):
    """How much the inputs contribute to an output, on the CPU.

    Attributes:
        method: one of `METHODS`.
        inputs: as the model got them.
        values: a tree like the inputs, with attributions in the places of floating tensors and None in others.
        target: the class, label or output that is explained, int64 `[B]`.
        scores: that output, `[B]`; of an output for each pixel its mean.
        baseline_scores: of the baseline; None for methods without one.
        completeness: |sum of the attributions - (score - baseline's score)|, `[B]`; None without a baseline.
        error: the estimated error of integrated gradients, summed over the inputs, `[B]`.
        evaluations: gradients that were computed for each example, `[B]`.
    """

    method: str
    inputs: Any
    values: Any
    target: Tensor
    scores: Tensor
    baseline_scores: Tensor | None
    completeness: Tensor | None
    error: Tensor | None
    evaluations: Tensor

    def named(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Each floating input with its attributions, by name; a model's only input is "input"."""
        found = [(path, leaf) for path, leaf in leaves_with_paths(self.inputs) if is_floating(leaf)]
        values = [leaf for _, leaf in leaves_with_paths(self.values)]  # None is no leaf
        return {path or "input": (leaf, value) for (path, leaf), value in zip(found, values, strict=True)}


def explain(
    state: TrainState,
    batch: Any,
    *,
    method: str = "integrated_gradients",
    target: int | Tensor | None = None,
    baseline: Any = None,
    samples: int | None = None,
    noise: float | None = None,
    seed: int | None = None,
    tolerance: float | None = None,
    max_evaluations: int | None = None,
    rows: int = ROWS,
    precision: str | None = None,
    ema: bool = False,
) -> Explanation:
    """How much each input contributes to an output of the model, in evaluation mode.

    An example's explanation does not depend on the other examples, bit for bit; of "saliency" and "input_x_gradient",
    which compute many examples at once, to rounding.

    | method | what |
    |---|---|
    | "integrated_gradients" | the gradient, integrated from the baseline to the input |
    | "saliency" | the gradient's magnitude |
    | "input_x_gradient" | the input times the gradient |
    | "smooth_grad" | the mean gradient at inputs with noise |
    | "gradient_shap" | the mean of gradient times difference from reference inputs |

    Args:
        state: any state; not changed.
        batch: inputs, or a batch as a loader gives it: `(inputs, targets)`, or a mapping. Targets are not used.
        method: of the table.
        target: the class, label or output to explain, for all examples or `[B]` for each; None: the predicted class,
            or a model's only output.
        baseline: of integrated gradients: a number, or a tensor or tree that broadcasts to the inputs (default: 0). Of
            gradient SHAP: inputs of other examples, such as 100 of the training data; it needs some.
        samples: gradients of each example for SmoothGrad and gradient SHAP (default: 64).
        noise: of SmoothGrad: the standard deviation, as a part of the range of an example's values (default: 0.15).
        seed: of SmoothGrad and gradient SHAP (default: 0).
        tolerance: of integrated gradients: the largest error of an example (default: 1e-7 in fp64, else 1e-3).
        max_evaluations: gradients of an example for integrated gradients (default: 20,000).
        rows: inputs that the model gets at once.
        precision: "fp64" or "fp32" to compute in; None: as the parameters are kept.
        ema: use the averaged parameters.

    Returns:
        The explanation. `write_explanation` writes its files.

    Raises:
        ValueError: for a method, target or argument that does not fit; inputs without floating-point numbers.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1), precision="fp64")
        >>> found = ft.explain(state, torch.ones(4, 2))
        >>> found.values.shape, found.completeness.max() < 1e-6
        (torch.Size([4, 2]), tensor(True))
    """
    require_state("explain", state)
    if isinstance(batch, (Loader, torch.utils.data.DataLoader)):
        raise TypeError(
            f"explain takes the inputs of one batch, such as next(iter(loader)); got a {type(batch).__name__}"
        )
    given = {"baseline": baseline, "samples": samples, "noise": noise, "seed": seed}
    given |= {"tolerance": tolerance, "max_evaluations": max_evaluations}
    options = _options(method, {name: value for name, value in given.items() if value is not None})
    check_rows(rows)
    model = Explained(state, ema=ema, precision=precision)
    inputs = model.inputs(batch)
    classes = model.classes(inputs, target, rows)
    found = _attributed(method, model, {"inputs": inputs, "classes": classes}, options, rows)
    about = tree_map(Tensor.cpu, found._replace(values=found.values["inputs"])._asdict())
    return Explanation(method=method, inputs=tree_map(_to_cpu, inputs), target=classes.cpu(), **about)


class Explained:
    """A model whose outputs are explained.

    Args:
        state: what was trained.
        ema: use the averaged parameters.
        precision: to compute in.

    Raises:
        ValueError: for another precision, or no average.
    """

    def __init__(self, state: TrainState, *, ema: bool, precision: str | None) -> None:
        if precision is not None and precision not in COMPUTED_IN:
            raise ValueError(f"precision must be one of {', '.join(COMPUTED_IN)}, or None; got {precision!r}")
        self.recipe, self.device = state.recipe, state.device
        self.dtype = self.recipe.param_dtype if precision is None else PRECISIONS[precision][0]
        chosen = to_evaluate(state, ema=ema)
        self._params = cast_floating(chosen.params, self.dtype)
        self._buffers = cast_floating(chosen.buffers, self.dtype)
        self._key = fold_in(state.key, "predict")
        self._task = task_of(self.recipe.objective)

    def inputs(self, batch: Any) -> Any:
        """The inputs of a batch, on the device and in the dtype that is computed in."""
        inputs = inputs_of(to_device(batch, self.device))
        if takes_lists(self.recipe.objective) and isinstance(inputs, (tuple, list)):
            raise ValueError("explain takes tensors; this model takes lists, such as images of several sizes")
        register_containers(inputs)
        return cast_floating(inputs, self.dtype)

    def run(self, function: Callable[[Any, Any], Any], inputs: Any) -> Any:
        """`function(model, inputs)`."""
        with torch_seed(self._key, self.device), torch.autocast(self.device.type, enabled=False):
            found, _ = self.recipe.network.apply(function, self._params, self._buffers, inputs, training=False)
        return found

    def outputs(self, inputs: Any) -> Tensor:
        """The output that the objective compares, `[R]`, or `[R, C, ...]` with a place for each class."""
        outputs = self.run(call, inputs)
        scores = output_of(outputs, getattr(self.recipe.objective, "output", None), "logits")
        return scores.movedim(-1, 1) if self._task == "language_modelling" else scores

    def __call__(self, given: Mapping[str, Any]) -> Tensor:
        """The score of each row."""
        scores = self.outputs(given["inputs"])
        if scores.ndim == 1:
            return scores
        chosen = scores.take_along_dim(given["classes"].view(-1, *[1] * (scores.ndim - 1)), 1)
        return chosen.flatten(1).mean(1)

    @torch.no_grad()
    def classes(self, inputs: Any, target: int | Tensor | None, rows: int) -> Tensor:
        """What is explained of each example, int64 `[B]`.

        Raises:
            ValueError: there is no such class, or it must be given.
        """
        length = batch_length(inputs)
        if not length:
            raise ValueError("there is no example to explain: the inputs have no rows")
        found = []
        for start in range(0, length, rows):
            part = tree_map(lambda leaf, at=start: leaf[at : at + rows] if isinstance(leaf, Tensor) else leaf, inputs)
            try:
                found.append(self.outputs(part))
            except Exception as error:
                raise_explained_of_inputs(error, inputs, self.recipe.objective)
        return self._chosen(torch.cat(found), target)

    def _chosen(self, scores: Tensor, target: int | Tensor | None) -> Tensor:
        count = 1 if scores.ndim == 1 else scores.shape[1]
        if target is None:
            if count > 1 and (scores.ndim > 2 or self._task not in (None, "classification", "binary_classification")):
                what = "a class for each pixel" if scores.ndim > 2 else f"{count} values"
                raise ValueError(f"the model gives {what}; say which one to explain: target=0 to {count - 1}")
            return scores.new_zeros(len(scores), dtype=torch.int64) if count == 1 else scores.argmax(1)
        wanted = f"target must be the number of a class, or one for each of the {len(scores)} examples; got {target!r}"
        if isinstance(target, (str, bool)):
            raise ValueError(wanted)
        classes = torch.as_tensor(target, device=scores.device)
        if classes.is_floating_point() or classes.shape not in ((), (len(scores),)):
            raise ValueError(wanted)
        if bool(((classes < 0) | (classes >= count)).any()):
            raise ValueError(f"the model has the outputs 0 to {count - 1}; target={classes.tolist()} is none of them")
        return classes.long().expand(len(scores)).contiguous()


def _options(method: str, given: dict[str, Any]) -> dict[str, Any]:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if foreign := [name for name in given if name not in METHODS[method]]:
        users = [each for each, names in METHODS.items() if foreign[0] in names]
        raise ValueError(f"{method} takes no {foreign[0]}; it is an argument of {' and '.join(users)}")
    if method == "gradient_shap" and isinstance(given.get("baseline"), (int, float, type(None))):
        raise ValueError("gradient_shap needs baseline=: inputs of other examples, such as 100 of the training data")
    return given


def _attributed(method: str, model: Explained, given: Any, options: dict[str, Any], rows: int) -> Attribution:
    baseline = options.pop("baseline", None)
    if baseline is not None and not isinstance(baseline, (int, float)):
        baseline = model.inputs((baseline, None))
        baseline = baseline if isinstance(baseline, Tensor) else {**given, "inputs": baseline}
    key = root_key(options.pop("seed", 0))
    if method == "integrated_gradients":
        return integrated_gradients(model, given, baseline, rows=rows, **options)
    if method == "smooth_grad":
        return smooth_grad(model, given, key, rows=rows, **options)
    if method == "gradient_shap":
        return gradient_shap(model, given, baseline, key, rows=rows, **options)
    return (saliency if method == "saliency" else input_x_gradient)(model, given, rows=rows)


def _to_cpu(leaf: Any) -> Any:
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf
