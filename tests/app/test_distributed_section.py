"""The section `distributed`: each bad value is one message, and the parts of a batch are as many examples as it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from functrain.app.config.build import build_state, build_training_loader, run_length
from functrain.app.config.cutting import in_parts
from functrain.app.config.loading import load_config
from functrain.app.runs.sharing import check_sharing, shared_again
from functrain.distributed import World
from functrain.foundation.errors import ConfigError

EXACT = "distributed.reduction=exact"
REFUSED = {
    "distributed.strategy=zero4": "must be 'ddp', 'zero1', 'zero2' or 'zero3'; got 'zero4'",
    "distributed.reduction=exakt": "must be 'exact' or 'fast'; got 'exakt'",
    "distributed.backend=mpi": "must be 'auto', 'gloo' or 'nccl'; got 'mpi'",
    "distributed.offload_optimizer=nvme": "must be 'cpu'; got 'nvme'",
    f"{EXACT} distributed.sync_batchnorm=true": "has sync_batchnorm, whose bits depend on the number of processes: set",
    "distributed.blocks=[layers.*]": "has blocks, which are gathered from the shards of zero3; its strategy is ddp",
    "distributed.timeout_s=0": "distributed.timeout_s must be greater than 0; got 0",
    "distributed.timeout_s=soon": "distributed.timeout_s must be a number; got 'soon'",
    "distributed.mesh=4": "distributed.mesh must be a section with keys of its own (dp, dp_replicate, dp_shard, ",
    "distributed.mesh={dp: 0}": "distributed.mesh.dp must be greater than or equal to 1; got 0",
    "distributed.mesh={pp: 2}": "unknown key 'pp' in distributed.mesh; did you mean 'dp'? allowed: dp, ",
    "distributed.mesh={tp: 2}": "has mesh.tp=2 and no patterns in tensor_parallel: processes that share layers need",
    "distributed.tensor_parallel={'*.feed.0': column}": "has mesh.tp=1 and 1 patterns in tensor_parallel",
    "distributed.mesh={dp_shard: 2}": "has mesh.dp_shard, processes that share a state's shards, and its strategy ddp",
    "distributed=zero3": "distributed must be a section with keys of its own (strategy, ",
    "distributed.shard=8": "unknown key 'shard' in distributed; did you mean 'shards'?",
    "distributed.shards=8": "has shards, the parts that an exact reduction adds up: set reduction to exact, or shards",
    f"{EXACT} distributed.shards=0": "distributed.shards must be greater than or equal to 1; got 0",
    f"{EXACT} distributed.shards=6": "has 6 shards, which are added up in pairs: choose a power of two, 1, 2, 4, 8, ..",
    f"{EXACT} data.batch_size=12": "a batch of 12 examples cannot be cut in 8 equal parts (distributed.shards, of "
    "reduction: exact): choose a multiple of 8, such as 16, or other shards",
    f"{EXACT} training.accumulate=6": "it must be a power of two, got 6: choose 4 or 8, or reduction: fast",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_bad_value_is_one_message(functrain, project, overrides):
    words = [overrides] if "{" in overrides else overrides.split()
    for command in ("config", "train"):
        code, out, err = functrain(command, "tiny.yaml", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert REFUSED[overrides] in err


@pytest.mark.parametrize(
    ("overrides", "ranks", "message"),
    [
        (
            ["distributed.mesh={dp: 4}"],
            2,
            "distributed.mesh: dp=4 does not fit: the mesh has 4 processes, and 2 were started. Start",
        ),
        (
            [EXACT],
            3,
            "distributed.shards: 3 processes cannot share 8 parts of a batch evenly: start 1, 2, 4, ... up to",
        ),
        ([EXACT], 16, "16 processes cannot share 8 parts of a batch evenly"),
        ([EXACT, "distributed.shards=2"], 4, "4 processes cannot share 2 parts of a batch evenly"),
    ],
)
def test_a_number_of_processes_that_does_not_fit_is_one_message(project, overrides, ranks, message):
    config = load_config("tiny.yaml", overrides)
    with pytest.raises(ConfigError) as caught:
        check_sharing(config, World(0, ranks))
    assert message in str(caught.value)


@pytest.mark.parametrize(("ranks", "overrides"), [(3, []), (1, [EXACT]), (2, [EXACT]), (8, [EXACT])])
def test_a_number_of_processes_that_fits_passes(project, ranks, overrides):
    check_sharing(load_config("tiny.yaml", overrides), World(0, ranks))


def test_one_process_trains_again_what_a_mesh_of_shards_trained_and_refuses_slices(project):
    config = load_config("tiny.yaml", [EXACT, "distributed.strategy=zero3", "distributed.mesh={dp_shard: 2, dp: 4}"])
    state = build_state(config, run_length(config, build_training_loader(config)))
    assert shared_again(state, config, None).recipe.exchange.processes == 1
    sliced = load_config("tiny.yaml", [EXACT, "distributed={mesh: {tp: 2}, tensor_parallel: {'0': column}}"])
    with pytest.raises(ConfigError, match="tp=2 processes shared the layers of this run"):
        shared_again(state, sliced, None)


def test_batchnorm_of_all_processes_is_one_key(project):
    overrides = ["model={name: cnn, in_channels: 1, num_classes: 2, widths: [4]}"]
    for extra, kind in (([], nn.BatchNorm2d), (["distributed.sync_batchnorm=true"], nn.SyncBatchNorm)):
        config = load_config("tiny.yaml", [*overrides, *extra])
        modules = [module for _, module in build_state(config, length=None).recipe.network.given()]
        assert {type(module) for module in modules if isinstance(module, nn.modules.batchnorm._BatchNorm)} == {kind}


POWERS = st.sampled_from([1, 2, 4, 8, 16])


@given(shards=POWERS, rows=st.integers(1, 9), accumulate=POWERS, limit=st.none() | st.integers(1, 5))
def test_parts_of_batches_are_as_many_examples_in_as_many_updates(base, shards, rows, accumulate, limit):
    config = load_config(
        base,
        [
            f"data.batch_size={rows * shards}",
            f"training.accumulate={accumulate}",
            f"training.limit_batches={'null' if limit is None else limit}",
            EXACT,
            f"distributed.shards={shards}",
        ],
    )
    parts = in_parts(config)
    assert parts.data.batch_size == rows
    assert parts.data.batch_size * parts.training.accumulate == config.data.batch_size * accumulate
    assert (parts.data.eval_batch_size or parts.data.batch_size) == config.data.batch_size
    assert parts.training.limit_batches == (None if limit is None else limit * shards)
    assert in_parts(config.model_copy(update={"distributed": base_section(config)})).data == config.data


def base_section(config):
    return config.distributed.model_copy(update={"reduction": "fast", "shards": None})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.yaml"
    path.write_text(
        "model: {name: digits_cnn}\ndata: {name: digits}\nobjective: {name: classification}\n"
        "optimizer: {name: sgd, lr: 0.1}\ntraining: {epochs: 1}\n"
    )
    return path


def test_a_run_has_as_many_updates_in_parts_as_in_whole_batches(project):
    lengths = [
        run_length(config, build_training_loader(config))
        for config in (load_config("tiny.yaml", ["data.batch_size=4", *each]) for each in ([], [EXACT, SHARDS]))
    ]
    assert lengths[0] == lengths[1]


SHARDS = "distributed.shards=2"
