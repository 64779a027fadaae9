"""fit: when it ends, what it leaves, what it refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.checkpoint import CheckpointWarning, RunLockedError, read_info
from functrain.data import Arrays, Loader
from functrain.foundation.errors import CheckpointError, DataError, NonFiniteError
from functrain.foundation.trees import leaves_with_paths

EXAMPLES = 22


def make_state(**options: Any) -> ft.TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    optimizer = options.pop("optimizer", ft.optim.adamw(1e-2))
    return ft.init_state(model, ft.classification(), optimizer, **options)


def make_loader(batch_size: int = 4, **options: Any) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(EXAMPLES, 4, generator=generator)
    targets = torch.randint(0, 3, (EXAMPLES,), generator=generator)
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=True, **options)


def quick_fit(state: ft.TrainState, loader: Any, **options: Any) -> ft.FitResult:
    return ft.fit(state, loader, **{"compile": False, "progress": False, **options})


def assert_same_bits(left: ft.TrainState, right: ft.TrainState) -> None:
    assert ft.diff_states(left, right) == []


def stop_after(steps: int) -> Any:
    @ft.on("after_step")
    def callback(event: ft.Event) -> ft.Stop | None:
        return ft.Stop() if event.state.step == steps else None

    return callback


# -- when it ends ----------------------------------------------------------------------------------------


def test_epochs_and_steps_count_from_the_beginning_of_the_run() -> None:
    first = quick_fit(make_state(), make_loader(), epochs=2)
    assert (first.stopped_by, first.state.epoch, first.state.step) == ("epochs", 2, 12)
    assert quick_fit(first.state, make_loader(), epochs=2).state is first.state
    second = quick_fit(first.state, make_loader(), epochs=9, steps=14)
    assert (second.stopped_by, second.state.step, second.state.batch_idx) == ("steps", 14, 2)
    assert second.state.samples_seen == 2 * EXAMPLES + 8


def test_steps_that_end_with_an_epoch_end_the_epoch() -> None:
    result = quick_fit(make_state(), make_loader(), steps=12)
    assert (result.stopped_by, result.state.epoch, result.state.batch_idx) == ("steps", 2, 0)
    assert [record["kind"] for record in result.history] == ["epoch", "epoch"]


def test_two_short_fits_equal_one_long_one() -> None:
    whole = quick_fit(make_state(), make_loader(), epochs=3).state
    parts = quick_fit(make_state(), make_loader(), steps=8).state
    assert_same_bits(quick_fit(parts, make_loader(), epochs=3).state, whole)


def test_a_callback_can_stop_and_can_return_a_state() -> None:
    @ft.on("after_step")
    def callback(event: ft.Event) -> ft.Stop | None:
        if event.state.step == 3:
            return ft.Stop(event.state.replace(key=7))
        return None

    result = quick_fit(make_state(), make_loader(), epochs=2, callbacks=[callback])
    assert (result.stopped_by, result.state.step, result.state.key) == ("callback", 3, 7)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_with_an_interrupted_snapshot_and_its_exit_code(number: int, tmp_path: Path) -> None:
    @ft.on("after_step")
    def send(event: ft.Event) -> None:
        if event.state.step == 2:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(ft.Interrupted) as caught:
        quick_fit(make_state(), make_loader(), epochs=2, callbacks=[send], run_dir=tmp_path)
    assert caught.value.code == 128 + number
    assert caught.value.result.stopped_by == "signal"
    assert signal.getsignal(number) is handler
    info = read_info(tmp_path / "checkpoints" / "last")
    assert (info.status, info.step) == ("INTERRUPTED", 2)
    resumed = quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path)
    assert_same_bits(resumed.state, quick_fit(make_state(), make_loader(), epochs=2).state)


def test_a_signal_during_evaluation_resumes_before_it(tmp_path: Path) -> None:
    class Interrupting:
        def __iter__(self) -> Any:
            os.kill(os.getpid(), signal.SIGTERM)
            yield from make_loader(EXAMPLES)

    arguments = {"epochs": 2, "run_dir": tmp_path}
    stopped = quick_fit(make_state(), make_loader(), eval_loader=Interrupting(), on_signal="return", **arguments)
    assert (stopped.stopped_by, stopped.state.epoch, stopped.state.batch_idx) == ("signal", 0, 6)
    resumed = quick_fit(make_state(), make_loader(), eval_loader=make_loader(EXAMPLES), **arguments)
    whole = quick_fit(make_state(), make_loader(), eval_loader=make_loader(EXAMPLES), epochs=2)
    assert_same_bits(resumed.state, whole.state)
    assert resumed.history == whole.history


# -- events ----------------------------------------------------------------------------------------------


def test_the_seven_scopes_come_in_order() -> None:
    seen: list[str] = []

    @ft.on("before_loop", "before_epoch", "before_step", "process_batch", "after_step", "after_epoch", "after_loop")
    def watch(event: ft.Event) -> None:
        seen.append(event.scope)

    quick_fit(make_state(accumulate=2), make_loader(11), epochs=2, callbacks=[watch])
    epoch = ["before_epoch", "before_step", "process_batch", "process_batch", "after_step", "after_epoch"]
    assert seen == ["before_loop", *epoch, *epoch, "after_loop"]


def test_process_batch_may_replace_the_batch() -> None:
    @ft.on("process_batch")
    def double(event: ft.Event) -> ft.Event:
        inputs, *rest = event.batch
        return event.replace(batch=(inputs * 2, *rest))

    changed = quick_fit(make_state(), make_loader(), steps=1, callbacks=[double]).state
    plain = quick_fit(make_state(), make_loader(), steps=1).state
    assert not torch.equal(changed.params["0.weight"], plain.params["0.weight"])


def test_events_are_immutable_and_answers_are_checked() -> None:
    @ft.on("after_step")
    def write(event: ft.Event) -> None:
        event.state = None  # type: ignore[misc]

    with pytest.raises(AttributeError):
        quick_fit(make_state(), make_loader(), steps=1, callbacks=[write])
    with pytest.raises(TypeError, match=r"returns None, a TrainState, an Event or Stop\(\).*returned int"):
        quick_fit(make_state(), make_loader(), steps=1, callbacks=[ft.on("after_step")(lambda event: 3)])
    with pytest.raises(TypeError, match="names its scopes"):
        quick_fit(make_state(), make_loader(), steps=1, callbacks=[lambda event: None])
    with pytest.raises(ValueError, match="no such scope: 'after_batch'"):
        ft.on("after_batch")


# -- windows and shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("tail", "micro_batches", "updates"), [("extend", 8, 2), ("short", 6, 2), ("drop", 4, 1)])
def test_tail_decides_what_becomes_of_the_last_window(tail: str, micro_batches: int, updates: int) -> None:
    seen: list[Tensor] = []

    @ft.on("process_batch")
    def keep(event: ft.Event) -> None:
        seen.append(event.batch[0])

    loader = DataLoader(make_loader().dataset, batch_size=4)
    result = quick_fit(make_state(accumulate=4), loader, epochs=1, tail=tail, callbacks=[keep])
    assert (len(seen), result.state.step, result.state.micro_step) == (micro_batches, updates, 0)
    if tail == "extend":
        assert torch.equal(seen[6], seen[0])
        assert torch.equal(seen[7], seen[1])


@pytest.mark.parametrize("tail", ["extend", "short", "drop"])
def test_a_run_resumed_anywhere_in_a_window_ends_with_the_same_bits(tail: str) -> None:
    options = {"epochs": 2, "tail": tail}
    whole = quick_fit(make_state(accumulate=4), make_loader(), **options).state
    for stop in (1, 3, 5, 6, 7, 8, 9):

        @ft.on("process_batch")
        def at(event: ft.Event, seen: list[int] = [0], stop: int = stop) -> ft.Stop | None:  # noqa: B006
            seen[0] += 1
            return ft.Stop() if seen[0] == stop else None

        part = quick_fit(make_state(accumulate=4), make_loader(), callbacks=[at], **options).state
        assert_same_bits(quick_fit(part, make_loader(), **options).state, whole)


def test_an_iterable_of_unknown_length_extends_its_last_window() -> None:
    class Batches:
        def __iter__(self) -> Any:
            yield from DataLoader(make_loader().dataset, batch_size=4)

    result = quick_fit(make_state(accumulate=4), Batches(), epochs=1)
    assert (result.state.batch_idx, result.state.step, result.state.samples_seen) == (0, 2, EXAMPLES + 8)
    with pytest.raises(ValueError, match="tail='drop' needs a loader of known length"):
        quick_fit(make_state(accumulate=4), Batches(), epochs=1, tail="drop")


def test_one_compilation_serves_a_ragged_last_batch_and_a_changing_learning_rate(capsys: Any) -> None:
    state = make_state(optimizer=ft.optim.adamw(ft.schedules.cosine(1e-2, 12)))
    options = {"epochs": 2, "eval_loader": make_loader(), "progress": None}
    compiled = quick_fit(state, make_loader(), compile=True, backend="aot_eager", **options)
    said = capsys.readouterr().err
    assert said.count("compiling the update step") == 1
    assert said.count("compiling the evaluate step") == 1
    eager = quick_fit(state, make_loader(), **options)
    for (path, left), (_, right) in zip(leaves_with_paths(compiled.state), leaves_with_paths(eager.state), strict=True):
        torch.testing.assert_close(left, right, msg=path)


def test_donation_changes_no_bit_and_spares_the_callers_state() -> None:
    options = {"epochs": 2, "compile": True, "backend": "aot_eager"}
    state = make_state(ema_decay=0.9)
    donated = quick_fit(state, make_loader(), donate=True, **options).state
    assert_same_bits(donated, quick_fit(state, make_loader(), **options).state)


@pytest.mark.parametrize("loader", [Loader(Arrays(torch.randn(10, 4), torch.zeros(10).long()), 4), None])
def test_other_loaders_train(loader: Any) -> None:
    batches = loader or [(torch.randn(4, 4), torch.zeros(4).long())] * 3
    assert quick_fit(make_state(), batches, epochs=2).state.step == 6


# -- what it leaves --------------------------------------------------------------------------------------


def test_the_logs_hold_each_step_once_after_a_resume(tmp_path: Path) -> None:
    options = {"epochs": 3, "log_every": 2, "eval_loader": make_loader(EXAMPLES)}
    whole = quick_fit(make_state(), make_loader(), run_dir=tmp_path / "whole", **options)
    quick_fit(make_state(), make_loader(), run_dir=tmp_path / "part", callbacks=[stop_after(9)], **options)
    log = tmp_path / "part" / "metrics.jsonl"
    log.write_text(log.read_text() + '{"kind": "step", "step": 99}\n{"kind": "st')  # after the checkpoint, a kill
    part = quick_fit(make_state(), make_loader(), run_dir=tmp_path / "part", **options)
    assert part.history == whole.history
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "part" / name).read_text() == (tmp_path / "whole" / name).read_text()
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["step"] for r in records if r["kind"] == "step"] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert {"train_loss", "train_accuracy", "eval_loss", "eval_accuracy"} <= records[-1].keys()


def test_epoch_records_average_over_examples_not_batches() -> None:
    batches = [(torch.full((n, 1), float(n)), torch.zeros(n, 1)) for n in (1, 3)]
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    state = ft.init_state(model, ft.regression(), ft.optim.sgd(0.0))
    record = quick_fit(state, batches, eval_loader=batches, epochs=1).history[0]
    assert record["train_loss"] == record["eval_loss"] == (1 * 1 + 3 * 9) / 4


def test_best_and_last_are_kept_and_loadable_by_name(tmp_path: Path) -> None:
    result = quick_fit(
        make_state(), make_loader(), eval_loader=make_loader(), epochs=5, run_dir=tmp_path, keep=1, watch="eval_loss"
    )
    losses = [record["eval_loss"] for record in result.history]
    assert read_info(tmp_path / "checkpoints" / "best").metric == min(losses)
    assert read_info(tmp_path / "checkpoints" / "last").step == result.state.step
    with ft.Checkpointer(tmp_path / "checkpoints") as checkpointer:
        restored = checkpointer.restore(make_state(), "last").tree
    assert_same_bits(restored, result.state)


def test_keep_best_keeps_the_best_few(tmp_path: Path) -> None:
    result = quick_fit(make_state(), make_loader(), epochs=6, run_dir=tmp_path, keep=1, keep_best=3)
    losses = {record["step"]: record["train_loss"] for record in result.history}
    best = sorted(losses, key=lambda step: losses[step])[:3]
    kept = sorted({*best, result.state.step})
    assert sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*")) == [f"step-{step:08}" for step in kept]


def test_a_second_run_in_the_directory_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    refusals = []

    @ft.on("before_epoch")
    def second(event: ft.Event) -> None:
        before = (tmp_path / "metrics.jsonl").read_text()
        for resume in ("auto", "never"):
            with pytest.raises(RunLockedError, match=r"another run is writing to .*this very process") as refusal:
                quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, resume=resume)
            refusals.append(refusal)
        assert (tmp_path / "metrics.jsonl").read_text() == before

    quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path, callbacks=[second])
    assert len(refusals) == 4
    assert not (tmp_path / ".functrain-lock").exists()
    assert not (tmp_path / "previous-1").exists()


def test_a_run_that_was_killed_is_mentioned_by_the_next(tmp_path: Path) -> None:
    program = """
import os, sys
from functrain.checkpoint import RunLock
RunLock(sys.argv[1]).acquire()
os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 1
    with pytest.warns(CheckpointWarning, match=r"the last run in .* \(process .* on host .*\) was killed"):
        quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    assert quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path).state.epoch == 2


def test_resume_never_moves_the_earlier_run_aside(tmp_path: Path) -> None:
    first = quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    log = (tmp_path / "metrics.jsonl").read_text()
    second = quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path, resume="never")
    assert_same_bits(first.state, second.state)
    assert (tmp_path / "previous-1" / "metrics.jsonl").read_text() == log
    assert (tmp_path / "previous-1" / "checkpoints" / "last").exists()


def test_going_back_to_an_older_checkpoint_makes_it_the_newest(tmp_path: Path) -> None:
    options = {"epochs": 3, "run_dir": tmp_path, "keep": 5}
    whole = quick_fit(make_state(), make_loader(), **options)
    older = str(tmp_path / "checkpoints" / "step-00000006")
    again = quick_fit(make_state(), make_loader(), resume=older, callbacks=[stop_after(7)], **options)
    assert again.state.step == 7
    assert read_info(tmp_path / "checkpoints" / "last").step == 7
    assert_same_bits(quick_fit(make_state(), make_loader(), **options).state, whole.state)
    elsewhere = quick_fit(make_state(), make_loader(), resume=older, epochs=3, run_dir=tmp_path / "elsewhere")
    assert_same_bits(elsewhere.state, whole.state)
    assert elsewhere.history == whole.history


def test_a_changed_learning_rate_is_used_and_said(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), steps=2, run_dir=tmp_path)
    with pytest.warns(ft.ResumeWarning, match=r"was 0.01 and is 0.001: training goes on with the new one"):
        result = quick_fit(
            make_state(optimizer=ft.optim.adamw(1e-3)), make_loader(), steps=3, run_dir=tmp_path, log_every=1
        )
    assert ft.optim.learning_rate(result.state.opt_state) == 1e-3


def test_a_changed_environment_is_named(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), steps=2, run_dir=tmp_path)
    with pytest.warns(ft.ResumeWarning, match="not bit-for-bit because compile was eager and is aot_eager/default"):
        quick_fit(make_state(), make_loader(), steps=3, run_dir=tmp_path, compile=True, backend="aot_eager")


def test_a_loader_with_a_state_of_its_own_is_asked_for_it(tmp_path: Path) -> None:
    class Counting:
        """Gives a different batch each time, from a position of its own."""

        def __init__(self) -> None:
            self.position = 0

        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Any:
            while self.position < 5:
                self.position += 1
                yield torch.full((2, 4), float(self.position)), torch.zeros(2).long()
            self.position = 0

        def state_dict(self) -> dict[str, Any]:
            return {"position": self.position, "generator": torch.tensor([1, 2], dtype=torch.uint8)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            assert state["generator"].dtype == torch.uint8
            self.position = state["position"]

    whole = quick_fit(make_state(), Counting(), epochs=2).state
    quick_fit(make_state(), Counting(), epochs=2, run_dir=tmp_path, callbacks=[stop_after(3)])
    assert_same_bits(quick_fit(make_state(), Counting(), epochs=2, run_dir=tmp_path).state, whole)


# -- what it refuses -------------------------------------------------------------------------------------


def test_a_nan_stops_with_the_step_named_and_the_state_before_it_saved(tmp_path: Path) -> None:
    @ft.on("process_batch")
    def poison(event: ft.Event) -> ft.Event:
        inputs, *rest = event.batch
        return event.replace(batch=(inputs.log() if event.state.step == 8 else inputs, *rest))

    with pytest.raises(NonFiniteError, match=r"the loss is nan at step 9 \(epoch 2, batch 3\).*holds NaN.*NONFINITE"):
        quick_fit(make_state(), make_loader(), epochs=3, run_dir=tmp_path, callbacks=[poison])
    info = read_info(tmp_path / "checkpoints" / "last")
    assert (info.status, info.step) == ("NONFINITE", 8)
    skipped = quick_fit(make_state(), make_loader(), epochs=2, callbacks=[poison], on_nonfinite="skip")
    assert all(torch.isfinite(p).all() for p in skipped.state.params.values())


@pytest.mark.parametrize("compile", [False, True])
def test_labels_out_of_range_are_named(compile: bool) -> None:
    batch = (torch.randn(4, 4), torch.tensor([0, 1, 7, 2]))
    with pytest.raises(NonFiniteError, match=r"[Ll]abel 7 at position \[2\] .* 3 classes, so labels must be 0 to 2"):
        quick_fit(make_state(), [batch], epochs=1, compile=compile, backend="aot_eager" if compile else "inductor")


def test_arguments_are_checked_before_anything_is_done() -> None:
    for arguments, message in (
        ({}, "give epochs, steps, or both"),
        ({"epochs": 0}, "epochs must be a whole number, 1 or more; got 0"),
        ({"epochs": 1, "tail": "cut"}, "tail must be one of extend, short, drop; got 'cut'"),
        ({"epochs": 1, "watch": "eval_los"}, "watch must be one of train_loss, train_accuracy; got 'eval_los'"),
        ({"epochs": 1, "compile": True, "backend": "induktor"}, "backend must be one of"),
        ({"epochs": 1, "resume": "somewhere"}, "give run_dir too"),
    ):
        with pytest.raises(ValueError, match=message):
            quick_fit(make_state(), make_loader(), **arguments)
    with pytest.raises(TypeError, match="made by init_state, got Linear"):
        quick_fit(nn.Linear(1, 1), make_loader(), epochs=1)  # type: ignore[arg-type]


def test_a_run_directory_of_another_model_is_refused_and_left_alone(tmp_path: Path) -> None:
    quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    other = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.adamw(1e-2))
    with pytest.raises(CheckpointError, match="weight"):
        quick_fit(other, make_loader(), epochs=1, run_dir=tmp_path)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_an_unwritable_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        CheckpointError, match=r"cannot lock the run directory .* choose a directory that can be written to"
    ):
        quick_fit(make_state(), make_loader(), epochs=1, run_dir=tmp_path / "file")


def test_empty_data_are_refused() -> None:
    with pytest.raises(DataError):
        quick_fit(make_state(), [], epochs=1)
    with pytest.raises(DataError):
        quick_fit(make_state(), make_loader(), eval_loader=[], epochs=1)


def test_fit_leaves_the_global_generators_alone() -> None:
    state, loader = make_state(), make_loader()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    quick_fit(state, loader, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_state_is_not_changed() -> None:
    state = make_state(accumulate=2)
    copies = {path: leaf.clone() if isinstance(leaf, Tensor) else leaf for path, leaf in leaves_with_paths(state)}
    quick_fit(state, make_loader(), epochs=1)
    for path, leaf in leaves_with_paths(state):
        assert torch.equal(leaf, copies[path]) if isinstance(leaf, Tensor) else leaf == copies[path], path
