"""Training goes on from torch's files as torch would have gone on, and in torch from ours."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.checkpoint import (
    Checkpointer,
    init_from,
    load_state_dict,
    load_torch,
    read_safetensors,
    save_safetensors,
    save_torch,
)
from functrain.foundation.errors import CheckpointError


class Tied(nn.Module):
    """A tied head, BatchNorm, a frozen layer, a buffer that is not saved, and parameters with trying names."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(6, 5, bias=False)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.norm = nn.BatchNorm1d(5)
        self.count = nn.Parameter(torch.zeros(5))
        self.scale = nn.Parameter(torch.ones(5))
        self.head = nn.Linear(5, 6)
        self.out = nn.Linear(5, 6, bias=False)
        self.again = self.out
        self.register_buffer("offset", torch.tensor(0.5), persistent=False)

    def forward(self, x):
        x = self.norm(self.frozen(self.embed(x))) * self.scale + self.count * self.offset
        return self.head(x) + self.again(x)


def make_model(seed=0):
    torch.manual_seed(seed)
    return Tied().double()


def batches(count, start=0):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(8, 12, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 6, (8, 12), generator=generator)
    return list(zip(inputs, targets))[start : start + count]


def train_torch(model, optimizer, data):
    for inputs, targets in data:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def make_state(model, optimizer, **options):
    return ft.init_state(model, ft.supervised(F.cross_entropy), optimizer, precision="fp64", **options)


def train_ours(state, data):
    for batch in data:
        state, _ = ft.train_step(state, batch)
    return state


OPTIMIZERS = {
    "adam": (torch.optim.Adam, ft.optim.adam, {"lr": 1e-2, "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, ft.optim.adamw, {"lr": 1e-2, "betas": (0.8, 0.9)}),
    "sgd": (torch.optim.SGD, ft.optim.sgd, {"lr": 1e-1, "momentum": 0.9, "nesterov": True}),
    "sgd with dampening": (torch.optim.SGD, ft.optim.sgd, {"lr": 1e-1, "momentum": 0.9, "dampening": 0.5}),
    "plain sgd": (torch.optim.SGD, ft.optim.sgd, {"lr": 1e-1}),
}
PARAMETERS = {
    "all": lambda model: model.parameters(),
    "trained": lambda model: [p for p in model.parameters() if p.requires_grad],
    "named groups": lambda model: [
        {"params": [(n, p) for n, p in model.named_parameters() if p.ndim == ndim]} for ndim in (2, 1)
    ],
}


def assert_equal_models(ours, theirs):
    expected = theirs.state_dict()
    found = ft.to_module(ours).state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        # Two float64 implementations of the same few updates.
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("keys", [("model_state_dict", "optimizer_state_dict"), ("state_dict", "optimizer")])
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_from_a_file_as_torch_goes_on(tmp_path, name, parameters, keys):
    theirs, ours, arguments = OPTIMIZERS[name]
    model = make_model()
    optimizer = theirs(PARAMETERS[parameters](model), **arguments)
    train_torch(model, optimizer, batches(3))
    content = {keys[0]: nn.DataParallel(model).state_dict(), keys[1]: optimizer.state_dict(), "epoch": 9}
    torch.save(content, tmp_path / "old.pth.tar")
    state = make_state(make_model(seed=1), ours(**arguments), ema_decay=0.9)
    state = load_torch(state, tmp_path / "old.pth.tar", step=3)
    assert_equal_models(state, model)
    assert state.step == 3
    assert all(torch.equal(average, state.params[n]) for n, average in state.ema.params.items())
    train_torch(model, optimizer, batches(3, start=3))
    assert_equal_models(train_ours(state, batches(3, start=3)), model)


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_goes_on_from_our_file_as_we_go_on(tmp_path, name, parameters):
    theirs, ours, arguments = OPTIMIZERS[name]
    state = train_ours(make_state(make_model(), ours(**arguments)), batches(3))
    template = theirs(PARAMETERS[parameters](ft.to_module(state)), **arguments)
    save_torch(state, tmp_path / "ours.pt", optimizer=template)
    saved = torch.load(tmp_path / "ours.pt", weights_only=True)
    assert (saved["step"], saved["epoch"]) == (3, 0)
    model = make_model(seed=1)
    model.load_state_dict(saved["model_state_dict"])
    optimizer = theirs(PARAMETERS[parameters](model), lr=123.0)
    optimizer.load_state_dict(saved["optimizer_state_dict"])
    train_torch(model, optimizer, batches(3, start=3))
    assert_equal_models(train_ours(state, batches(3, start=3)), model)
    # And back again, bit for bit.
    back = load_torch(make_state(make_model(seed=2), ours(**arguments)), tmp_path / "ours.pt")
    assert ft.diff_states(back, state.replace(samples_seen=0, batch_idx=0, epoch_totals=back.epoch_totals)) == []


def test_a_schedule_goes_on_where_the_file_stopped(tmp_path):
    def schedule(step):
        return 0.1 / (1 + step)

    state = train_ours(make_state(make_model(), ft.optim.adam(schedule)), batches(3))
    save_torch(state, tmp_path / "x.pt", optimizer=torch.optim.Adam(ft.to_module(state).parameters()))
    back = load_torch(make_state(make_model(), ft.optim.adam(schedule)), tmp_path / "x.pt")
    ours, back = train_ours(state, batches(1, 3)), train_ours(back, batches(1, 3))
    assert ft.optim.learning_rate(back.opt_state) == ft.optim.learning_rate(ours.opt_state)


def test_lightning_and_accelerate_keep_the_optimizer_elsewhere(tmp_path):
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters())
    train_torch(model, optimizer, batches(2))
    renamed = {f"model.{name}": value for name, value in model.state_dict().items()}
    content = {"state_dict": renamed, "optimizer_states": [optimizer.state_dict()], "global_step": 2, "epoch": 1}
    torch.save({**content, "pytorch-lightning_version": "2.5", "loops": {}, "lr_schedulers": []}, tmp_path / "l.ckpt")
    state = make_state(make_model(seed=1), ft.optim.adam())
    assert_equal_models(load_torch(state, tmp_path / "l.ckpt", prefix="model."), model)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.bin")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    save_safetensors(load_torch(state, tmp_path / "l.ckpt", prefix="model."), tmp_path / "model.safetensors")
    for weights in ("pytorch_model.bin", "model.safetensors"):
        loaded = load_torch(state, tmp_path / weights, optimizer_path=tmp_path / "optimizer.bin")
        assert_equal_models(loaded, model)
        assert loaded.step == 2
        assert torch.equal(loaded.opt_state[2].exp_avg["count"], optimizer.state[model.count]["exp_avg"])


def save_trained(path, theirs=torch.optim.Adam, parameters="all", change=None, **arguments):
    model = make_model()
    optimizer = theirs(PARAMETERS[parameters](model), **arguments)
    train_torch(model, optimizer, batches(2))
    saved = optimizer.state_dict()
    if change:
        change(saved)
    torch.save({"model": model.state_dict(), "optimizer": saved}, path)


def groups_without_names(saved):
    for group in saved["param_groups"]:
        del group["param_names"]


@pytest.mark.parametrize(
    ("ours", "options", "message"),
    [
        ("sgd", {"theirs": torch.optim.SGD}, "does not say how many updates were done: say it with step="),
        (
            "adam",
            {"theirs": torch.optim.SGD, "momentum": 0.9},
            r"holds momentum_buffer, the state's optimizer keeps exp_a",
        ),
        (
            "adam",
            {"amsgrad": True},
            r"holds exp_avg, exp_avg_sq, max_exp_avg_sq, the state's optimizer keeps exp_avg, exp",
        ),
        ("lion", {}, "only the states of adam, adamw and sgd can be exchanged"),
        (
            "adam",
            {"parameters": "named groups", "change": groups_without_names},
            "has 2 parameter groups without names",
        ),
        (
            "adam",
            {"change": lambda s: s["param_groups"][0]["params"].pop()},
            r"has 9 parameters, the state has 10, of wh",
        ),
        ("adam", {"change": lambda s: s["state"][0]["step"].add_(1)}, "have had different numbers of updates"),
        (
            "adam",
            {"change": lambda s: s["state"].pop(0)},
            r"exp_avg of \w+(\.weight)?: not in the file \(it was never upd",
        ),
        (
            "adam",
            {"change": lambda s: s["state"][0].update(exp_avg=torch.zeros(3))},
            r"exp_avg of \w+(\.weight)?: \(3,\) in the file, \(5,?.*\) in the state",
        ),
        ("adam", {"change": lambda s: s.pop("state")}, r"is not what optimizer\.state_dict\(\) returns"),
    ],
)
def test_an_optimizer_state_that_does_not_fit_is_refused(tmp_path, ours, options, message):
    save_trained(tmp_path / "x.pt", **options)
    optimizer = ft.optim.sgd(0.1) if ours == "sgd" else getattr(ft.optim, ours)()
    with pytest.raises(CheckpointError, match=message):
        load_torch(make_state(make_model(), optimizer), tmp_path / "x.pt")


def test_a_file_without_an_optimizer_is_for_init_from(tmp_path):
    torch.save(make_model().state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"holds no optimizer state .* use init_from"):
        load_torch(make_state(make_model(), ft.optim.adam()), tmp_path / "x.pt")


# -- init_from -------------------------------------------------------------------------------------------


def test_parameters_and_buffers_are_taken_over_and_everything_else_begins_anew(tmp_path):
    source = make_model()
    train_torch(source, torch.optim.SGD(source.parameters(), lr=0.1), batches(2))
    torch.save(source.state_dict(), tmp_path / "x.pt")
    fresh = make_state(make_model(seed=1), ft.optim.adamw(), ema_decay=0.9, accumulate=3, seed=5)
    before = {name: p.clone() for name, p in fresh.params.items()}
    state = init_from(fresh, tmp_path / "x.pt")
    expected = make_state(source, ft.optim.adamw(), ema_decay=0.9, accumulate=3, seed=5)
    assert ft.diff_states(state, expected) == []
    assert all(torch.equal(fresh.params[name], value) for name, value in before.items())


def test_every_source_gives_the_same_state(tmp_path):
    state = train_ours(make_state(make_model(), ft.optim.adamw()), batches(2))
    save_torch(state, tmp_path / "x.pt")
    save_safetensors(state, tmp_path / "x.safetensors")
    with Checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(state, step=2)
    fresh = make_state(make_model(seed=1), ft.optim.adamw())
    sources = [tmp_path / "x.pt", tmp_path / "x.safetensors", tmp_path / "run" / "last"]
    first, *others = [init_from(fresh, source) for source in sources]
    assert all(ft.diff_states(first, other) == [] for other in others)
    assert ft.diff_states(first.params, state.params) == []


def test_floating_point_values_are_converted_and_layouts_kept(tmp_path):
    model = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    torch.save({name: value.half().contiguous() for name, value in model.state_dict().items()}, tmp_path / "x.pt")
    state = ft.init_state(model, ft.regression(), ft.optim.sgd(0.1))
    loaded = init_from(state, tmp_path / "x.pt").params["weight"]
    assert loaded.dtype == torch.float32
    assert loaded.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(loaded, model.weight.half().float())


def test_what_does_not_fit_is_listed_with_both_shapes(tmp_path):
    weights = make_model().state_dict()
    del weights["scale"]
    torch.save({**weights, "head.weight": torch.zeros(4, 5), "extra": torch.zeros(2)}, tmp_path / "x.pt")
    state = make_state(make_model(seed=1), ft.optim.adam())
    with pytest.raises(CheckpointError) as error:
        init_from(state, tmp_path / "x.pt")
    assert str(error.value) == (
        f"{tmp_path}/x.pt does not fit the model:\n"
        "  head.weight: float32 (4, 5) in the file, float64 (6, 5) in the state\n"
        "  extra: float32 (2,) in the file, not in the state\n"
        "  scale: not in the file, float64 (5,) in the state\n"
        "Name what may keep its initial value in allow_new, and what may be left out in allow_dropped (patterns such "
        "as 'head.*' too); where all names differ by a common beginning, name it with prefix."
    )
    loaded = init_from(state, tmp_path / "x.pt", allow_new=["head.*", "scale"], allow_dropped=["extra"])
    assert torch.equal(loaded.params["head.weight"], state.params["head.weight"])
    assert torch.equal(loaded.params["head.bias"], weights["head.bias"])
    assert torch.equal(loaded.params["embed.weight"], weights["embed.weight"])


def test_a_name_that_fits_nothing_is_an_error(tmp_path):
    torch.save(make_model().state_dict(), tmp_path / "x.pt")
    state = make_state(make_model(), ft.optim.adam())
    with pytest.raises(ValueError, match=r"allow_new names 'haed\.\*', which fits nothing; there are count, "):
        init_from(state, tmp_path / "x.pt", allow_new=["haed.*"])
    with pytest.raises(ValueError, match=r"allow_dropped must be a list of names, got the string 'head'"):
        init_from(state, tmp_path / "x.pt", allow_dropped="head")


def test_tied_names_may_be_there_once_or_twice_but_not_differ(tmp_path):
    weights = make_model().state_dict()
    state = make_state(make_model(seed=1), ft.optim.adam())
    assert "again.weight" in weights
    assert "again.weight" not in state.params
    for missing in ("out.weight", "again.weight"):
        torch.save({name: value for name, value in weights.items() if name != missing}, tmp_path / "x.pt")
        assert torch.equal(init_from(state, tmp_path / "x.pt").params["out.weight"], weights["out.weight"])
    torch.save({**weights, "again.weight": weights["out.weight"] + 1}, tmp_path / "x.pt")
    with pytest.raises(
        CheckpointError, match=r"again\.weight: not equal to out\.weight in the file, tied to it in the st"
    ):
        init_from(state, tmp_path / "x.pt")


def test_safetensors_of_tied_tensors_say_what_is_tied(tmp_path):
    import json

    state = make_state(make_model(), ft.optim.adam(), ema_decay=0.5)
    save_safetensors(state, tmp_path / "x.safetensors", metadata={"note": "mine"})
    content = (tmp_path / "x.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"format": "pt", "again.weight": "out.weight", "note": "mine"}
    assert "again.weight" not in read_safetensors(tmp_path / "x.safetensors")
    assert "offset" not in load_state_dict(tmp_path / "x.safetensors")  # not persistent


def test_averages_are_written_on_demand(tmp_path):
    state = train_ours(make_state(make_model(), ft.optim.adam(0.1), ema_decay=0.5), batches(2))
    for save, suffix in ((save_torch, "pt"), (save_safetensors, "safetensors")):
        save(state, tmp_path / f"x.{suffix}", ema=True)
        assert torch.equal(load_state_dict(tmp_path / f"x.{suffix}")["count"], state.ema.params["count"])
    with pytest.raises(ValueError, match="keeps no moving average"):
        save_torch(make_state(make_model(), ft.optim.adam()), tmp_path / "y.pt", ema=True)
