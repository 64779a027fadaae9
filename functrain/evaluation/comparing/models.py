"""Several models on the examples of a loader, compared."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from functrain.evaluation.archived import ArchivedModel
from functrain.evaluation.comparing.comparison import Comparison, compare_reports
from functrain.evaluation.functions import Function, in_evaluation_mode
from functrain.evaluation.kept_rows import KeptRows
from functrain.evaluation.prediction import Predictor, answers_of_all
from functrain.evaluation.reports import TaskCollector
from functrain.foundation.errors import DataError
from functrain.loop.result import FitResult
from functrain.objectives.tasks import TASKS, ignored_by, task_of
from functrain.step.state import TrainState

Model = TrainState | FitResult | ArchivedModel | Callable[..., Any]


class _Task(NamedTuple):
    """What a model without an objective is compared for; the attributes of an objective."""

    task: str
    ignore_index: int
    output: str | int | None = None


def compare_models(
    models: Mapping[str, Model],
    loader: Any,
    *,
    task: str | None = None,
    metrics: Sequence[str] | None = None,
    ema: bool = False,
    compile: bool = False,
) -> Comparison:
    """Metrics of several models on the same examples, with intervals, figures, and paired tests of each two of them.

    Each batch is read once and given to all models, so that the examples are paired. The tests are McNemar's exact one
    of accuracies, DeLong's of areas under ROC curves of yes or no, and a paired bootstrap of every metric. Holm's
    correction is for all pairs of models of one metric and test.

    Args:
        models: name -> a state, the result of `fit`, a model out of an archive, or a function of the inputs, such as an
            `nn.Module`. A function returns what a loss compares with the targets: of classes the logits.
        loader: as for `fit`.
        task: "classification", "binary_classification", "regression", "segmentation" or "language_modelling"; None: as
            the objective of the first state says.
        metrics: names of the numbers to compare; None: all of the report.
        ema: compare the averaged parameters of the states.
        compile: compile the forward passes of the states first, which pays for long loaders only.

    Returns:
        The comparison; `print` shows it, and `write_comparison` writes it.

    Raises:
        ValueError: for fewer than two models, unlike tasks, no task, or a metric that there is not.
        TypeError: for something else than a model.
        DataError: if there is no example, or outputs and targets do not fit the task.

    Example:
        >>> import torch, functrain as ft
        >>> batches = [(torch.randn(40, 2), torch.arange(40) % 3)]
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
        >>> found = compare_models({"linear": state, "constant": lambda x: torch.zeros(len(x), 3)}, batches)
        >>> found.examples, [test.test for test in found.tests if test.metric == "accuracy"]
        (40, ['McNemar', 'bootstrap'])
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        raise ValueError(f"compare_models needs a mapping of two or more models by their names; got {_given(models)}")
    chosen = {str(name): _predictor(str(name), model) for name, model in models.items()}
    collectors = _collectors(chosen, task)
    functions = [one.call for one in chosen.values() if isinstance(one, Function)]
    with in_evaluation_mode(functions):
        for batch in answers_of_all(list(chosen.values()), loader, ema=ema, compile=compile, with_targets=True):
            for (name, collector), (outputs, targets) in zip(collectors.items(), batch, strict=True):
                with _named(name):
                    collector.add(outputs, targets)
    reports = {}
    for name, collector in collectors.items():
        with _named(name):
            reports[name] = collector.chosen.report()
    return compare_reports(reports, metrics)


@contextlib.contextmanager
def _named(model: str) -> Iterator[None]:
    """Say which model's outputs do not fit."""
    try:
        yield
    except (DataError, TypeError) as error:
        raise type(error)(f"{model}: {error}") from error


def _given(models: Any) -> str:
    return f"{len(models)}" if isinstance(models, Mapping) else f"a {type(models).__name__}"


def _predictor(name: str, model: Any) -> Predictor:
    if isinstance(model, FitResult):
        return model.state
    if isinstance(model, (TrainState, ArchivedModel)):
        return model
    if callable(model):
        return Function(model, name)
    raise TypeError(
        f"model {name!r} is a {type(model).__name__}; a model is a state, the result of fit, a model of load_archive, "
        "or a function of the inputs. Runs by their directories are compared by 'functrain compare RUN RUN --evaluate'"
    )


def _collectors(models: Mapping[str, Predictor], task: str | None) -> dict[str, TaskCollector]:
    """What makes the report of each model: as its own objective says, or as the first of the others does."""
    objectives = {name: one.recipe.objective for name, one in models.items() if isinstance(one, TrainState)}
    own = {name: task_of(objective) for name, objective in objectives.items()}
    own |= {name: one.task for name, one in models.items() if isinstance(one, ArchivedModel)}
    named = {name: each for name, each in own.items() if each is not None}
    chosen = next(iter(named.values()), None) if task is None else task
    if chosen not in TASKS:
        given = "none of the models names its task" if chosen is None else f"got {chosen!r}"
        raise ValueError(f"task must be one of {', '.join(TASKS)}; {given}")
    if task is not None and (other := next((name for name, each in named.items() if each != task), None)):
        raise ValueError(f"task={task!r}, but {other} was trained for {named[other]}; leave task out")
    ignored = ignored_by(next(iter(objectives.values()), None))
    return {name: TaskCollector(_objective(one, chosen, ignored), KeptRows()) for name, one in models.items()}


def _objective(model: Predictor, task: str, ignored: int) -> Any:
    if isinstance(model, TrainState) and task_of(model.recipe.objective) is not None:
        return model.recipe.objective
    if isinstance(model, ArchivedModel):
        return _Task(model.task or task, ignored, model.output)
    return _Task(task, ignored)
