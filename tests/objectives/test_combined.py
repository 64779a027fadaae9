"""Weighted sums of terms: what they are, what they log, and that they add up over micro-batches."""

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.foundation import trees
from functrain.objectives import (
    LearnedWeights,
    Loss,
    classification,
    contrastive,
    l1_penalty,
    l2_penalty,
    losses,
    term,
    weighted_sum,
)
from functrain.objectives.supervised import takes_step, takes_weight


class Heads(nn.Module):
    """A classification with auxiliary numbers and two embeddings."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.label, self.number = nn.Linear(6, 3), nn.Linear(6, 2)
        self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, x):
        h = self.body(x).tanh()
        return {"label": self.label(h), "number": self.number(h), "first": self.first(h), "second": self.second(h)}


TERMS = {
    "main": term("cross_entropy", output="label", target="label", options={"class_weights": [0.5, 1.0, 2.0]}),
    "number": term("huber", output="number", target="number", weight="has_number"),
    "contrast": contrastive("first", "second", temperature=0.5, groups="group"),
    "l2": l2_penalty("*.weight"),
}


def ramp(step):
    return torch.as_tensor(step, dtype=torch.float64).clamp(max=10) / 10


def heads():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Heads().double()


def batch(sizes, seed=0, weights=None):
    """A batch of groups of these sizes."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(sizes)
    targets = {
        "label": torch.randint(-1, 3, (n,), generator=generator),
        "number": torch.randn(n, 2, generator=generator, dtype=torch.float64),
        "has_number": torch.randint(2, (n,), generator=generator).double(),
        "group": torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
    }
    targets["label"] = torch.where(targets["label"] < 0, -100, targets["label"])
    targets["label"][0] = 2
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return (x, targets) if weights is None else (x, targets, torch.tensor(weights, dtype=torch.float64))


def split(whole, sizes):
    pieces = [part.split(sizes) for part in trees.leaves(whole)]
    return [trees.unflatten(trees.structure(whole), list(part)) for part in zip(*pieces, strict=True)]


def test_the_sum_is_that_of_its_terms_with_one_denominator_and_each_is_logged_with_its_own_mean():
    model, (x, targets) = heads(), batch([3, 4])
    weights = {"number": 0.3, "contrast": 0.2, "l2": 0.01}
    loss = weighted_sum(TERMS, weights)(model, (x, targets))
    outputs = model(x)
    class_weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    means = {
        "main": F.cross_entropy(outputs["label"], targets["label"], class_weights),
        "number": F.huber_loss(
            *(t[targets["has_number"] == 1] for t in (outputs["number"], targets["number"])), delta=1.0
        ),
        "contrast": losses.info_nce(
            outputs["first"], outputs["second"], temperature=0.5, groups=targets["group"]
        ).values.mean(),
        "l2": sum(p.square().sum() for name, p in model.named_parameters() if name.endswith("weight")),
    }
    logged = loss.totals().means()
    for name, mean in means.items():
        torch.testing.assert_close(logged[name], mean.detach(), rtol=1e-12, atol=0)
    unit = torch.where(targets["label"] >= 0, class_weights[targets["label"].clamp(min=0)], 0.0).sum()
    torch.testing.assert_close(loss.weight, unit)
    expected = (
        means["main"]
        + 0.3 * means["number"] * targets["has_number"].sum() / unit
        + 0.2 * means["contrast"] * 7 / unit
        + 0.01 * means["l2"]
    )
    torch.testing.assert_close(loss.total / loss.weight, expected, rtol=1e-12, atol=0)


def test_terms_that_count_by_examples_have_the_plain_sum_of_their_means():
    terms = {
        "main": term("cross_entropy", output="label", target="label", per_example=True),
        "number": term("squared_error", output="number", target="number"),
        "l1": l1_penalty(["label.*", "number.bias"]),
    }
    model, (x, targets) = heads(), batch([5])
    targets["label"] = targets["label"].clamp(min=0)
    logged = weighted_sum(terms, {"main": 2.0, "l1": 0.1})(model, (x, targets)).totals().means()
    expected = 2.0 * logged["main"] + logged["number"] + 0.1 * logged["l1"]
    torch.testing.assert_close(logged["loss"], expected, rtol=1e-13, atol=0)
    chosen = [model.label.weight, model.label.bias, model.number.bias]
    torch.testing.assert_close(logged["l1"], sum(p.abs().sum() for p in chosen).detach())


def test_the_mean_over_an_examples_positions_counts_with_the_examples_weight():
    logits, labels = torch.randn(3, 4, 5, dtype=torch.float64), torch.randint(4, (3, 5))
    labels[0, :3], labels[2] = -100, -100
    weight = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
    objective = weighted_sum({"main": term("cross_entropy", per_example=True)})
    loss = objective(nn.Identity(), (logits, labels, weight))
    means = [F.cross_entropy(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(loss.total, 2.0 * means[0] + 0.5 * means[1])
    assert loss.weight.item() == 2.5


def test_one_term_of_weight_one_is_the_plain_objective():
    logits, labels, weight = torch.randn(6, 3), torch.arange(6) % 3, torch.tensor([1.0, 0, 2, 1, 1, 0.5])
    summed = weighted_sum({"main": term("cross_entropy")})(nn.Identity(), (logits, labels, weight))
    plain = classification()(nn.Identity(), (logits, labels, weight))
    assert torch.equal(summed.total, plain.total)
    assert torch.equal(summed.weight, plain.weight)


def test_a_term_of_weight_zero_is_logged_and_left_out():
    model, whole = heads(), batch([4])
    without = weighted_sum({"main": TERMS["main"]})(model, whole)
    watched = weighted_sum({"main": TERMS["main"], "l2": TERMS["l2"]}, {"l2": 0.0})(model, whole)
    assert torch.equal(watched.total, without.total)
    assert watched.totals().means()["l2"] > 0


@st.composite
def cuts(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    weights = [draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])) for _ in range(sum(sizes))]
    weights[0] = 1.0
    return sizes, weights, draw(st.integers(0, 2**31))


WEIGHTS = {
    "fixed": {"number": 0.3, "contrast": 0.2, "l2": 0.01},
    "learned": {"main": "learned", "number": "learned", "contrast": 0.2, "l2": 0.01},
}


@functools.cache
def initial(kind, accumulate):
    model = heads() if kind == "fixed" else LearnedWeights(heads(), ("main", "number"))
    objective = weighted_sum(TERMS, WEIGHTS[kind])
    optimizer = ft.optim.sgd(0.5, momentum=0.9)
    return ft.init_state(model, objective, optimizer, precision="fp64", accumulate=accumulate, clip_norm=1.0)


@pytest.mark.parametrize("kind", WEIGHTS)
@given(cuts())
@settings(max_examples=15, deadline=None)
def test_the_update_of_micro_batches_that_keep_groups_whole_is_that_of_their_concatenation(kind, cut):
    sizes, weights, seed = cut
    whole = batch(sizes, seed, weights)
    state = initial(kind, len(sizes))
    for part in split(whole, sizes):
        state, metrics = ft.train_step(state, part)
    expected, expected_metrics = ft.train_step(initial(kind, 1), whole)
    assert metrics["skipped"] == 0
    torch.testing.assert_close(
        trees.tensors((state.params, state.opt_state)),
        trees.tensors((expected.params, expected.opt_state)),
        rtol=1e-12,
        atol=1e-12,
    )
    torch.testing.assert_close(metrics, expected_metrics, rtol=1e-12, atol=1e-12, equal_nan=True)


@given(cuts(), st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_with_a_schedule_the_sums_over_parts_are_those_over_the_whole_at_the_same_step(cut, step):
    sizes, weights, seed = cut
    whole, model = batch(sizes, seed, weights), heads()
    objective = weighted_sum(TERMS, {"number": ramp, "l2": ramp})
    found = objective(model, whole, step=torch.tensor(step))
    parts = [objective(model, part, step=torch.tensor(step)) for part in split(whole, sizes)]
    torch.testing.assert_close(sum(part.total for part in parts), found.total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sum(part.weight for part in parts), found.weight, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.totals().means()["l2_weight"], torch.tensor(min(step, 10) / 10).double())


@given(cuts())
@settings(max_examples=10, deadline=None)
def test_micro_batches_without_groups_are_groups_themselves(cut):
    sizes, weights, seed = cut
    whole, model = batch(sizes, seed, weights), heads()
    alone = weighted_sum({"contrast": contrastive("first", "second")})
    grouped = weighted_sum({"contrast": contrastive("first", "second", groups="group")})
    total = sum(alone(model, part).total for part in split(whole, sizes))
    torch.testing.assert_close(total, grouped(model, whole).total, rtol=1e-12, atol=1e-12)


@given(cuts(), st.sampled_from(list(WEIGHTS)))
@settings(max_examples=15, deadline=None)
def test_the_content_of_an_example_of_weight_zero_changes_no_bit_of_the_update(cut, kind):
    sizes, weights, seed = cut
    first, second = batch(sizes, seed, weights), batch(sizes, seed + 1, weights)
    second[1]["group"] = first[1]["group"]
    counted = first[2] != 0

    def pick(left, right):
        return torch.where(counted.view(-1, *[1] * (left.ndim - 1)), left, right)

    state = initial(kind, 1)
    left, _ = ft.train_step(state, first)
    right, _ = ft.train_step(state, trees.tree_map(pick, first, second))
    for a, b in zip(trees.tensors(left.params), trees.tensors(right.params)):
        assert torch.equal(a, b)


@pytest.mark.parametrize("step", [0, 5, 10, 99])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_schedule_is_the_weight_at_the_step(step, as_tensor):
    model, whole = heads(), batch([4])
    schedule = ft.schedules.linear(1.0, 10, end=0.5)
    found = weighted_sum(TERMS, {"l2": schedule})(model, whole, step=torch.tensor(step) if as_tensor else step)
    expected = weighted_sum(TERMS, {"l2": float(schedule(step))})(model, whole)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-14, atol=0)


def test_an_objective_with_a_schedule_says_that_it_takes_the_step_and_asks_for_it():
    fixed, scheduled = weighted_sum(TERMS), weighted_sum(TERMS, {"l2": ramp})
    assert takes_weight(fixed)
    assert not takes_step(fixed)
    assert takes_step(scheduled)
    with pytest.raises(ValueError, match=r"weight of 'l2' is a schedule.*objective\(model, batch, step=...\)"):
        scheduled(heads(), batch([4]))


def test_learned_weights_have_the_gradient_of_the_papers_formula_and_meet_where_it_is_least():
    wrapped = LearnedWeights(heads(), ("main", "number"))
    wrapped.log_variances.data = torch.tensor([0.3, -0.7], dtype=torch.float64)
    whole = batch([5])
    weights = {"main": "learned", "number": "learned"}
    terms = {name: TERMS[name] for name in weights}
    loss = weighted_sum(terms, weights)(wrapped, whole)
    plain = {name: weighted_sum({name: TERMS[name]})(wrapped.model, whole) for name in weights}
    per_unit = torch.stack([(each.total / loss.weight).detach() for each in plain.values()])
    s = wrapped.log_variances.detach()
    torch.testing.assert_close((loss.total / loss.weight).detach(), ((-s).exp() * per_unit + s).sum())
    (grad,) = torch.autograd.grad(loss.total / loss.weight, wrapped.log_variances)
    torch.testing.assert_close(grad, 1 - (-s).exp() * per_unit)
    means = loss.totals().means()
    torch.testing.assert_close(means["main_weight"], (-s[0]).exp())
    wrapped.log_variances.data = per_unit.log()  # where the derivative is 0
    least = weighted_sum(terms, weights)(wrapped, whole)
    (grad,) = torch.autograd.grad(least.total / least.weight, wrapped.log_variances)
    torch.testing.assert_close(grad, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-14)


def test_a_wrapped_model_is_called_as_itself_penalised_as_itself_and_comes_back():
    wrapped, whole = LearnedWeights(heads(), ("main",)), batch([4])
    wrapped.log_variances.data += 5
    assert torch.equal(wrapped(whole[0])["label"], wrapped.model(whole[0])["label"])
    means = weighted_sum({**TERMS, "l1": l1_penalty()}, {"main": "learned"})(wrapped, whole).totals().means()
    torch.testing.assert_close(means["l1"], sum(p.abs().sum() for p in wrapped.model.parameters()).detach())
    state = initial("learned", 1)
    state, _ = ft.train_step(state, whole)
    assert not state.params["log_variances"].eq(0).any()
    assert isinstance(ft.to_module(state).model, Heads)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_a_traced_objective_gives_the_bits_of_the_eager_one(kind):
    state, whole = initial(kind, 1), batch([3, 2], weights=[1.0, 0.0, 1.0, 2.0, 1.0])
    objective = weighted_sum(TERMS, {**WEIGHTS[kind], "contrast": ramp})
    names, values = list(state.params), list(state.params.values())

    def run(step, *tensors):
        params = dict(zip(names, tensors))
        call = functools.partial(objective, step=step)
        loss, _ = state.recipe.network.apply(call, params, state.buffers, whole, training=True)
        return loss.total, loss.weight, loss.totals().sums

    graph = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(torch.tensor(3), *values)
    for step in (3, 7):
        for traced, eager in zip(graph(torch.tensor(step), *values), run(torch.tensor(step), *values)):
            assert torch.equal(traced, eager)


def test_a_term_of_ones_own_brings_its_metrics():
    def entropy(seen):
        log_p = seen.outputs.log_softmax(1)
        values = -(log_p.exp() * log_p).sum(1)
        return Loss(values.sum(), float(len(values)), {"entropy_squared": values.square().sum()})

    logits, labels = torch.randn(5, 3), torch.arange(5) % 3
    objective = weighted_sum(
        {"main": term("cross_entropy"), "entropy": entropy},
        {"entropy": -0.1},
        metrics={"accuracy": lambda outputs, targets: outputs.argmax(1) == targets},
    )
    means = objective(nn.Identity(), (logits, labels)).totals().means()
    assert list(means) == ["loss", "main", "entropy", "entropy_squared", "accuracy"]
    torch.testing.assert_close(means["loss"], means["main"] - 0.1 * means["entropy"], rtol=1e-6, atol=0)
    torch.testing.assert_close(means["accuracy"].item(), (logits.argmax(1) == labels).double().mean().item())


def test_equal_sums_are_equal_and_hashable():
    def make():
        return weighted_sum({"main": term("huber", options={"delta": 2.0}), "l2": l2_penalty()}, {"l2": 0.1})

    assert make() == make()
    assert hash(make()) == hash(make())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: weighted_sum({}), ValueError, "needs a term; got none"),
        (lambda: weighted_sum({"a": term("huber")}, {"b": 1.0}), ValueError, "no term b to weigh; the terms are a"),
        (lambda: weighted_sum({"loss": term("huber")}), ValueError, "'loss' is the name of the whole sum"),
        (lambda: weighted_sum({"a": "huber"}), TypeError, "term 'a' must be a function.*got 'huber'"),
        (lambda: weighted_sum({"a": term("huber")}, {"a": "learnt"}), TypeError, "a number, a schedule or 'learned'"),
        (lambda: weighted_sum({"a": term("huber")}, {"a": True}), TypeError, "a number, a schedule or 'learned'"),
        (lambda: weighted_sum({"a": term("huber")}, {"a": float("nan")}), ValueError, "'a' must be finite, got nan"),
        (lambda: LearnedWeights(nn.Identity(), "main"), ValueError, "names of the terms, each once; got 'main'"),
        (lambda: l2_penalty(()), ValueError, "needs a pattern"),
        (lambda: term("hubr"), ValueError, "no loss 'hubr' here"),
    ],
)
def test_what_is_no_sum_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("terms", "weights", "error", "message"),
    [
        ({"l2": l2_penalty()}, {}, ValueError, "'l2' returned Tensor; put a loss first"),
        ({"main": TERMS["main"], "l2": l2_penalty("nets.*")}, {}, ValueError, r"no parameter matches 'nets\.\*'.*body"),
        ({"main": TERMS["main"]}, {"main": "learned"}, TypeError, "must be a LearnedWeights.*got Heads"),
        ({"main": term("huber", output="depth")}, {}, ValueError, "no output 'depth'; the outputs are 'label', 'num"),
        ({"main": TERMS["main"], "own": lambda seen: seen.inputs}, {}, TypeError, r"'own' returned a tensor \[4, 4\]"),
        ({"main": TERMS["main"], "own": lambda seen: 3.0}, {}, TypeError, "'own' returned float"),
        (
            {"main": TERMS["main"], "own": lambda seen: Loss(seen.inputs.sum(), 1.0, {"main": 1.0})},
            {},
            ValueError,
            "two metrics of a weighted_sum have the name main",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(terms, weights, error, message):
    with pytest.raises(error, match=message):
        weighted_sum(terms, weights)(heads(), batch([4]))


def test_a_learned_weight_of_a_term_the_wrapper_does_not_know_is_refused():
    with pytest.raises(ValueError, match="no term 'main'; it was given other"):
        weighted_sum({"main": TERMS["main"]}, {"main": "learned"})(LearnedWeights(heads(), ("other",)), batch([4]))


@pytest.mark.parametrize(("outputs", "key", "known"), [((1, 2), 2, "0 to 1"), (torch.ones(2), "a", "a single Tensor")])
def test_an_output_that_is_not_there_is_named_with_those_that_are(outputs, key, known):
    from functrain.objectives.terms import chosen

    assert chosen("output", (1, 2), 1) == 2
    with pytest.raises(ValueError, match=f"no output {key!r}; the outputs are {known}"):
        chosen("output", outputs, key)
