"""`fit` of a stack: each member's run is the one that it has alone."""

import dataclasses
import json

import pytest
import torch
from member_helpers import largest_difference, member_state
from torch.utils.data import Subset, TensorDataset

import functrain as ft
from functrain.foundation.trees import leaves, structure
from functrain.loop import member_forms
from functrain.loop.member_feed import member_feed
from functrain.loop.output.progress import Display
from functrain.loop.resume.metadata import RunMetadata
from functrain.step.members.stepping import stopped

FORMS = {True: 1e-12, False: 0.0}
form = pytest.mark.parametrize(("vectorize", "tolerance"), list(FORMS.items()), ids=["vmap", "unrolled"])


def examples(count=44, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    return TensorDataset(inputs, (inputs[:, :3] + 0.3 * torch.randn(count, 3, generator=generator)).argmax(1))


def loader(data=None, shuffle=True, size=8):
    return ft.data.Loader(data or examples(), batch_size=size, shuffle=shuffle)


def broken(number):
    """A member whose loss is not finite."""
    state = member_state(number)
    return state.replace(params={**state.params, "outer.bias": torch.full((3,), float("inf"), dtype=torch.float64)})


def quiet(**settings):
    return {"compile": False, "progress": False, "epochs": 2, **settings}


@form
def test_each_members_run_is_its_own(vectorize, tolerance, tmp_path):
    """Its order of the data, its ragged last batch, its metrics, and its rates after a plateau."""
    states = [member_state(m, metrics=["f1"], ema_decay=0.9) for m in range(3)]
    settings = quiet(
        epochs=3,
        eval_loader=loader(examples(20, 1), shuffle=False),
        plateau=ft.optim.plateau(patience=0, threshold=0.2),
    )
    result = ft.fit(ft.stack(states, vectorize=vectorize), loader(), run_dir=tmp_path, **settings)
    for number, (state, member) in enumerate(zip(states, ft.unstack(result.state), strict=True)):
        alone = ft.fit(state, loader(), **settings)
        assert largest_difference(alone.state, member) <= tolerance
        for record, whole in zip(alone.history, result.history, strict=True):
            for name, values in whole["members"].items():
                assert values[number] == pytest.approx(record[name], abs=tolerance), name
    assert result.history[0]["train_loss"] == pytest.approx(sum(result.history[0]["members"]["train_loss"]) / 3)


@form
def test_folds_are_loaders_of_members(vectorize, tolerance):
    data = examples(45)
    folds = ft.data.k_fold(45, 3, seed=0)
    train, val = ([Subset(data, part.tolist()) for part in column] for column in zip(*folds))
    states = [member_state(5) for _ in folds]
    stacked = ft.stack(states, vectorize=vectorize)
    result = ft.fit(
        stacked,
        ft.data.per_member([loader(fold) for fold in train]),
        eval_loader=ft.data.per_member([loader(fold, shuffle=False) for fold in val]),
        **quiet(),
    )
    for number, member in enumerate(ft.unstack(result.state)):
        alone = ft.fit(states[0], loader(train[number]), eval_loader=loader(val[number], shuffle=False), **quiet())
        assert largest_difference(alone.state, member) <= tolerance
        assert result.history[-1]["members"]["eval_loss"][number] == pytest.approx(
            alone.history[-1]["eval_loss"], abs=1e-12
        )


@form
def test_members_stop_early_one_by_one(vectorize, tolerance):
    rates = (1e-9, 0.5, 0.05)  # the first does not improve
    states = [member_state(m, optimizer=ft.optim.sgd(rate)) for m, rate in enumerate(rates)]
    settings = quiet(
        epochs=6,
        eval_loader=loader(examples(20, 1), shuffle=False),
        early_stopping=ft.optim.early_stopping(patience=1, min_delta=1e-3),
    )
    result = ft.fit(ft.stack(states, vectorize=vectorize), loader(), **settings)
    members = ft.unstack(result.state)
    for state, member in zip(states, members, strict=True):
        alone = ft.fit(state, loader(), **settings).state
        assert largest_difference(alone, member) <= tolerance
        assert (alone.step, alone.epoch, alone.samples_seen) == (member.step, member.epoch, member.samples_seen)
    assert members[0].epoch < max(member.epoch for member in members)
    assert result.history[-1]["members"]["eval_loss"][0] is None


@form
def test_a_member_that_fails_stops_and_the_others_train_on(vectorize, tolerance, tmp_path, capsys):
    states = [member_state(0), broken(1), member_state(2)]
    result = ft.fit(ft.stack(states, vectorize=vectorize), loader(), run_dir=tmp_path, **quiet(progress=True, epochs=1))
    assert (
        "member 1 has stopped, its loss or gradient was not finite once; the others train on" in capsys.readouterr().err
    )
    assert result.state.members.train() == [True, False, True]
    for number in (0, 2):
        alone = ft.fit(states[number], loader(), **quiet(epochs=1)).state
        assert largest_difference(alone, ft.unstack(result.state)[number]) <= tolerance


def test_a_run_without_members_that_train_ends_with_an_error(tmp_path):
    stacked = ft.stack([broken(m) for m in range(2)])
    with pytest.raises(ft.errors.NonFiniteError, match="no member is left that trains"):
        ft.fit(stacked, loader(), run_dir=tmp_path, **quiet())


@form
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_bits(vectorize, tolerance, accumulate, tmp_path):
    def stacked():
        return ft.stack([member_state(m, accumulate=accumulate) for m in range(3)], vectorize=vectorize)

    settings = quiet(eval_loader=loader(examples(20, 1), shuffle=False), metrics=["f1"], log_every=1)
    whole = ft.fit(stacked(), loader(), run_dir=tmp_path / "whole", **settings)

    @ft.on("after_step")
    def stop(event):
        return ft.Stop() if event.state.step == 3 else None

    first = ft.fit(stacked(), loader(), run_dir=tmp_path / "parts", callbacks=[stop], **settings)
    assert first.stopped_by == "callback"
    second = ft.fit(stacked(), loader(), run_dir=tmp_path / "parts", **settings)
    assert ft.diff_states(whole.state, second.state) == []
    logs = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "parts")]
    assert logs[0] == logs[1]
    table = (tmp_path / "whole" / "metrics.csv").read_text().splitlines()
    assert "train_loss" in table[0]
    assert "members" not in table[0]
    assert len(json.loads(logs[0].splitlines()[0])["members"]["loss"]) == 3


def test_another_number_of_members_is_another_run(tmp_path):
    ft.fit(ft.stack([member_state(m) for m in range(3)]), loader(), run_dir=tmp_path, **quiet())
    with pytest.raises(ft.errors.CheckpointError):
        ft.fit(ft.stack([member_state(m) for m in range(2)]), loader(), run_dir=tmp_path, **quiet(epochs=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"micro_batch": 4}, "micro_batch=4 is not for a stack"),
        ({"early_stopping": ft.optim.early_stopping(restore_best=True), "run_dir": "runs"}, "restore_best=True"),
    ],
)
def test_what_a_stack_cannot_do_is_refused(settings, message):
    stacked = ft.stack([member_state(m) for m in range(2)])
    with pytest.raises(ValueError, match=message):
        ft.fit(stacked, loader(), **quiet(**settings))


def test_loaders_of_members_are_refused_where_they_do_not_fit():
    stacked = ft.stack([member_state(m) for m in range(2)])
    with pytest.raises(ValueError, match="3 loaders for a stack of 2 members"):
        ft.fit(stacked, ft.data.per_member([loader()] * 3), **quiet())
    with pytest.raises(ft.errors.DataError, match=r"equally many batches; got \[6, 3\]"):
        ft.fit(stacked, ft.data.per_member([loader(), loader(examples(20))]), **quiet())
    with pytest.raises(TypeError, match="a loader for each member of a stack"):
        ft.fit(member_state(0), ft.data.per_member([loader()]), **quiet())
    with pytest.raises(ValueError, match="read side by side"):
        ft.fit(stacked, ft.data.per_member([[], []]), **quiet())


def test_a_compiled_run_has_one_program_for_all_members(tmp_path):
    stacked = ft.stack([member_state(5, optimizer=ft.optim.sgd(0.01 * (m + 1))) for m in range(40)])
    compiled = []
    display = type("Heard", (Display,), {"busy": lambda self, text: compiled.append(text)})()
    ft.fit(stacked, loader(), **quiet(compile=True, backend="aot_eager", progress=display))
    assert [text for text in compiled if "update" in text] == ["compiling the update step ..."]


@pytest.mark.parametrize(("vmap_seconds", "chosen"), [(1.0, "vmap"), (3.0, "unroll")])
def test_the_faster_form_is_measured_and_kept(vmap_seconds, chosen, tmp_path, monkeypatch):
    seconds = {"vmap": vmap_seconds, "unroll": 2.0}
    monkeypatch.setattr(member_forms, "_seconds", lambda state, _batch: seconds[state.recipe.stacked.form])
    first = ft.fit(ft.stack([member_state(m) for m in range(2)]), loader(), run_dir=tmp_path, **quiet(epochs=1))
    assert first.state.recipe.stacked.form == chosen
    seconds["vmap"] = 5.0 - vmap_seconds  # a later start would choose otherwise
    second = ft.fit(ft.stack([member_state(m) for m in range(2)]), loader(), run_dir=tmp_path, **quiet(epochs=2))
    assert second.state.recipe.stacked.form == chosen


def test_members_that_cannot_be_vectorised_are_trained_one_after_the_other():
    class InPlace(torch.nn.Linear):
        def forward(self, x):
            noise = torch.empty(3, dtype=x.dtype)
            return super().forward(x) + noise.uniform_()  # drawn into what has no member's dimension

    stacked = ft.stack([member_state(m, make=lambda: InPlace(6, 3)) for m in range(2)])
    result = ft.fit(stacked, loader(), **quiet(epochs=1))
    assert result.state.recipe.stacked.form == "unroll"
    alone = ft.fit(ft.unstack(stacked)[1], loader(), **quiet(epochs=1))
    assert largest_difference(alone.state, ft.unstack(result.state)[1]) == 0


@pytest.mark.parametrize("count", [40, 44], ids=["even", "ragged"])
@pytest.mark.parametrize("start", [0, 2])
def test_batches_gathered_together_are_those_gathered_singly(count, start, monkeypatch):
    data = examples(count)
    parts = [Subset(data, list(range(first, count))) for first in (0, 0)]
    stacked = ft.stack([member_state(m) for m in range(2)])

    def feed(given):
        return member_feed(stacked, given, "train", "loader", None)

    for given in (loader(data), ft.data.per_member([loader(part) for part in parts])):
        together = list(feed(given).windows(1, start, 1, "extend"))
        monkeypatch.setattr("functrain.loop.member_feed.full_batches", lambda *_: None)
        singly = list(feed(given).windows(1, start, 1, "extend"))
        monkeypatch.undo()
        assert len(together) == len(singly) == -(-count // 8) - start
        for one, other in zip(together, singly, strict=True):
            assert one.examples == other.examples
            assert structure(one.batch) == structure(other.batch)
            assert all(map(torch.equal, leaves(one.batch), leaves(other.batch)))


@pytest.mark.slow
def test_320_members_are_one_program(tmp_path, monkeypatch):
    """64 learning rates in each of 5 folds. A store that has the program already would compile none."""
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path))
    data, compiled = examples(100), []
    parts = [Subset(data, fold.train.tolist()) for fold in ft.data.k_fold(100, 5, seed=0)]
    states = [member_state(5, optimizer=ft.optim.sgd(1e-3 * 1.1**rate)) for rate in range(64)]
    display = type("Heard", (Display,), {"busy": lambda self, text: compiled.append(text)})()
    stacked = ft.stack([state for state in states for _ in parts])
    folds = ft.data.per_member([loader(part) for _ in states for part in parts])
    result = ft.fit(stacked, folds, **quiet(compile=True, progress=display, epochs=1))
    assert compiled == ["compiling the update step ..."]
    alone = ft.fit(states[40], loader(parts[3]), **quiet(epochs=1))
    assert largest_difference(alone.state, ft.unstack(result.state)[40 * 5 + 3]) <= 1e-12


def test_a_checkpoint_tells_of_the_member_that_is_the_furthest_from_its_end():
    state = ft.stack([member_state(m) for m in range(3)])
    stoppers = [dataclasses.replace(state.stopper, num_bad_epochs=count) for count in (3, 1, 2)]
    state = state.replace(members=dataclasses.replace(state.members, stoppers=tuple(stoppers)))
    assert RunMetadata().at(state).bad_evaluations == 1
    assert RunMetadata().at(stopped(state, [1])).bad_evaluations == 2
    assert RunMetadata().at(stopped(state, [0, 1, 2])).bad_evaluations == 3
