"""The laws of states in shards: the same bits under every strategy, on any number of ranks, in one process too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import functrain as ft
from functrain import optim
from functrain.diagnostics.fake_ranks import fake_world
from functrain.distributed import World, gather_state, messages, sharding, shards
from functrain.distributed.elementwise import is_elementwise
from functrain.distributed.layout import Cut, cut_of
from functrain.foundation.trees import tensors
from functrain.loop.output.log_files import read_records
from functrain.optim import apply_updates
from functrain.step.network import Network
from functrain.step.to_module import to_evaluate
from functrain.step.tree import carried, folded, sum_in_order, sum_in_tree, tree_over_rows

DIGESTS, TRAINING = (Path(__file__).with_name(f"{name}_process.py") for name in ("digests", "sharded"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def small_state(**options):
    return ft.init_state(nn.Sequential(nn.Linear(6, 3)), ft.classification(), optim.adamw(0.01), **options)


@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_a_leaf_is_put_together_from_its_shards(rows, chunks, ranks, is_matrix):
    ranks = min(chunks, ranks)
    leaf = torch.randn(rows, 3) if is_matrix else torch.randn(rows)
    cut = Cut(rows, chunks, ranks)
    shards = torch.stack([cut.own(leaf, rank) for rank in range(ranks)])
    assert torch.equal(cut.whole(shards), leaf)
    assert torch.equal(shards.flatten(0, 1), cut.padded(leaf))
    in_pieces = [cut.chunks_of(shards[rank], rank * chunks // ranks, chunks // ranks) for rank in range(ranks)]
    for piece, expected in zip(
        (p for pieces in in_pieces for p in pieces), cut.chunks_of(leaf, 0, chunks), strict=True
    ):
        assert torch.equal(piece, expected)


@given(st.sampled_from([1, 2, 4, 8, 16]), st.data())
def test_the_tree_of_a_window_is_the_same_however_many_ranks_share_it(window, data):
    length = data.draw(st.integers(1, window))
    ranks = data.draw(st.sampled_from([n for n in (1, 2, 4, 8, 16) if n <= window]))

    def add(left, right):
        return f"({left}+{right})"

    def of_rank(numbers):
        parts = ()
        for done, number in enumerate(numbers):
            parts = carried(parts, str(number), done, add)
        return folded(parts, add) if parts else None

    share = window // ranks
    own = [[n for n in range(rank * share, (rank + 1) * share) if n < length] for rank in range(ranks)]
    assert sum_in_tree([of_rank(numbers) for numbers in own], add) == of_rank(range(length))


def test_sums_in_order_and_in_a_tree_of_rows():
    values = torch.randn(8, 3)
    assert torch.equal(tree_over_rows(values), sum_in_tree(list(values), torch.add))
    assert torch.equal(sum_in_order([values[0], None, values[1]], torch.add), values[0] + values[1])
    with pytest.raises(ValueError, match="nothing to add"):
        sum_in_tree([None, None], torch.add)


@pytest.mark.parametrize("name", sorted(optim.REGISTRY))
def test_an_optimizer_that_is_taken_for_elementwise_gives_halves_the_bits_of_the_whole(name):
    optimizer = optim.REGISTRY[name](0.01)
    params = {"w": torch.randn(8, 5), "b": torch.randn(8)}
    if not is_elementwise(optimizer, params):
        assert name in ("adafactor", "lamb", "muon")
        return

    def train(part):
        held = {key: value[part] for key, value in params.items()}
        state = optimizer.init(held)
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            grads = {key: torch.randn(value.shape, generator=generator) for key, value in params.items()}
            updates, state = optimizer.update({key: g[part] for key, g in grads.items()}, state, held)
            held = apply_updates(held, updates)
        return held

    whole, first, second = train(slice(None)), train(slice(4)), train(slice(4, None))
    for key, value in whole.items():
        assert torch.equal(torch.cat([first[key], second[key]]), value)


def test_an_optimizer_that_looks_at_other_elements_is_not_elementwise():
    params = {"w": torch.zeros(4, 4)}
    for each in (optim.clip_by_global_norm(1.0), optim.stateless(lambda updates, _: {"w": updates["w"].flip(0)})):
        assert not is_elementwise(optim.chain(each, optim.sgd(0.1)), params)
    assert is_elementwise(optim.chain(optim.clip_by_value(1.0), optim.sgd(0.1, momentum=0.9)), params)


def test_in_one_process_fast_sums_have_the_bits_of_an_ordinary_state():
    batches = [(torch.randn(4, 6), torch.randint(0, 3, (4,))) for _ in range(4)]
    ordinary = small_state(accumulate=2, seed=1)
    sharded = ft.shard(ordinary, strategy="zero1")
    for batch in batches:
        ordinary, metrics = ft.train_step(ordinary, batch)
        sharded, found = ft.train_step(sharded, batch)
        assert {name: value.item() for name, value in found.items()} == {n: v.item() for n, v in metrics.items()}
    assert ft.digest(sharded) == ft.digest(ordinary)


def test_exact_sums_are_those_of_one_large_batch_up_to_rounding():
    batches = [(torch.randn(n, 6), torch.randint(0, 3, (n,))) for n in (4, 2, 1, 3)]
    whole, one = small_state(precision="fp64"), small_state(precision="fp64", accumulate=4)
    one = ft.shard(one.replace(params=whole.params), reduction="exact")
    for batch in batches:
        one, metrics = ft.train_step(one, batch)
    whole, expected = ft.train_step(whole, tuple(map(torch.cat, zip(*batches, strict=True))))
    # 10 terms of a sum, rounded to 2^-53 each; Adam's first step divides by a root that is about its numerator.
    for name in ("loss", "grad_norm"):
        torch.testing.assert_close(metrics[name], expected[name], rtol=1e-14, atol=0)
    torch.testing.assert_close(one.params, whole.params, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_a_state_within_a_window_is_not_changed_by_the_steps_from_it(reduction):
    """Also where the gradients of two parameters are one tensor, or one number for all elements."""

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (nn.Parameter(torch.randn(4, 4)) for _ in range(3))

        def forward(self, inputs):
            return inputs @ (self.one + self.two) + self.three.sum()

    made = ft.init_state(Sums(), ft.regression(), optim.adamw(0.01), accumulate=4)
    state, alone = ft.shard(made, reduction=reduction), made
    batches = [(torch.randn(4, 4), torch.randn(4, 4)) for _ in range(4)]
    states = [state]
    for batch in batches:
        states.append(ft.train_step(states[-1], batch)[0])
        alone, _ = ft.train_step(alone, batch)
    torch.testing.assert_close(states[-1].params, alone.params)
    for start in range(4):
        again = states[start]
        for batch in batches[start:]:
            again, _ = ft.train_step(again, batch)
        assert ft.digest(again) == ft.digest(states[-1])


def test_a_state_within_a_window_is_saved_as_of_its_start():
    state = ft.shard(small_state(accumulate=4), reduction="exact")
    batch = (torch.randn(4, 6), torch.randint(0, 3, (4,)))
    for _ in range(2):
        state, _ = ft.train_step(state, batch)
    assert (state.batch_idx, state.samples_seen, state.micro_step) == (2, 8, 2)
    saved = ft.unshard(state)
    assert (saved.batch_idx, saved.samples_seen, saved.micro_step) == (0, 0, 0)
    again = ft.shard(saved, reduction="exact")
    for _ in range(4):
        again, _ = ft.train_step(again, batch)
    for _ in range(2):
        state, _ = ft.train_step(state, batch)
    assert ft.digest(again) == ft.digest(state)


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({}, {"strategy": "zero4"}, "strategy must be one of ddp, zero1, zero2, zero3; got 'zero4'"),
        ({}, {"reduction": "sum"}, "reduction must be one of fast, exact; got 'sum'"),
        ({"accumulate": 6}, {"reduction": "exact"}, "a power of two.*got accumulate=6 and 1 processes"),
        ({}, {"blocks": "0"}, "blocks are gathered from the shards of zero3; got blocks with strategy='ddp'"),
        ({}, {"blocks": "x", "strategy": "zero3"}, "blocks: the pattern 'x' names no module"),
        ({}, {"mesh": 2}, "the mesh has 2 processes, and 1 were started"),
        ({}, {"mesh": {"dp": 1, "tp": 2}}, "the mesh has 2 processes"),
        ({"statistics": "module"}, {}, "statistics of layers are those of one process"),
    ],
)
def test_what_cannot_be_sharded_is_refused(options, arguments, words):
    with pytest.raises(ValueError, match=words):
        ft.shard(small_state(**options), **arguments)


def test_statistics_of_all_processes_are_refused_for_exact_sums():
    model = nn.Sequential(nn.Linear(6, 3), nn.SyncBatchNorm(3))
    state = ft.init_state(model, ft.classification(), optim.adamw(0.01), accumulate=2)
    with pytest.raises(ValueError, match=r"SyncBatchNorm \(1\) takes the statistics of the examples that all"):
        ft.shard(state, reduction="exact")


def test_an_optimizer_that_takes_two_gradients_is_refused():
    state = ft.init_state(nn.Linear(6, 3), ft.classification(), optim.sam(optim.sgd(0.1)))
    with pytest.raises(ValueError, match="needs the batch of an update whole"):
        ft.shard(state)


def test_a_leaf_with_few_rows_stays_whole():
    assert cut_of(torch.zeros(()), 2, 2) is None
    assert cut_of(torch.zeros(3), 4, 2) is None
    assert cut_of(torch.zeros(4), 4, 2) == Cut(4, 4, 2)


@pytest.mark.parametrize(("ema", "expected"), [(False, 1), (True, 2)])
def test_an_evaluation_gathers_parameters_and_averages_and_no_moments(ema, expected, monkeypatch):
    sent = []

    def gathered(shard, ranks, _):
        sent.append(shard)
        return torch.stack([shard] * ranks)

    monkeypatch.setattr(sharding, "current_world", lambda: World(0, 2))
    monkeypatch.setattr(sharding, "replicate", lambda state, _: state)
    monkeypatch.setattr(messages, "gathered", gathered)
    model = nn.Linear(6, 4)
    made = ft.init_state(model, ft.classification(), optim.adamw(0.01), ema_decay=0.9)
    state = to_evaluate(ft.shard(made, strategy="zero3"), ema=ema)
    assert {name: leaf.shape for name, leaf in state.params.items()} == {n: p.shape for n, p in made.params.items()}
    assert sum(leaf.numel() for leaf in sent) == expected * sum(p.numel() for p in model.parameters()) // 2


def test_for_a_checkpoint_process_0_alone_gets_whole_leaves(monkeypatch):
    monkeypatch.setattr(sharding, "replicate", lambda state, _: state)
    made = ft.init_state(nn.Linear(6, 4), ft.classification(), optim.adamw(0.01), ema_decay=0.9)
    for rank in range(2):
        monkeypatch.setattr(sharding, "current_world", lambda rank=rank: World(rank, 2))
        monkeypatch.setattr(messages.dist, "gather", lambda own, every, **_: [each.copy_(own) for each in every or ()])
        state = ft.shard(made, strategy="zero3")
        saved = gather_state(state, on_first=True)
        expected = made if rank == 0 else state
        assert [leaf.shape for leaf in tensors(saved)] == [leaf.shape for leaf in tensors(expected)]


def test_parameters_of_blocks_are_those_that_nothing_else_has():
    tied, model = nn.Linear(4, 4), nn.ModuleDict({"head": nn.Linear(4, 4)})
    model["layers"] = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), tied), nn.Sequential(tied)])
    network, names = Network(model).with_blocks("layers.*")
    assert names == {"layers.0.0.weight", "layers.0.0.bias"}
    assert network.plain.with_blocks("layers.0")[1] == names | set()


@pytest.mark.parametrize("strategy", ft.distributed.STRATEGIES)
@pytest.mark.parametrize("reduction", ["fast", "exact"])
def test_a_window_of_zero2_and_zero3_keeps_shards_of_the_gradients_where_sums_are_fast(strategy, reduction):
    """Rank 0 of four: what it would get from the others is not sent. A leaf of three rows stays whole."""
    with fake_world(4):
        wide = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
        made = ft.init_state(wide, ft.classification(), optim.adamw(0.01), accumulate=8)
        state = ft.shard(made, strategy=strategy, reduction=reduction)
        state, _ = ft.train_step(state, (torch.randn(4, 6), torch.randint(0, 3, (4,))))
        grads = state.accumulator.open.parts[0].grads
        is_shard = reduction == "fast" and strategy in ("zero2", "zero3")
        assert list(grads) == list(made.params)
        assert [len(grad) for grad in grads.values()] == ([2, 2, 3, 3] if is_shard else [8, 8, 3, 3])
        if is_shard:
            with pytest.raises(ValueError, match="whose gradients are summed with each micro-batch"):
                ft.train_step(state, None, end_window=True)


def test_a_model_that_reads_the_parameters_of_a_block_elsewhere_gets_nan(monkeypatch):
    cut = Cut(4, 4, 2)
    stand_in = shards._stand_in(torch.zeros(2, 3), cut)
    assert stand_in.shape == (4, 3)
    assert stand_in.untyped_storage().nbytes() == 4
    assert stand_in.isnan().all()


def test_a_process_without_a_micro_batch_is_refused_where_passes_gather():
    state = ft.shard(small_state(accumulate=2), strategy="zero3", reduction="exact", blocks="0")
    with pytest.raises(ValueError, match="a process without a micro-batch cannot take part"):
        ft.train_step(state, None, end_window=True)


def run_digests(out: Path, ranks: int, *compiled: str) -> list[dict[str, str]]:
    command = [sys.executable, str(DIGESTS), str(out), str(ranks), *compiled]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)
    assert found.returncode == 0, found.stderr
    return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(ranks)]


def check_one_digest(found: dict[str, str]) -> None:
    """Each optimizer has one, whatever the strategy."""
    by_optimizer: dict[str, set[str]] = {}
    for name, each in found.items():
        by_optimizer.setdefault(name.split()[0], set()).add(each)
    assert all(len(each) == 1 for each in by_optimizer.values()), found


def test_strategies_and_ranks_have_one_digest(tmp_path: Path) -> None:
    [alone] = run_digests(tmp_path / "1", 1)
    check_one_digest(alone)
    assert run_digests(tmp_path / "2", 2) == [alone] * 2

    # Parameters that are gathered for a block at a time: two processes never have two blocks of eight at once.
    [whole], *gathered = [[json.loads((tmp_path / f"{n}.blocks.{r}").read_text()) for r in range(n)] for n in (1, 2)]
    for each in gathered[0]:
        assert each["digest layers.*"] == each["digest ()"] == whole["digest ()"] == whole["digest layers.*"]
        assert each["peak ()"] > 0.99
        assert each["peak layers.*"] < 1 / 8

    # Fast sums of the same rows in another order, in float64: some 2^-50 each; Adam's quotients keep that for gradients
    # that are not near 0, and so do three updates.
    # So are the statistics of all processes' examples.
    for kind in ("fast", "synchronised"):
        by_strategy = json.loads((tmp_path / f"1.{kind}.0").read_text())
        for rank in range(2):
            for strategy, numbers in json.loads((tmp_path / f"2.{kind}.{rank}").read_text()).items():
                torch.testing.assert_close(
                    torch.tensor(numbers, dtype=torch.float64),
                    torch.tensor(by_strategy[strategy], dtype=torch.float64),
                    rtol=1e-12,
                    atol=1e-12,
                )


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [(), ("aot_eager",)])
def test_four_ranks_and_compiled_steps_have_the_same_digest(tmp_path: Path, compiled: tuple[str, ...]) -> None:
    [alone] = run_digests(tmp_path / "1", 1)
    for ranks in (1, 2, 4):
        assert run_digests(tmp_path / f"{ranks}{compiled}", ranks, *compiled) == [alone] * ranks


@pytest.mark.slow
def test_steps_by_inductor_have_one_digest(tmp_path: Path) -> None:
    """Of their own: a fused kernel rounds in other places than operations one by one."""
    [alone] = run_digests(tmp_path / "1", 1, "inductor", "adamw")
    check_one_digest(alone)
    assert run_digests(tmp_path / "2", 2, "inductor", "adamw") == [alone] * 2


def test_a_run_that_is_stopped_goes_on_with_other_ranks_and_another_strategy(tmp_path: Path) -> None:
    """Logs have the digest of every update, and all metrics: they are equal."""
    alone, run = tmp_path / "alone", tmp_path / "run"
    runs = [f"1,{alone},ddp", f"2,{run},zero3,15,5", f"1,{run},ddp,15,9", f"2,{run},zero1"]
    command = [sys.executable, str(TRAINING), *runs]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout.splitlines()[-1]) == [[0], [143, 143], [143], [0, 0]], found.stderr
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("alone", "run")]
    assert logs[0] == logs[1]
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1]["digest"]
