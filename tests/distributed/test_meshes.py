"""The laws of meshes: how many processes they need, and hybrid sharding, whose bits are those of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from functrain.distributed import World
from functrain.distributed.mesh import Sizes, sizes_of

PROCESS = Path(__file__).with_name("meshes_process.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def run(out: Path, ranks: int, function: str) -> list[dict]:
    command = [sys.executable, str(PROCESS), str(out), str(ranks), function]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stderr
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(ranks)]


def device_mesh(names, shape, numbers=None):
    numbers = range(torch.Size(shape).numel()) if numbers is None else numbers
    return SimpleNamespace(mesh_dim_names=names, mesh=torch.tensor(list(numbers)).view(shape))


@pytest.mark.parametrize(
    ("mesh", "expected"),
    [
        (None, Sizes(1, 8, 1)),
        (8, Sizes(1, 8, 1)),
        ({"dp": 8}, Sizes(1, 8, 1)),
        ({"dp": 4, "tp": 2}, Sizes(1, 4, 2)),
        ({"dp_replicate": 4}, Sizes(4, 2, 1)),
        ({"dp_shard": 4, "tp": None}, Sizes(2, 4, 1)),
        ({"dp": 4, "dp_shard": 2, "tp": 2}, Sizes(2, 2, 2)),
        (device_mesh(None, (8,)), Sizes(1, 8, 1)),
        (device_mesh(("dp_replicate", "dp_shard"), (2, 4)), Sizes(2, 4, 1)),
        (device_mesh(("dp", "tp"), (4, 2)), Sizes(1, 4, 2)),
    ],
)
def test_what_a_mesh_leaves_out_follows_from_the_number_of_processes(mesh, expected):
    assert sizes_of(mesh, World(0, 8)) == expected


@pytest.mark.parametrize(
    ("mesh", "words"),
    [
        (2, "the mesh has 2 processes, and 8 were started"),
        ({"dp_shard": 3}, r"the mesh has 6 processes \(dp_replicate 2 x dp_shard 3 x tp 1\), and 8 were started"),
        ({"dp": 8, "dp_replicate": 2, "dp_shard": 2}, "dp is dp_replicate x dp_shard; the mesh has dp=8 and 2 x 2"),
        ({"tp": 16}, "the mesh has 16 processes"),
        ({"pp": 2}, "a mesh has the dimensions dp, dp_replicate, dp_shard, tp; got pp"),
        ({"dp_shard": 0}, "whole numbers of at least 1; got dp_shard=0"),
        (device_mesh(("tp", "dp"), (2, 4)), "in this order"),
        (device_mesh(("dp", "tp"), (2, 4), [*range(4, 8), *range(4)]), "and the processes in theirs"),
    ],
)
def test_a_mesh_that_does_not_fit_the_processes_is_refused(mesh, words):
    with pytest.raises(ValueError, match=words):
        sizes_of(mesh, World(0, 8))


def test_groups_of_shards_have_the_bits_of_one_process(tmp_path: Path) -> None:
    """Also where the last group has no micro-batch of a window."""
    [alone] = run(tmp_path / "1", 1, "hybrid_digests")
    assert run(tmp_path / "4", 4, "hybrid_digests") == [alone] * 4


def test_fast_sums_over_groups_are_those_of_one_process_up_to_rounding(tmp_path: Path) -> None:
    [alone] = run(tmp_path / "1", 1, "hybrid_fast")
    for found in run(tmp_path / "4", 4, "hybrid_fast"):
        for strategy, numbers in found.items():  # some 2^-50 each, which Adam's quotients and three updates keep
            torch.testing.assert_close(
                torch.tensor(numbers, dtype=torch.float64),
                torch.tensor(alone[strategy], dtype=torch.float64),
                rtol=1e-12,
                atol=1e-12,
            )


def test_a_process_keeps_its_groups_share_of_a_state(tmp_path: Path) -> None:
    for found in run(tmp_path / "4", 4, "hybrid_bytes"):
        assert found == {"hybrid": found["whole"] // 2, "all": found["whole"] // 4, "whole": 4 * (64 * 64 + 64)}


def check_near(found: dict, alone: dict) -> None:
    """Sums of the same terms in another order, in float64: some 2^-50 each, which Adam's quotients keep."""
    for case, numbers in found.items():
        name, _, optimizer, _ = case.split()
        expected = torch.tensor(alone[f"{name}  {optimizer} None"], dtype=torch.float64)
        torch.testing.assert_close(torch.tensor(numbers, dtype=torch.float64), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_layers_in_slices_have_the_updates_of_one_process(tmp_path: Path, ranks: int) -> None:
    [alone] = run(tmp_path / "1", 1, "sliced")
    for found in run(tmp_path / str(ranks), ranks, "sliced"):
        check_near(found, alone)


def test_exact_sums_of_sliced_layers_have_the_same_bits_on_any_number_of_processes(tmp_path: Path) -> None:
    two = run(tmp_path / "2", 2, "sliced_exact")
    assert run(tmp_path / "4", 4, "sliced_exact") == [*two, *two]


def test_a_run_with_sliced_layers_is_that_of_one_process_and_goes_on_with_others(tmp_path: Path) -> None:
    """Data, evaluations, metrics and checkpoints: 2 epochs by two slices, one more by two whole networks."""
    [alone] = run(tmp_path / "1", 1, f"sliced_run,{tmp_path}/alone,3,1")
    runs = [run(tmp_path / f"tp{tp}", 2, f"sliced_run,{tmp_path}/run,{epochs},{tp}") for epochs, tp in ((2, 2), (3, 1))]
    for found in runs[1]:
        assert found["samples"] == alone["samples"]
        torch.testing.assert_close(torch.tensor(found["params"]), torch.tensor(alone["params"]), rtol=1e-11, atol=1e-12)
    for found in runs[0]:
        assert [row.keys() for row in found["history"]] == [row.keys() for row in alone["history"][:2]]
        for row, expected in zip(found["history"], alone["history"], strict=False):
            for name in ("train_loss", "train_f1", "eval_loss", "eval_f1", "ema_loss"):
                assert row[name] == pytest.approx(expected[name], rel=1e-11), name


def test_a_process_keeps_its_slices_of_a_state(tmp_path: Path) -> None:
    for found in run(tmp_path / "2", 2, "sliced_bytes"):
        assert found == {"params": found["whole"] // 2 + 64 * 4 // 2, "whole": 2 * (64 * 64 + 64) * 4}


def test_a_pass_whose_layers_send_is_not_compiled(tmp_path: Path) -> None:
    assert run(tmp_path / "2", 2, "sliced_programs") == [["apply"]] * 2


def test_a_plan_that_a_step_shows_to_be_wrong_is_refused(tmp_path: Path) -> None:
    for found in run(tmp_path / "2", 2, "wrong_plans"):
        assert "the gradient of 'scale' differs between the processes" in found["inside"]
        assert "the row layer 'second' takes the features of a column layer before it" in found["row"]
        assert "module 'second'" in found["column"]
        assert "have different losses for the same examples" in found["last"]
