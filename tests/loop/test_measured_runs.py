"""Metrics that were asked for: in steps, records and evaluations, over windows, resumes, precisions and compilers."""

import math
from pathlib import Path
from typing import Any

import pytest
import sklearn.metrics as sk
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.data import Arrays, Loader
from functrain.foundation.trees import leaves
from functrain.metrics import Metric, metric

ASKED: list[Any] = ["f1", {"name": "recall", "average": "none"}, "calibration_error", "auroc"]


def data(rows: int = 70, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator), torch.randint(0, 3, (rows,), generator=generator)


def new_state(**options: Any) -> ft.TrainState:
    torch.manual_seed(0)
    return ft.init_state(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), ft.classification(),
                         ft.optim.sgd(0.1), **options)  # fmt: skip


def loader(seed: int = 0, batch_size: int = 16, rows: int = 70, *, shuffle: bool = True) -> Loader:
    return Loader(Arrays(*data(rows, seed)), batch_size, shuffle=shuffle)


def train(state: ft.TrainState, metrics: Any = ASKED, **options: Any) -> ft.FitResult:
    given = {"epochs": 2, "compile": False, "progress": False, "eval_loader": loader(1, shuffle=False), **options}
    return ft.fit(state, loader(), metrics=metrics, **given)


def test_an_evaluation_has_one_value_over_all_examples() -> None:
    state = new_state()
    inputs, targets = data(seed=1)
    logits = ft.to_module(state).eval()(inputs).detach()
    for batch_size in (7, 16, 70):
        found = ft.evaluate(state, loader(1, batch_size, shuffle=False), metrics=[*ASKED, "matthews_corrcoef"])
        assert found["f1"] == pytest.approx(sk.f1_score(targets, logits.argmax(1), average="macro"), abs=1e-12)
        area = sk.roc_auc_score(targets, logits.double().softmax(1), multi_class="ovr")
        assert found["auroc"] == pytest.approx(area, abs=1e-3)  # logits of another batch size may round otherwise
        assert {"recall/class/0", "recall/class/1", "recall/class/2", "calibration_error"} <= found.keys()


def test_records_hold_the_metrics_of_steps_and_epochs(tmp_path: Path) -> None:
    result = train(new_state(), run_dir=tmp_path, log_every=1)
    epoch = result.history[-1]
    assert {"train_f1", "train_recall/class/2", "eval_f1", "eval_auroc"} <= epoch.keys()
    assert "train_auroc" not in epoch  # it needs all scores at once
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"f1", "recall/class/1", "train_f1", "eval_auroc"} <= set(header)
    assert epoch["eval_f1"] == ft.evaluate(result.state, loader(1, shuffle=False), metrics=["f1"])["f1"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_an_epoch_counts_each_example_of_its_updates_once(accumulate: int) -> None:
    total: Any = None
    metrics = ft.metrics.measures(["confusion_matrix"])

    @ft.on("process_batch")
    def count(event: ft.Event) -> None:
        nonlocal total
        logits = ft.to_module(event.state).train()(event.batch[0])
        part = ft.metrics.confusion_matrix()(logits, *event.batch[1:])
        total = part if total is None else total + part

    result = train(new_state(accumulate=accumulate), metrics, epochs=1, callbacks=[count])
    record = result.history[-1]
    found = [[record[f"train_confusion_matrix/{true}/{made}"] for made in range(3)] for true in range(3)]
    assert found == total.tolist()
    assert not any(leaf.any() for leaf in leaves(result.state.epoch_metrics))  # the next epoch begins with nothing


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_was_stopped_within_an_epoch_goes_on_with_its_counts(tmp_path: Path, accumulate: int) -> None:
    @ft.on("after_step")
    def stop(event: ft.Event) -> ft.Stop | None:
        return ft.Stop() if event.state.step == 3 else None

    whole = train(new_state(accumulate=accumulate), run_dir=tmp_path / "whole")
    train(new_state(accumulate=accumulate), run_dir=tmp_path / "parts", callbacks=[stop])
    parts = train(new_state(accumulate=accumulate), run_dir=tmp_path / "parts")
    assert parts.history == whole.history
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "parts/metrics.csv").read_bytes()


@pytest.mark.parametrize("now", [(), ["matthews_corrcoef"]])
def test_other_metrics_may_be_asked_for_later(tmp_path: Path, now: Any) -> None:
    @ft.on("after_step")
    def stop(event: ft.Event) -> ft.Stop | None:
        return ft.Stop() if event.state.step == 3 else None

    train(new_state(), run_dir=tmp_path, callbacks=[stop])
    if now:
        with pytest.warns(ft.ResumeWarning, match="train_ values of this epoch count from here on"):
            result = train(new_state(), now, run_dir=tmp_path)
        assert "train_matthews_corrcoef" in result.history[-1]
        assert "train_f1" not in result.history[-1]
    else:
        assert "train_f1" not in train(new_state(), now, run_dir=tmp_path).history[-1]


def test_asking_for_metrics_changes_nothing_else() -> None:
    plain, asked = train(new_state(), ()), train(new_state())
    own = [name for name in plain.history[-1] if name != "digest"]
    assert [asked.history[-1][name] for name in own] == [plain.history[-1][name] for name in own]
    assert not ft.diff_states(plain.state, asked.state.replace(recipe=plain.state.recipe, epoch_metrics=None))


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"precision": "bf16"}, {"precision": "fp64"}])
def test_compiled_steps_measure_the_same(options: dict[str, Any]) -> None:
    asked = ["f1", "confusion_matrix", "brier"]
    eager = train(new_state(**options), asked, epochs=1)
    compiled = train(new_state(**options), asked, epochs=1, compile=True, backend="aot_eager")
    for name, value in eager.history[-1].items():
        if isinstance(value, float):
            assert compiled.history[-1][name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


def test_a_refused_update_is_not_counted() -> None:
    state = new_state(metrics=["confusion_matrix"])
    inputs, targets = data(8)
    state, _ = ft.train_step(state, (inputs, targets))
    refused, metrics = ft.train_step(state, (inputs.clone().fill_(math.nan), targets))
    assert metrics["skipped"] == 1
    assert not ft.diff_states(state.replace(step=0, batch_idx=0, samples_seen=0, counts=refused.counts),
                              refused.replace(step=0, batch_idx=0, samples_seen=0))  # fmt: skip


def test_auroc_can_be_watched(tmp_path: Path) -> None:
    rule = ft.optim.early_stopping(patience=1, mode="max")
    result = train(new_state(), ["auroc"], epochs=9, watch="eval_auroc", watch_mode="max", early_stopping=rule,
                   run_dir=tmp_path)  # fmt: skip
    values = [record["eval_auroc"] for record in result.history]
    assert result.stopped_by == "early_stopping"
    assert result.state.stopper.best == max(values)


def test_a_metric_that_nobody_asked_for_cannot_be_watched() -> None:
    with pytest.raises(ValueError, match=r"watch must be one of .*eval_f1.*; got 'eval_auroc'"):
        train(new_state(), ["f1"], watch="eval_auroc")


def gini() -> Metric:
    def update(acc: dict[str, Tensor], logits: Tensor, targets: Tensor, weight: Tensor) -> dict[str, Tensor]:
        impurity = 1 - logits.double().softmax(1).square().sum(1)
        return {"sum": acc["sum"] + (impurity * weight).sum(), "weight": acc["weight"] + weight.sum()}

    zero = torch.zeros((), dtype=torch.float64)
    return metric(lambda: {"sum": zero, "weight": zero}, update, lambda acc: acc["sum"] / acc["weight"], name="gini")


@pytest.mark.parametrize("compiled", [False, True])
def test_a_metric_of_ones_own_is_a_triple_of_functions(compiled: bool) -> None:
    own = gini()
    triple = (own.statistic.first, own.statistic.step, own.value)  # type: ignore[attr-defined]
    options = {"compile": True, "backend": "aot_eager"} if compiled else {}
    result = train(new_state(accumulate=2), {"purity": triple, "gini": gini()}, **options)
    record = result.history[-1]
    assert record["train_purity"] == pytest.approx(record["train_gini"])
    assert 0 < record["eval_gini"] < 1


def test_a_metric_of_the_objectives_name_takes_its_place() -> None:
    record = train(new_state(), [{"name": "accuracy", "top_k": 2}]).history[-1]
    plain = train(new_state(), ()).history[-1]
    assert record["eval_accuracy"] > plain["eval_accuracy"]
    assert record["train_loss"] == plain["train_loss"]


def test_nan_in_an_evaluation_is_said_and_ends_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if self.training else self.layer(x) * math.nan

    state = ft.init_state(Broken(), ft.classification(), ft.optim.sgd(0.1))
    result = train(state, ["f1"], progress=True)
    assert math.isnan(result.history[-1]["eval_f1"])
    assert "f1 found NaN in the predictions (70 times); in place of its value stands NaN" in capsys.readouterr().err
    with pytest.raises(ft.errors.MetricError, match="f1 found NaN"):
        ft.evaluate(result.state, loader(1), metrics=["f1"])


def test_language_models_are_judged_by_their_next_token() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.table(x)  # type: ignore[no-any-return]

    tokens = torch.randint(0, 6, (4, 9), generator=torch.Generator().manual_seed(0))
    tokens[0, 5:] = -100
    state = ft.init_state(Tokens(), ft.language_modelling(next_token=True), ft.optim.sgd(0.1))
    found = ft.evaluate(state, [(tokens.clamp(min=0), tokens)], metrics=["perplexity", "bits_per_byte", "accuracy"])
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(found["loss"] / math.log(2), rel=1e-6)


def test_regression_and_masks_are_judged() -> None:
    inputs, _ = data()
    state = ft.init_state(nn.Linear(5, 1), ft.regression(), ft.optim.sgd(0.1))
    found = ft.evaluate(state, [(inputs, inputs.sum(1, keepdim=True))], metrics=["mae", "mse", "r2", "spearman"])
    assert found["mse"] == pytest.approx(found["loss"], rel=1e-6)
    images, masks = torch.randn(4, 1, 6, 6), torch.randint(0, 2, (4, 1, 6, 6))
    state = ft.init_state(nn.Conv2d(1, 1, 1), ft.binary_classification(), ft.optim.sgd(0.1))
    found = ft.evaluate(state, [(images, masks)], metrics=["dice", "iou", "accuracy"])
    assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))
