"""`functrain plan`: what a run on many processes takes."""

import json

import pytest

from functrain.diagnostics.fake_ranks import Messages, fake_world
from functrain.diagnostics.planning import Rates
from functrain.foundation.errors import FunctrainError

WIDE = "model.width=256"
FEW = ["data.batch_size=16", "training.accumulate=2"]


def planned(functrain, *arguments):
    code, out, err = functrain("plan", "tiny.yaml", "--json", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_facts_are_printed_and_nothing_is_written(functrain, project):
    before = sorted(project.rglob("*.*"))
    code, out, err = functrain("plan", "tiny.yaml", "--world", "4", "distributed.strategy=zero1", *FEW)
    assert (code, err) == (0, "")
    assert out.startswith("tiny: zero1, fast sums\n")
    assert "processes   4, each with 2 micro-batches an update; 32 examples for all together\n" in out
    assert "assumed     400 TFLOP/s, 50 GB/s and 10 us a message to the next process, no overlap\n" in out
    assert [path for path in sorted(project.rglob("*.*")) if "__pycache__" not in str(path)] == before


def test_bytes_and_times_follow_from_the_world_and_the_rates(functrain, project):
    of = {
        world: planned(functrain, "--world", str(world), "distributed.strategy=zero3", WIDE, *FEW)
        for world in (1, 2, 4)
    }
    assert of[1]["sent"] == []
    assert of[1]["flops"] == 2 * of[2]["flops"] == 4 * of[4]["flops"]
    [one], [two] = ([each for each in of[n]["sent"] if each["kind"] == "all-to-all"] for n in (2, 4))
    # 8,204 bytes of gradients, which zero3 sends for each of 2 micro-batches. Of 2 processes, the leaf of 3 rows is cut
    # into 2 x 2; of 4 it stays whole with its bias, and both are all-reduced.
    expected = (8204, 2 * (8208 + 1024) // 2, 2 * (8204 - 3084) * 3 // 4)
    assert (of[1]["memory"]["gradients"], one["nbytes"], two["nbytes"]) == expected
    slow = planned(functrain, "--world", "2", "distributed.strategy=zero3", *FEW, "--link-gbytes", "0.001")
    count = sum(each["messages"] for each in slow["sent"])
    nbytes = sum(each["nbytes"] for each in slow["sent"])
    assert slow["messages_s"] == pytest.approx(count * 10e-6 + nbytes / 1e6)
    assert slow["update_s"] == pytest.approx(slow["messages_s"] + slow["flops"] / 400e12)


def test_a_plan_for_gpus_needs_none(functrain, project):
    assert planned(functrain, "--world", "2", "training.device=cuda") == planned(functrain, "--world", "2")


def test_it_can_be_trained_after_a_plan_in_the_same_process(functrain, project):
    planned(functrain, "--world", "4", *FEW)
    assert functrain("train", "tiny.yaml", "--no-progress", "training.epochs=1")[0] == 0


def test_a_replica_sends_each_gradient_twice_around_the_ring(functrain, project):
    found = planned(functrain, "--world", "8", "data.batch_size=16", WIDE)
    [sent] = found["sent"]
    nbytes = found["memory"]["gradients"] + found["memory"]["buffers"]  # BatchNorm's statistics are averaged
    assert sent["kind"] == "all-reduce"
    assert 2 * 7 / 8 * nbytes <= sent["nbytes"] <= 2 * 7 / 8 * (nbytes + 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "0"], "argument --world: '0' must be a whole number, 1 or more"),
        (["--world", "4", "--link-gbytes", "0"], "argument --link-gbytes: '0' must be a number above 0"),
        (["--world", "1000"], "data.batch_size: 1000 processes cannot share a micro-batch of 8 examples: set at least"),
        (["--world", "3", "distributed.reduction=exact"], "distributed.shards: 3 processes cannot share 8 parts of a"),
        (
            ["--world", "2", "distributed.mesh={dp: 4}"],
            "distributed.mesh: dp=4 does not fit: the mesh has 4 processes, and 2 were started",
        ),
        ([], "the following arguments are required: --world"),
    ],
)
def test_mistakes_are_one_message(functrain, project, arguments, message):
    code, out, err = functrain("plan", "tiny.yaml", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_plan_is_not_made_by_one_of_several_processes():
    with fake_world(2), pytest.raises(FunctrainError, match="a plan is made in one process"), fake_world(2):
        pass


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the names of collectives in torch 2.13
def test_a_ring_sends_what_arithmetic_says():
    """Of n bytes on W processes: an all-gather sends (W - 1) n, a reduce-scatter (W - 1) n / W, an all-reduce twice."""
    import torch
    import torch.distributed as dist

    part, whole = torch.zeros(6), torch.zeros(24)
    with fake_world(4), Messages(4) as messages:
        dist.all_gather_into_tensor(whole, part)
        dist.all_to_all_single(torch.empty(24), whole)
        dist.all_reduce(whole)
        dist.reduce_scatter_tensor(part, whole)
    assert [(each.kind, each.nbytes) for each in messages.sent] == [
        ("all-gather", 3 * 24),
        ("all-to-all", 72),
        ("all-reduce", 2 * 72),
        ("reduce-scatter", 72),
    ]
    assert Rates().link_gbytes == 50
