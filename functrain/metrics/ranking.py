"""Metrics of an order by scores: AUROC, average precision, recall at a fixed false positive rate.

They are exact. All scores are kept, outside the graph, and sorted once, a range of scores at a time: a float32 score,
its label and its weight are one number of 64 bits. Sums run over the sorted scores, so a value does not depend on the
order in which the examples came.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from functrain.foundation.torch_internals import is_eager
from functrain.metrics.accumulating import Accumulator, Metric, Statistic, Values
from functrain.metrics.averaging import averaged
from functrain.metrics.counts import task_and_sums
from functrain.metrics.examples import Labels, Task

CHUNK = 1 << 17  # scores that are summed at a time
RANGE = 1 << 20  # scores that are sorted at a time
SIGN = np.uint32(1 << 31)


@dataclass(frozen=True)
class Scores(Statistic):
    """All scores, targets and weights.

    Attributes:
        labels: how predictions are read.
    """

    labels: Labels

    @property
    def adds(self) -> bool:
        """Scores are put together."""
        return False

    @property
    def grows(self) -> bool:
        """By each example."""
        return True

    def of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        """Of a batch: scores `[N, C]`, targets and weights as in `Examples`; class numbers take 32 bits.

        Many examples are taken a part at a time, which needs less memory.
        """
        if len(predictions) <= CHUNK or not is_eager():
            return self._of(predictions, targets, weight)
        whole: Accumulator = {}
        for start in range(0, len(predictions), CHUNK):
            here = slice(start, start + CHUNK)
            part = self._of(predictions[here], targets[here], None if weight is None else weight[here])
            rows = len(part["weight"]) // len(predictions[here])  # several, of a mask
            for key, leaf in part.items():
                if key == "refused":
                    whole[key] = whole[key] + leaf if start else leaf
                    continue
                if not start:
                    whole[key] = leaf.new_empty(len(predictions) * rows, *leaf.shape[1:])
                whole[key][start * rows : start * rows + len(leaf)] = leaf
        return whole

    def _of(self, predictions: Any, targets: Any, weight: Tensor | None) -> Accumulator:
        found = self.labels.read(predictions, targets, weight)
        if not found.scores.is_floating_point():
            raise ValueError("it ranks examples by their scores; the predictions are class numbers")
        held = found.targets if found.task != "multiclass" else found.targets.to(torch.int32)
        if weight is None:
            weights = found.weight != 0  # a byte each
        else:
            weights = found.weight if found.scores.dtype is torch.float64 else found.weight.to(torch.float32)
        return {found.task: found.scores, "targets": held, "weight": weights, "refused": found.refused}

    def compact(self, accumulator: Accumulator) -> Accumulator:
        """Weights of 0 and 1 take a byte each."""
        weight = accumulator["weight"]
        whole = weight.dtype != torch.bool and bool(((weight == 0) | (weight == 1)).all())
        return accumulator | {"weight": weight != 0} if whole else accumulator

    def merge(self, left: Accumulator, right: Accumulator) -> Accumulator:
        """One after another."""
        refused = left["refused"] + right["refused"]
        return {key: torch.cat([left[key], right[key]]) for key in left if key != "refused"} | {"refused": refused}

    def empty(self, like: Accumulator) -> Accumulator:
        """No row."""
        rows = {key: leaf[:0] for key, leaf in like.items() if key != "refused"}
        return rows | {"refused": torch.zeros_like(like["refused"])}


def auroc(
    average: Literal["macro", "weighted", "none"] = "macro",
    *,
    task: Task | None = None,
    from_logits: bool = True,
) -> Metric:
    """The area under the ROC curve: how often a positive example scores above a negative one, ties half.

    Exact. It is measured in evaluations only, since it needs all scores. NaN where all examples are of one class.

    Args:
        average: of each class against the rest (of each label, of several): their mean ("macro"), weighed by the
            positive examples ("weighted"), or one for each and their mean ("none"). A binary task has one.
        task: "binary", "multilabel" or "multiclass"; default: as the shapes say.
        from_logits: the predictions are logits, of which a multiclass task takes the softmax; else probabilities.

    Example:
        >>> auroc()(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.7500, dtype=torch.float64)

    References:
        Hand and Till 2001 describe other means over classes; this one is scikit-learn's `multi_class="ovr"`.
    """
    return _ranking("auroc", _area, average, Labels(task, from_logits))


def auprc(
    average: Literal["macro", "weighted", "none"] = "macro",
    *,
    task: Task | None = None,
    from_logits: bool = True,
) -> Metric:
    """Average precision, the area under the precision-recall curve: the sum of precision times the step in recall.

    Arguments as of `auroc`. Without a positive example it is 0, as scikit-learn has it.

    Example:
        >>> auprc()(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8333, dtype=torch.float64)
    """
    return _ranking("auprc", _average_precision, average, Labels(task, from_logits))


def recall_at_fpr(
    fpr: float = 0.05,
    average: Literal["macro", "weighted", "none"] = "macro",
    *,
    task: Task | None = None,
    from_logits: bool = True,
) -> Metric:
    """The largest recall of a threshold whose false positive rate is at most `fpr`. Exact, without interpolation.

    Args:
        fpr: the largest false positive rate, 0 to 1.
        average, task, from_logits: as of `auroc`.

    Example:
        >>> recall_at_fpr(0.5)(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(1., dtype=torch.float64)
    """
    if isinstance(fpr, bool) or not isinstance(fpr, (int, float)) or not 0 <= fpr <= 1:
        raise ValueError(f"fpr must be a false positive rate, 0 to 1; got {fpr!r}")
    return _ranking("recall_at_fpr", _RecallAt(float(fpr)), average, Labels(task, from_logits))


class Curve(NamedTuple):
    """A stretch of the ROC curve, from the largest scores down: sums after each score that is another.

    Attributes:
        hits, alarms: weights of positive and of negative examples so far, float64 `[n]`.
        hits_before, alarms_before: those before the first of them.
    """

    hits: Any
    alarms: Any
    hits_before: float
    alarms_before: float


Parts = Callable[[], Iterator[Curve]]
"""Gives the stretches of a curve from the first one on."""


def curve(scores: Tensor, positive: Tensor, weight: Tensor) -> Iterator[Curve]:
    """The ROC curve, in stretches.

    Args:
        scores: float32 or float64 `[N]`, without NaN where the weight is not 0.
        positive: bool `[N]`.
        weight: of the scores' dtype, `[N]`, not negative; or bool, whether the example counts.

    Example:
        >>> parts = curve(torch.tensor([0.2, 0.9, 0.9]), torch.tensor([True, True, False]), torch.ones(3))
        >>> [(part.hits.tolist(), part.alarms.tolist()) for part in parts]
        [([1.0], [1.0]), ([2.0], [1.0])]
    """
    narrow = scores.dtype == torch.float32 and weight.dtype in (torch.float32, torch.bool)
    ordered = _packed(scores, positive, weight) if narrow else _sorted(scores, positive, weight)
    start = here = (0.0, 0.0)  # the sums up to the last score that is done, and up to here
    score: Any = None
    for codes, truth, weights in ordered:
        hits, alarms = here[0] + np.cumsum(weights * truth), here[1] + np.cumsum(weights * ~truth)
        ends = np.flatnonzero(codes[1:] != codes[:-1])
        done_hits, done_alarms = hits[ends], alarms[ends]
        if score is not None and score != codes[0]:  # the chunk before ended with its score's last example
            done_hits, done_alarms = np.append(here[0], done_hits), np.append(here[1], done_alarms)
        if len(done_hits):
            yield Curve(done_hits, done_alarms, *start)
            start = (float(done_hits[-1]), float(done_alarms[-1]))
        here, score = (float(hits[-1]), float(alarms[-1])), codes[-1]
    if score is not None:
        yield Curve(np.array([here[0]]), np.array([here[1]]), *start)


class _Range(NamedTuple):
    """Scores that are sorted together: at least `low`, and less than `high`; None: no limit."""

    low: np.float32 | None
    high: np.float32 | None
    size: int


def _packed(scores: Tensor, positive: Tensor, weight: Tensor) -> Iterator[tuple[Any, Any, Any]]:
    """Chunks from the largest score down: a code of the score, whether positive, weight in float64."""
    given = scores.numpy(), positive.numpy(), weight.numpy()
    for keys in _one_ahead([partial(_keys, *given, each) for each in _ranges(given[0], given[2])]):
        for end in range(len(keys), 0, -CHUNK):
            chunk = keys[max(end - CHUNK, 0) : end][::-1]
            low = chunk.astype(np.uint32)
            yield chunk >> np.uint64(32), (low & SIGN) != 0, (low & ~SIGN).view(np.float32).astype(np.float64)


def _ranges(scores: Any, weights: Any) -> list[_Range]:
    """Ranges of about `RANGE` scores, the largest first. Equal scores are in one range, however many there are."""
    counts = np.zeros(1 << 16, np.int64)  # by the upper half of the code
    for start in range(0, len(scores), CHUNK):
        here = slice(start, start + CHUNK)
        halves = _codes(scores[here])[weights[here] != 0] >> np.uint32(16)
        counts += np.bincount(halves, minlength=len(counts))
    there = np.flatnonzero(counts)[::-1]
    group = (np.cumsum(counts[there]) - 1) // RANGE
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    edges = [None, *((_score_of(int(half) + 1 << 16)) for half in there[starts[1:]]), None]
    if not len(starts):
        return []
    sizes = np.add.reduceat(counts[there], starts).tolist()
    return [_Range(low, high, size) for high, low, size in zip(edges, edges[1:], sizes)]


def _keys(scores: Any, truth: Any, weights: Any, of: _Range) -> Any:
    """The scores of a range with label and weight, 64 bits each, sorted."""
    keys, count = np.empty(of.size, np.uint64), 0
    for start in range(0, len(scores), CHUNK):
        here = slice(start, start + CHUNK)
        kept = weights[here] != 0
        if of.low is not None:
            kept &= scores[here] >= of.low
        if of.high is not None:
            kept &= scores[here] < of.high
        codes = _codes(scores[here][kept]).astype(np.uint64) << np.uint64(32)
        codes |= weights[here][kept].astype(np.float32).view(np.uint32)
        codes |= truth[here][kept].astype(np.uint32) << np.uint32(31)
        keys[count : count + len(codes)] = codes
        count += len(codes)
    keys.sort()
    return keys


def _codes(scores: Any) -> Any:
    """Whole numbers of 32 bits in the order of the scores."""
    bits = (scores + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0
    return np.where(bits & SIGN, ~bits, bits | SIGN)


def _score_of(code: int) -> np.float32:
    """The score of a code."""
    bits = np.uint32(code)
    return (bits ^ SIGN if bits & SIGN else ~bits).view(np.float32)


def _one_ahead(functions: Sequence[Callable[[], Any]]) -> Iterator[Any]:
    """Their results in turn. The next one is computed meanwhile in a second thread: sorting holds no lock of Python."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Any]] = deque()
        for function in functions:
            waiting.append(thread.submit(function))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _sorted(scores: Tensor, positive: Tensor, weight: Tensor) -> Iterator[tuple[Any, Any, Any]]:
    """As `_packed`, of scores that take 64 bits."""
    kept = (weight != 0).numpy()
    score_array, truth = scores.double().numpy()[kept], positive.numpy()[kept]
    weights = weight.double().numpy()[kept]
    order = np.lexsort((weights, truth, score_array))[::-1]
    for start in range(0, len(order), CHUNK):
        here = order[start : start + CHUNK]
        yield score_array[here], truth[here], weights[here]


def roc_area(part: Curve) -> Any:
    """Twice the area under a stretch of the ROC curve, `[...]`; its sums may be `[..., n]`, of several curves."""
    between = part.hits.copy()
    between[..., :1] += part.hits_before
    between[..., 1:] += part.hits[..., :-1]
    return (np.diff(part.alarms, prepend=part.alarms_before) * between).sum(-1)


def precision_area(part: Curve) -> Any:
    """The sum of precision times the step in hits over a stretch, `[...]`, as of `roc_area`."""
    every = part.hits + part.alarms
    precision = np.divide(part.hits, every, out=np.zeros_like(every), where=every > 0)
    return (np.diff(part.hits, prepend=part.hits_before) * precision).sum(-1)


def _area(parts: Parts) -> float:
    area = hits = alarms = 0.0
    for part in parts():
        area += float(roc_area(part))
        hits, alarms = float(part.hits[-1]), float(part.alarms[-1])
    return area / 2 / (hits * alarms) if hits and alarms else float("nan")


def _average_precision(parts: Parts) -> float:
    area = hits = every = 0.0
    for part in parts():
        area += float(precision_area(part))
        hits, every = float(part.hits[-1]), float(part.hits[-1] + part.alarms[-1])
    if not every:
        return float("nan")
    return area / hits if hits else 0.0


@dataclass(frozen=True)
class _RecallAt:
    fpr: float

    def __call__(self, parts: Parts) -> float:
        hits = alarms = 0.0
        for part in parts():
            hits, alarms = float(part.hits[-1]), float(part.alarms[-1])
        if not hits or not alarms:
            return float("nan")
        found = 0.0
        for part in parts():  # again, as the rates need the sum of all: to keep the points would take more memory
            allowed = part.hits[part.alarms / alarms <= self.fpr]
            found = float(allowed[-1]) if len(allowed) else found
            if len(allowed) < len(part.hits):
                break
        return found / hits


@dataclass(frozen=True)
class _Ranked:
    """The value of all scores, by a function of the curve of one class against the rest."""

    of_curve: Callable[[Parts], float]
    average: str
    labels: Labels

    def __call__(self, found: Accumulator) -> Values:
        task, scores = task_and_sums(found)
        targets, weight = found["targets"], found["weight"]
        if task == "multiclass" and self.labels.from_logits:
            scores = _softmax(scores)
        several = task == "multilabel"
        values, present, support = [], [], []
        for label in range(scores.shape[1]):
            positive = targets == label if task == "multiclass" else targets[:, label]
            own = weight[:, label] if weight.ndim == 2 else weight
            columns = scores[:, label].contiguous(), positive.contiguous(), own.contiguous()
            value = self.of_curve(partial(curve, *columns))
            parts = zip(own.split(CHUNK), positive.split(CHUNK))
            support.append(sum(float(each[which].sum(dtype=torch.float64)) for each, which in parts))
            present.append(value == value and (several or support[-1] > 0))
            values.append(value)
        if task == "binary":
            return torch.tensor(values[0], dtype=torch.float64)
        numbers, weights = (torch.tensor(each, dtype=torch.float64) for each in (values, support))
        return averaged(numbers, self.average, torch.tensor(present), weights)


def _softmax(scores: Tensor) -> Tensor:
    """In float64, a part at a time, rounded to the scores' dtype: it must not depend on an example's companions."""
    rows = max(1, CHUNK // scores.shape[1])
    return torch.cat([part.double().softmax(1).to(scores.dtype) for part in scores.split(rows)])


def _ranking(name: str, of_curve: Callable[[Parts], float], average: Any, labels: Labels) -> Metric:
    if average not in ("macro", "weighted", "none"):
        raise ValueError(f"average must be 'macro', 'weighted' or 'none'; got {average!r}")
    return Metric(name, Scores(labels), _Ranked(of_curve, average, labels))
