"""Which checkpoints are there: positions, revisions, retention, leftovers, links."""

import dataclasses
import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from functrain.checkpoint import Checkpointer, CheckpointInfo
from functrain.checkpoint.names import Position, array_key, item_names, next_position, parse_name
from functrain.checkpoint.retention import rank_by_metric, retained

positions = st.builds(Position, st.integers(0, 10**12), st.integers(0, 99), st.integers(0, 99))


def info(step, metric):
    return CheckpointInfo(None, Position(step).name, step, 0, "COMPLETE", metric, {}, "", {}, {}, 1)


@given(positions)
def test_a_name_tells_its_position(position):
    assert parse_name(position.name) == position


@given(st.text(max_size=20) | st.from_regex(r"step-[0-9mr.]{6,12}", fullmatch=True))
def test_only_what_we_would_write_is_a_name(text):
    position = parse_name(text)
    assert position is None or position.name == text


@given(st.lists(positions, max_size=8), positions)
def test_the_next_revision_is_new_and_newest(existing, position):
    new = next_position(position.step, position.micro_step, [p.name for p in existing])
    same_place = [p for p in existing if (p.step, p.micro_step) == (position.step, position.micro_step)]
    assert all(new > p for p in same_place)


@given(st.lists(st.text(max_size=4), unique=True))
def test_array_keys_and_item_names_of_different_names_differ(names):
    assert len({array_key(name) for name in names}) == len(names)
    assert len({item.casefold() for item in item_names(names).values()}) == len(names)


metrics = st.none() | st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf, -math.inf])


histories = st.lists(metrics, min_size=1, max_size=10)
modes = st.sampled_from(["min", "max"])


def best_by_hand(values, mode, count):
    """Places of the best values: each is better than no earlier one of those that are left out."""
    places, left = [], [i for i, value in enumerate(values) if value is not None and value == value]
    while left and len(places) < count:
        best = left[0]
        for place in left:
            if (values[place] < values[best]) if mode == "min" else (values[place] > values[best]):
                best = place
        places.append(best)
        left.remove(best)
    return places


@given(histories, st.integers(1, 4), st.integers(1, 4), modes)
def test_the_newest_and_the_first_of_the_best_are_kept_and_nothing_else(values, keep, keep_best, mode):
    infos = [info(step, value) for step, value in enumerate(values)]
    places = {*range(len(values))[-keep:], *best_by_hand(values, mode, keep_best)}
    assert retained(infos, keep, mode, keep_best) == {infos[place].name for place in places}
    everyone = best_by_hand(values, mode, len(values))
    assert [i.name for i in rank_by_metric(infos, mode)] == [infos[place].name for place in everyone]


@given(histories, st.integers(1, 4), st.integers(1, 4), modes)
def test_deleting_after_every_save_leaves_what_deleting_at_the_end_leaves(values, keep, keep_best, mode):
    infos = [info(step, value) for step, value in enumerate(values)]
    there = []
    for new in infos:
        there.append(new)
        kept = retained(there, keep, mode, keep_best)
        there = [i for i in there if i.name in kept]
    assert {i.name for i in there} == retained(infos, keep, mode, keep_best)


@given(histories, st.integers(1, 4), st.integers(1, 4), modes)
def test_neither_the_last_nor_the_best_is_ever_deleted(values, keep, keep_best, mode):
    infos = [info(step, value) for step, value in enumerate(values)]
    kept = retained(infos, keep, mode, keep_best)
    assert infos[-1].name in kept
    assert {i.name for i in rank_by_metric(infos, mode)[:1]} <= kept


def test_a_checkpoint_with_a_metric_takes_the_place_of_the_same_update_without_one():
    infos = [info(2, 0.5), info(4, None), info(6, None), info(6, 0.7), info(6, None)]
    infos = [dataclasses.replace(each, name=str(number)) for number, each in enumerate(infos)]
    assert retained(infos, 9, "min") == {"0", "1", "3", "4"}
    assert retained(infos, 3, "min") == {"0", "1", "3", "4"}


def test_the_best_three_are_kept_whether_or_not_the_run_was_interrupted(tmp_path):
    values = [0.5, 0.9, math.nan, 0.9, 0.7, 0.8, 0.1, 0.2]
    names = {}
    for interrupted in (False, True):
        directory = tmp_path / str(interrupted)
        checkpointer = Checkpointer(directory, keep=2, keep_best=3, mode="max")
        for step, metric in enumerate(values):
            if interrupted:
                checkpointer.close()
                checkpointer = Checkpointer(directory, keep=2, keep_best=3, mode="max")
            checkpointer.save({"w": torch.tensor(step)}, step=step, metric=metric)
        checkpointer.close()
        names[interrupted] = checkpointer.names()
        assert os.readlink(directory / "best") == "step-00000001"
    assert names[True] == names[False] == [f"step-{step:08d}" for step in (1, 3, 5, 6, 7)]


def test_retention_on_disk_with_nan_ties_and_missing_metrics(tmp_path):
    with Checkpointer(tmp_path, keep=2, mode="min") as checkpointer:
        for step, metric in enumerate([math.nan, 0.5, None, 0.5, math.nan, 0.75]):
            checkpointer.save({"params": {"w": torch.tensor(step)}}, step=step, metric=metric)
        checkpointer.wait()
        assert checkpointer.names() == ["step-00000001", "step-00000004", "step-00000005"]
        assert sorted(os.listdir(tmp_path)) == [
            "best", "last", "step-00000001", "step-00000004", "step-00000005",
        ]  # fmt: skip
        assert os.readlink(tmp_path / "last") == "step-00000005"
        assert os.readlink(tmp_path / "best") == "step-00000001"
        like = {"params": {"w": torch.tensor(0)}}
        assert checkpointer.restore(like, "best").tree["params"]["w"] == 1
        assert checkpointer.restore(like, "last").tree["params"]["w"] == 5
        assert checkpointer.restore(like, "step-00000004").tree["params"]["w"] == 4
        assert checkpointer.restore(like, tmp_path / "best").tree["params"]["w"] == 1


def test_the_same_position_is_saved_anew_not_overwritten(tmp_path):
    like = {"params": {"w": torch.tensor(0)}}
    with Checkpointer(tmp_path, keep=4) as checkpointer:
        for value, (micro_step, status) in enumerate([(1, "COMPLETE"), (0, "INTERRUPTED"), (0, "COMPLETE"), (1, "X")]):
            checkpointer.save({"params": {"w": torch.tensor(value)}}, step=5, micro_step=micro_step, status=status)
        checkpointer.wait()
        assert checkpointer.names() == [
            "step-00000005",
            "step-00000005.r1",
            "step-00000005.m1",
            "step-00000005.m1.r1",
        ]
        assert [i.status for i in checkpointer.infos()] == ["INTERRUPTED", "COMPLETE", "COMPLETE", "X"]
        assert checkpointer.restore(like).tree["params"]["w"] == 3


def test_a_checkpoint_older_than_the_kept_ones_survives_its_own_save(tmp_path):
    with Checkpointer(tmp_path, keep=1) as checkpointer:
        checkpointer.save({"w": torch.ones(1)}, step=9)
        checkpointer.save({"w": torch.ones(1)}, step=4)
        checkpointer.wait()
        assert checkpointer.names() == ["step-00000004", "step-00000009"]


def test_a_writer_sweeps_up_leftovers_and_a_reader_does_not(tmp_path):
    leftovers = [".tmp-step-00000001-ab.orbax-checkpoint-tmp", ".trash-step-00000002-cd"]
    for name in leftovers:
        (tmp_path / name / "params").mkdir(parents=True)
    (tmp_path / ".tmp-last-ef").symlink_to("step-00000001")
    (tmp_path / ".other").mkdir()
    assert Checkpointer(tmp_path, read_only=True).infos() == []
    assert len(os.listdir(tmp_path)) == 4
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"w": torch.ones(1)}, step=3)
    assert sorted(os.listdir(tmp_path)) == [".other", "last", "step-00000003"]


def test_links_are_a_convenience_that_may_be_missing_or_wrong(tmp_path):
    (tmp_path / "last").mkdir()
    (tmp_path / "best").symlink_to("nowhere")
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"w": torch.ones(1)}, step=3)
        assert checkpointer.restore({"w": torch.zeros(1)}).info.step == 3
    assert sorted(os.listdir(tmp_path)) == ["last", "step-00000003"]


@pytest.mark.parametrize(
    "arguments", [{"keep": 0}, {"keep": 1.5}, {"keep": True}, {"keep_best": 0}, {"mode": "smaller"}]
)
def test_settings_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match=r"must be"):
        Checkpointer(tmp_path, **arguments)


def test_what_a_writer_remembers_of_its_checkpoints_is_what_a_reader_reads(tmp_path, state, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    metadata = {"environment": {"torch": "2"}, "list": (1, 2), "nan": math.nan}
    with Checkpointer(tmp_path / "link", keep=3) as checkpointer:
        for step, metric in enumerate([None, 0.5, math.inf]):
            checkpointer.save(state, step=step, metric=metric, metadata=metadata)
        checkpointer.wait()
        read = Checkpointer(tmp_path / "link").infos()
        monkeypatch.setattr("functrain.checkpoint.catalogue.read_info", None)
        assert repr(checkpointer.infos()) == repr(read)
        assert len(read) == 3


def test_an_index_that_another_process_changed_is_read_again(tmp_path, state):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, step=1)
        checkpointer.wait()
        index = tmp_path / "step-00000001" / "functrain.json"
        index.write_bytes(index.read_bytes().replace(b'"step": 1', b'"step": 2'))
        assert checkpointer.infos() == []
