"""What a run's checkpoint says beside the state: typed, versioned, and today's checkpoints are still read."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.checkpoint import Checkpointer, read_info
from functrain.foundation.errors import CheckpointError
from functrain.loop.output.log_files import LogMark
from functrain.loop.resume.metadata import RunMetadata, metadata_of

# As the commit dc9dc43 wrote it, shortened where a mapping has many keys of one kind.
WRITTEN_BEFORE = """{
"environment": {"torch": "2.13.0+cpu", "threads": 2, "tf32": null, "compile": "inductor/default", "cpus": 2},
"settings": {"key": 6849197222044085364, "data": "? batches of ? (stateful)", "accumulate": 1, "tail": "short",
"clip_norm": null, "ranks": 1, "micro_batch": 16},
"described": {"optimizer": {"function": "functrain:chain.<locals>.init", "3.lr": 0.1},
"model": {"model": "Linear(in_features=2, out_features=1)"}},
"lr": 0.1, "config": {"a": 1}, "functrain": "0.1", "records": 1,
"log": {"sha256": "bc3b", "epochs": "{\\"kind\\": \\"final\\"}\\n", "unwritten": ""},
"metric_names": ["loss", "mae"], "batch_size": 4,
"stream": {"epoch": 0, "position": 2, "first_end": null,
"loader": {"n": 2, "generator": {"__tensor__": [0, 1, 2], "dtype": "uint8"}}},
"epoch": 3, "batch_idx": 2, "samples_seen": 8, "programs": {"update recorded": "ab"}, "bad_evaluations": 5}"""


def test_what_an_earlier_commit_wrote_is_read_and_written_again_as_it_was() -> None:
    values = json.loads(WRITTEN_BEFORE)
    metadata = RunMetadata.from_json(values)
    assert (metadata.epoch, metadata.batch_idx, metadata.samples_seen) == (3, 2, 8)
    assert (metadata.records, metadata.batch_size, metadata.bad_evaluations) == (1, 4, 5)
    assert metadata.metric_names == ("loss", "mae")
    assert metadata.log == LogMark("bc3b", '{"kind": "final"}\n')
    assert torch.equal(metadata.stream["loader"]["generator"], torch.arange(3, dtype=torch.uint8))
    assert (metadata.lr, metadata.micro_batch, metadata.tail) == (0.1, 16, "short")
    assert (metadata.compiled, metadata.config, metadata.functrain) == ("inductor/default", {"a": 1}, "0.1")
    assert metadata.signature is None
    assert metadata.programs == {"update recorded": "ab"}
    assert json.loads(json.dumps(metadata.to_json())) == values


@pytest.mark.parametrize("missing", ["log", "programs", "described", "bad_evaluations"])
def test_what_earlier_releases_did_not_write_has_a_default(missing: str) -> None:
    values = json.loads(WRITTEN_BEFORE)
    del values[missing]
    assert getattr(RunMetadata.from_json(values), missing) == getattr(RunMetadata(), missing)


def test_a_newer_version_is_refused_with_the_way_out(tmp_path: Path) -> None:
    values = json.loads(WRITTEN_BEFORE) | {"metadata_version": 2, "records": "in another file"}
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save({"w": torch.zeros(2)}, step=1, metadata=values)
    message = r"step-00000001: the metadata have version 2, this functrain reads version 1: read the checkpoint with"
    with pytest.raises(CheckpointError, match=message):
        metadata_of(read_info(tmp_path / "step-00000001"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", "3"),
        ("records", None),
        ("batch_size", True),
        ("settings", []),
        ("lr", "0.1"),
        ("metric_names", "loss"),
    ],
)
def test_what_no_run_writes_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"the metadata hold {name}="):
        RunMetadata.from_json(json.loads(WRITTEN_BEFORE) | {name: value})


@pytest.mark.parametrize("changes", [{"log": {"sha512": ""}}, {"stream": {"__tensor__": [1], "dtype": "no"}}])
def test_what_is_inside_is_checked_too(changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="the metadata are not those of a run"):
        RunMetadata.from_json(json.loads(WRITTEN_BEFORE) | changes)


def make_state() -> ft.TrainState:
    torch.manual_seed(0)
    return ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))


DATA = [(torch.ones(4, 2), torch.zeros(4, 1)), (torch.zeros(4, 2), torch.ones(4, 1))]


def test_a_run_goes_on_from_a_checkpoint_that_no_run_wrote(tmp_path: Path, bits: Any) -> None:
    options: Any = {"compile": False, "progress": False}
    state = ft.fit(make_state(), DATA, epochs=1, **options).state
    with Checkpointer(tmp_path / "by_hand") as checkpointer:
        checkpointer.save(state, step=2, metadata={"mine": "kept", "epoch": "the first"})
    path = tmp_path / "by_hand" / "step-00000002"
    assert metadata_of(read_info(path)) == RunMetadata(own={"mine": "kept"})
    result = ft.fit(make_state(), DATA, epochs=2, run_dir=tmp_path / "run", resume=str(path), **options)
    assert bits(result.state) == bits(ft.fit(make_state(), DATA, epochs=2, **options).state)


def test_metadata_of_the_callers_own_are_kept_and_cannot_take_a_name_of_the_runs(tmp_path: Path) -> None:
    options: Any = {"epochs": 1, "compile": False, "progress": False, "run_dir": tmp_path / "run"}
    with pytest.raises(ValueError, match=r"metadata must not have the keys 'epoch', 'lr': a run writes them itself"):
        ft.fit(make_state(), DATA, metadata={"epoch": 3, "lr": 1, "mine": 1}, **options)
    assert not (tmp_path / "run").exists()
    ft.fit(make_state(), DATA, metadata={"mine": [1, 2]}, **options)
    info = read_info(tmp_path / "run" / "checkpoints" / "last")
    assert info.metadata["mine"] == [1, 2]
    assert metadata_of(info).own == {"mine": [1, 2]}
