"""A part of the data: limit_batches, eval_limit_batches and overfit_batches."""

from typing import Any

import pytest
import torch
from loop_helpers import EXAMPLES, assert_same_bits, make_loader, make_state, quick_fit, stop_after
from torch import Tensor
from torch.utils.data import DataLoader

import functrain as ft
from functrain.data import Arrays, Loader, part_of_length
from functrain.foundation.errors import DataError

LENGTH = 6  # batches of `make_loader()`


def numbered(batch_size: int = 4, **options: Any) -> Loader:
    """Examples that hold their own number."""
    numbers = torch.arange(EXAMPLES)
    return Loader(Arrays(numbers.float()[:, None].expand(-1, 4).clone(), numbers % 3), batch_size, **options)


def seen_by(state: Any, loader: Any, **options: Any) -> list[list[int]]:
    """The numbers of the examples in each micro-batch that was trained on."""
    seen: list[list[int]] = []

    @ft.on("process_batch")
    def keep(event: ft.Event) -> None:
        seen.append(event.batch[0][:, 0].int().tolist())

    quick_fit(state, loader, callbacks=[keep], **options)
    return seen


@pytest.mark.parametrize(("limit", "count"), [(2, 2), (99, LENGTH), (0.5, 3), (0.34, 3), (1.0, LENGTH), (1, 1)])
def test_an_epoch_is_its_first_batches(limit: float, count: int) -> None:
    whole = seen_by(make_state(), numbered(), epochs=2)
    part = seen_by(make_state(), numbered(), epochs=2, limit_batches=limit)
    assert part == [*whole[:count], *whole[LENGTH : LENGTH + count]]


def test_a_fraction_is_taken_by_its_decimal_digits() -> None:
    assert [part_of_length(part / 100, 100) for part in range(1, 101)] == list(range(1, 101))
    assert part_of_length(1e-9, 5) == 1


@pytest.mark.parametrize("tail", ["extend", "short", "drop"])
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 0.5])
def test_windows_of_a_part_are_whole(tail: str, limit: float) -> None:
    """ "extend" fills the last window with the batches that follow, as long as there are some."""
    options = {"epochs": 1, "tail": tail, "limit_batches": limit}
    count = part_of_length(limit, LENGTH)
    if tail == "drop" and count == 1:
        with pytest.raises(DataError, match="an epoch has 1 batches, fewer than the 2"):
            seen_by(make_state(accumulate=2), numbered(shuffle=False), **options)
        return
    seen = seen_by(make_state(accumulate=2), numbered(shuffle=False), **options)
    expected = {"extend": count + count % 2, "short": count, "drop": count - count % 2}[tail]
    assert [numbers[0] for numbers in seen] == [4 * number for number in range(expected)]


class Stateful:
    """A loader that knows its own position."""

    def __init__(self) -> None:
        self._batches = list(DataLoader(make_loader().dataset, batch_size=4))
        self._next = 0

    def __iter__(self) -> Any:
        while self._next < len(self._batches):
            self._next += 1
            yield self._batches[self._next - 1]
        self._next = 0

    def __len__(self) -> int:
        return len(self._batches)

    def state_dict(self) -> dict[str, int]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._next = state["next"]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_part_resumes_at_any_update_with_the_same_bits(accumulate: int) -> None:
    options = {"epochs": 3, "limit_batches": 4, "eval_loader": make_loader()}
    whole = quick_fit(make_state(accumulate=accumulate), make_loader(), **options).state
    for step in range(1, whole.step):
        part = quick_fit(
            make_state(accumulate=accumulate), make_loader(), callbacks=[stop_after(step)], **options
        ).state
        assert_same_bits(quick_fit(part, make_loader(), **options).state, whole)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, (3, 4)), (3, (1, 2, 3))])
def test_a_part_of_a_loader_with_a_position_of_its_own_resumes(tmp_path: Any, accumulate: int, steps: Any) -> None:
    options = {"epochs": 2, "limit_batches": 4, "log_every": 1}
    whole = quick_fit(make_state(accumulate=accumulate), Stateful(), run_dir=tmp_path / "whole", **options)
    for step in steps:
        run = tmp_path / str(step)
        quick_fit(make_state(accumulate=accumulate), Stateful(), run_dir=run, callbacks=[stop_after(step)], **options)
        again = quick_fit(make_state(accumulate=accumulate), Stateful(), run_dir=run, **options)
        assert_same_bits(again.state, whole.state)
        assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_a_whole_number_limits_an_endless_loader_and_a_fraction_cannot() -> None:
    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield from make_loader()

    assert quick_fit(make_state(), Endless(), epochs=2, limit_batches=5).state.step == 10
    with pytest.raises(ValueError, match=r"0.5 of the batches .* of known length only .* a whole number of batches"):
        quick_fit(make_state(), Endless(), epochs=2, limit_batches=0.5)


def evaluated(**options: Any) -> float:
    """The loss of an evaluation of the state before training."""
    state = make_state(optimizer=ft.optim.sgd(0.0))
    frozen = quick_fit(state, make_loader(), epochs=1, eval_loader=numbered(shuffle=False), **options)
    return frozen.history[-1]["eval_loss"]


def loss_of_first(batches: int) -> float:
    state = quick_fit(make_state(optimizer=ft.optim.sgd(0.0)), make_loader(), epochs=1, limit_batches=2).state
    numbers = torch.arange(min(4 * batches, EXAMPLES))
    data = Arrays(numbers.float()[:, None].expand(-1, 4).clone(), numbers % 3)
    return ft.evaluate(state, Loader(data, 4, shuffle=False))["loss"]


def test_evaluation_has_the_same_limit_or_its_own() -> None:
    assert evaluated(limit_batches=2) == pytest.approx(loss_of_first(2), rel=1e-12)
    assert evaluated(limit_batches=2, eval_limit_batches=3) == pytest.approx(loss_of_first(3), rel=1e-12)
    assert evaluated(limit_batches=2, eval_limit_batches=1.0) == pytest.approx(loss_of_first(LENGTH), rel=1e-12)


def test_overfitting_sees_the_same_batches_in_the_datas_own_order() -> None:
    seen = seen_by(make_state(), numbered(), epochs=3, overfit_batches=2)
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7]] * 3


def test_overfitting_evaluates_on_the_batches_that_it_trains_on() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    state = ft.init_state(model, ft.classification(), ft.optim.sgd(0.0))
    result = quick_fit(state, make_loader(), eval_loader=numbered(), epochs=1, overfit_batches=2)
    record = result.history[-1]
    assert record["eval_loss"] == pytest.approx(record["train_loss"], rel=1e-12)  # nothing moved, nothing is random


def test_augmented_batches_are_the_same_in_each_epoch() -> None:
    class Noisy(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> Any:
            return torch.randn(4), index % 3

    seen: list[Tensor] = []

    @ft.on("process_batch")
    def keep(event: ft.Event) -> None:
        seen.append(event.batch[0])

    quick_fit(make_state(), DataLoader(Noisy(), 4, shuffle=True), epochs=2, overfit_batches=1, callbacks=[keep])
    assert torch.equal(seen[0], seen[1])


def test_overfitting_resumes_with_the_same_bits(tmp_path: Any) -> None:
    options = {"epochs": 4, "overfit_batches": 3, "eval_loader": make_loader()}
    whole = quick_fit(make_state(), make_loader(), **options).state
    quick_fit(make_state(), make_loader(), run_dir=tmp_path, callbacks=[stop_after(5)], **options)
    assert_same_bits(quick_fit(make_state(), make_loader(), run_dir=tmp_path, **options).state, whole)


@pytest.mark.parametrize("setting", [{"limit_batches": 4}, {"limit_batches": 0.5}, {"overfit_batches": 3}])
def test_states_of_a_part_are_rebuilt_and_replayed(tmp_path: Any, setting: dict[str, Any]) -> None:
    options = {"epochs": 2, "save_every": 1, "keep": 99, **setting}
    whole = quick_fit(make_state(), make_loader(), run_dir=tmp_path, **options)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    report = ft.replay(make_state(), make_loader(), tmp_path / "checkpoints" / names[1], steps=whole.state.step - 2)
    assert report.ok
    assert len(report.compared) > 2
    for name in names[3:-1]:
        (tmp_path / "checkpoints" / name).rename(tmp_path / name)
    step = whole.state.step - 2
    saved = ft.Checkpointer(tmp_path, read_only=True).restore(make_state(), f"step-{step:08d}").tree
    assert_same_bits(ft.state_at(make_state(), make_loader(), tmp_path, step), saved)


def test_another_part_at_a_resume_is_told(tmp_path: Any) -> None:
    quick_fit(make_state(), make_loader(), run_dir=tmp_path, epochs=1, limit_batches=2)
    with pytest.warns(ft.ResumeWarning, match="limit_batches was 2 and is 3: an epoch has other batches"):
        quick_fit(make_state(), make_loader(), run_dir=tmp_path, epochs=2, limit_batches=3)


@pytest.mark.parametrize("value", [0, -1, 0.0, 1.5, True, "half", float("nan")])
def test_what_is_no_part_is_refused(value: Any) -> None:
    message = "limit_batches must be a whole number, 1 or more, or a fraction above 0.0 and at most 1.0; got"
    with pytest.raises(ValueError, match=message):
        quick_fit(make_state(), make_loader(), epochs=1, limit_batches=value)


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"overfit_batches chooses the batches .*: leave out limit_batches"):
        quick_fit(make_state(), make_loader(), epochs=1, limit_batches=2, overfit_batches=2)
    with pytest.raises(DataError, match="overfit_batches=9, but the loader gives 6: give 6 or fewer"):
        quick_fit(make_state(), make_loader(), epochs=1, overfit_batches=9)
    with pytest.raises(ValueError, match="overfit_batches must be a whole number, 1 or more; got 0"):
        quick_fit(make_state(), make_loader(), epochs=1, overfit_batches=0)
