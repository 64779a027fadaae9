"""The multimodal family: what it returns, the mask law, missing modalities, and torch.func, compiling and bf16."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree

from functrain.models import (
    AttentionMultimodal,
    CrossModalAttention,
    GatedFusion,
    SpectraTFTEncoder,
    TabularStaticEncoder,
    TFTLoss,
    TFTMultimodal,
    attention_multimodal,
)
from functrain.objectives import contrastive, term, weighted_sum

KEYS = {"embedding", "logits", "aux_logits_spec", "aux_logits_tab", "spec_embedding", "tab_embedding", "gated_spec"}
NAN, BANDS, FEATURES = float("nan"), 20, 4


def tft(**options):
    torch.manual_seed(0)
    return TFTMultimodal(FEATURES, BANDS, 8, 6, 3, 12, 0.0, **options).double()


def attentive(**options):
    torch.manual_seed(0)
    return attention_multimodal(
        FEATURES, BANDS, 8, 6, 3, hidden_dims=(10,), fusion_dim=12, dropout=0.0, **options
    ).double()


MODELS = {"tft": tft, "attention": attentive, "concat": lambda: attentive(fusion_type="concat")}


def inputs(mask, seed=0):
    draws = torch.Generator().manual_seed(seed)
    mask = torch.as_tensor(mask)
    spectra = torch.randn(*mask.shape, BANDS, generator=draws, dtype=torch.float64)
    return spectra, mask, torch.randn(len(mask), FEATURES, generator=draws, dtype=torch.float64)


def same_bits(one, other):
    pairs = zip(_pytree.tree_leaves(one), _pytree.tree_leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


masks = st.integers(1, 5).flatmap(
    lambda scans: st.lists(st.lists(st.booleans(), min_size=scans, max_size=scans), min_size=1, max_size=4)
)
models = st.sampled_from(sorted(MODELS))


def test_the_outputs_have_the_shapes_of_the_contract():
    model = TFTMultimodal(tab_dim=5, spec_len=30, spec_emb=16, tab_emb=10, num_classes=4, fusion_dim=24, dropout=0.1)
    found = model(torch.randn(3, 2, 30), torch.ones(3, 2, dtype=torch.bool), torch.randn(3, 5))
    assert set(found) >= KEYS
    assert not {"attention_weights", "gates"} & set(found)
    widths = {"embedding": 24, "logits": 4, "aux_logits_spec": 4, "aux_logits_tab": 4, "gated_spec": 16}
    widths |= {"spec_embedding": 16, "tab_embedding": 10, "spec_projection": 24, "tab_projection": 24}
    assert {name: tuple(each.shape) for name, each in found.items()} == {name: (3, n) for name, n in widths.items()}


def test_attention_and_gates_come_on_request_and_change_nothing_else():
    model = tft()
    given_ = inputs([[True, True, False], [False, False, False]])
    with_them, without = model(*given_, attention_weights=True), model(*given_)
    assert same_bits(without, {name: with_them[name] for name in without})
    assert same_bits(with_them, tft(attention_weights=True)(*given_))
    weights, gates = with_them["attention_weights"], with_them["gates"]
    assert {name: tuple(each.shape) for name, each in weights.items()} == {
        "bands": (2, 3, BANDS),
        "scans": (2, 3),
        "spec_to_tab": (2, 4, 3, FEATURES),
        "tab_to_spec": (2, 4, FEATURES, 3),
    }
    for name, each in weights.items():
        sums = each.sum(-1)
        there = torch.isclose(sums, torch.ones(()).double())
        assert bool((there | (sums == 0)).all()), name
    assert bool((weights["scans"].sum(1) == torch.tensor([1.0, 0.0])).all())
    assert weights["tab_to_spec"][0, ..., 2].abs().max() == 0  # nobody looks at a scan that there is not
    assert bool(((gates["features"] > 0) & (gates["features"] < 1)).all())
    assert torch.equal(with_them["gated_spec"], gates["fusion"] * with_them["spec_embedding"])
    assert gates["fusion"][1].abs().max() == 0


@settings(max_examples=30, deadline=None)
@given(models, masks, st.integers(0, 99), st.sampled_from([NAN, float("inf"), 1e300]))
def test_what_padding_holds_changes_no_bit_and_gets_the_gradient_0(name, mask, seed, filling):
    model, (spectra, mask, table) = MODELS[name](), inputs(mask, seed)
    filled = torch.where(mask.unsqueeze(-1), spectra, filling).requires_grad_()
    found = model(filled, mask, table)
    assert same_bits(found, model(spectra, mask, table))
    found["logits"].square().sum().backward()
    assert bool((filled.grad[~mask] == 0).all())
    assert bool(filled.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert not mask.any(1).any() or filled.grad[mask].abs().max() > 0


@settings(max_examples=30, deadline=None)
@given(masks, st.integers(0, 99))
def test_padded_scans_may_stand_anywhere_among_the_scans(mask, seed):
    model, (spectra, mask, table) = tft(attention_weights=True), inputs(mask, seed)
    places = torch.argsort((~mask).int(), dim=1, stable=True)  # the scans in their order, then the padding
    draws = torch.Generator().manual_seed(seed)
    mixed = torch.rand(mask.shape, generator=draws).argsort(1)
    # The same scans in the same order, with the padding elsewhere.
    slots = mask.take_along_dim(mixed, 1).argsort(dim=1, stable=True, descending=True)
    moved, there = torch.full_like(spectra, NAN), torch.zeros_like(mask)
    moved.scatter_(1, slots.unsqueeze(-1).expand_as(spectra), spectra.take_along_dim(places.unsqueeze(-1), 1))
    there.scatter_(1, slots, mask.take_along_dim(places, 1))
    found, expected = model(moved, there, table), model(spectra, mask, table)
    of_scans = found.pop("attention_weights"), expected.pop("attention_weights")
    assert same_bits(found, expected)
    one, other = (weights["scans"][kept] for weights, kept in zip(of_scans, (there, mask)))
    assert torch.equal(one, other)


@settings(max_examples=20, deadline=None)
@given(models, st.integers(1, 4), st.integers(0, 99))
def test_missing_modalities_are_finite_and_have_the_embedding_0(name, scans, seed):
    mask = torch.tensor([[True] * scans, [False] * scans, [True] * scans, [False] * scans])
    model, (spectra, mask, table) = MODELS[name](), inputs(mask, seed)
    table[2:] = NAN
    table.requires_grad_()
    found = model(spectra, mask, table)
    assert all(bool(each.isfinite().all()) for each in found.values())
    assert found["spec_embedding"][[1, 3]].abs().max() == 0
    assert found["tab_embedding"][2:].abs().max() == 0
    assert found["spec_embedding"][[0, 2]].abs().min(1).values.max() > 0
    found["logits"].square().sum().backward()
    assert table.grad[2:].abs().max() == 0
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    # What is missing changes nothing for the others.
    alone = model(spectra[:1], mask[:1], table[:1])
    torch.testing.assert_close(alone["logits"], found["logits"][:1], rtol=1e-12, atol=1e-12)


def test_a_table_that_is_not_given_is_a_table_of_nan():
    model, (spectra, mask, table) = tft(), inputs([[True, False], [True, True]])
    assert same_bits(model(spectra, mask), model(spectra, mask, torch.full_like(table, NAN)))
    assert same_bits(model(spectra, None, table), model(spectra, torch.ones_like(mask), table))


def test_a_missing_value_of_the_table_differs_from_0_and_gets_the_gradient_0():
    encoder = TabularStaticEncoder(FEATURES, 6).double().eval()
    table = torch.zeros(2, FEATURES, dtype=torch.float64)
    table[1, 2] = NAN
    table.requires_grad_()
    found = encoder(table)
    assert not torch.equal(*found["embedding"])
    assert found["feature_gate"][1, 2] == 0
    found["embedding"].square().sum().backward()
    assert table.grad[1, 2] == 0
    assert bool((table.grad[0] != 0).all())


def test_the_order_of_the_scans_counts():
    model, (spectra, mask, table) = tft(), inputs([[True, True, True]])
    assert not torch.allclose(model(spectra, mask, table)["logits"], model(spectra.flip(1), mask, table)["logits"])


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_a_gradient_of_all_outputs(name):
    model, given_ = MODELS[name](), inputs([[True, True], [True, False]])
    found = model(*given_)
    sum(each.cos().sum() for each in found.values()).backward()
    unused = [path for path, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not [path for path in unused if not path.endswith(("key.bias", "score.bias", "score.2.bias"))]


@pytest.mark.parametrize("name", MODELS)
def test_vmap_over_parameters_gives_each_models_own_outputs(name):
    both = [MODELS[name](), MODELS[name]()]
    with torch.no_grad():
        for p in both[1].parameters():
            p.mul_(1.1)
    parameters, buffers = torch.func.stack_module_state(both)
    given_ = inputs([[True, True, False], [False, False, False], [True, False, True]])

    def run(parameters, buffers):
        return torch.func.functional_call(both[0], (parameters, buffers), given_)["logits"]

    found = torch.func.vmap(run)(parameters, buffers)
    for one, model in zip(found, both, strict=True):
        torch.testing.assert_close(one, model(*given_)["logits"], rtol=1e-12, atol=1e-12)

    def loss(parameters, example):
        whole = [part.unsqueeze(0) for part in example]
        return torch.func.functional_call(both[0], parameters, tuple(whole))["logits"].square().sum()

    own = dict(both[0].named_parameters())
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(own, given_)
    summed = torch.func.grad(lambda p: torch.func.functional_call(both[0], p, given_)["logits"].square().sum())(own)
    for path, each in summed.items():
        torch.testing.assert_close(per_sample[path].sum(0), each, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "name", ["tft", *(pytest.param(name, marks=pytest.mark.slow) for name in ("attention", "concat"))]
)
def test_compiles_as_one_graph_with_the_bits_of_the_eager_model(name):
    model, given_ = MODELS[name](), inputs([[True, True, False], [False, False, False]])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*given_), model(*given_), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_bf16_autocast_obeys_the_mask_law(name):
    model, (spectra, mask, table) = MODELS[name]().float(), inputs([[True, True, False], [False, False, False]])
    spectra, table = spectra.float(), table.float()
    filled = torch.where(mask.unsqueeze(-1), spectra, NAN)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = model(filled, mask, table), model(spectra, mask, table)
    assert same_bits(found, expected)
    assert all(bool(each.isfinite().all()) for each in found.values())
    exact = model(spectra, mask, table)["logits"]
    assert (found["logits"].float() - exact).abs().max() < 0.1 * exact.abs().max() + 0.05


@pytest.mark.parametrize("fusion_type", ["enhanced_cross", "concat"])
@pytest.mark.parametrize("use_auxiliary", [True, False])
def test_any_encoders_embeddings_are_fused(fusion_type, use_auxiliary):
    model = AttentionMultimodal(7, 5, 3, fusion_type, use_auxiliary, [9, 4], fusion_dim=6)
    spec = {"embedding": torch.randn(4, 7), "logits": torch.randn(4, 3)}
    tab = {"embedding": torch.randn(4, 5), "logits": torch.randn(4, 3)}
    found = model(spec, tab)
    assert tuple(found["logits"].shape) == (4, 3)
    assert found["embedding"].shape[1] == (6 if fusion_type == "enhanced_cross" else 12)
    assert ("aux_logits_spec" in found) == ("aux_logits_tab" in found) == use_auxiliary
    assert torch.equal(found["spec_logits"], spec["logits"])
    hidden = [layer for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in hidden] == [9, 4, 3]


def test_an_example_that_lacks_a_modality_does_not_see_what_lies_in_its_place():
    model = AttentionMultimodal(7, 5, 3, hidden_dims=(), fusion_dim=6, dropout=0.0).eval()
    tab = {"embedding": torch.randn(2, 5)}
    spec = {"embedding": torch.randn(2, 7), "mask": torch.tensor([True, False])}
    other = {**spec, "embedding": torch.where(spec["mask"].unsqueeze(1), spec["embedding"], NAN)}
    assert same_bits(model(spec, tab), model({**other, "tokens": other["embedding"].unsqueeze(1)}, tab))


def test_both_directions_of_the_cross_attention_take_vectors_and_tokens():
    attention = CrossModalAttention(6, 5, 8, dropout=0.0)
    spec, tab = torch.randn(3, 6), torch.randn(3, 5)
    vectors, tokens = attention(spec, tab), attention(spec.unsqueeze(1), tab.unsqueeze(1))
    assert torch.equal(vectors.spec, tokens.spec.squeeze(1))
    assert torch.equal(vectors.tab, tokens.tab.squeeze(1))
    changed = attention(spec, tab + 1)
    assert not torch.equal(changed.spec, vectors.spec)  # the spectra see the table
    assert not torch.equal(attention(spec + 1, tab).tab, vectors.tab)  # and the table the spectra


def outputs_and_labels():
    model, given_ = tft(), inputs([[True, True], [True, False], [True, True], [False, True]])
    return model, given_, torch.tensor([0, 2, 1, 2])


def test_the_loss_is_that_of_the_weighted_sum():
    model, given_, labels = outputs_and_labels()
    options = {"label_smoothing": 0.1, "class_weights": (0.5, 1.0, 2.0)}
    found = TFTLoss(1.0, 0.3, 0.2, 0.1, 0.5, **options)(model(*given_), labels)
    names = {"main": "logits", "aux_spec": "aux_logits_spec", "aux_tab": "aux_logits_tab"}
    terms = {name: term("cross_entropy", output=output, options=options) for name, output in names.items()}
    terms["contrastive"] = contrastive("spec_projection", "tab_projection", temperature=0.5)
    means = weighted_sum(terms, {"aux_spec": 0.3, "aux_tab": 0.2, "contrastive": 0.1})(model, (given_, labels))
    for name, mean in means.totals().means().items():
        if name != "loss":
            torch.testing.assert_close(found[f"{name}_loss"], mean, rtol=1e-12, atol=0)
    total = found["main_loss"] + 0.3 * found["aux_spec_loss"] + 0.2 * found["aux_tab_loss"]
    torch.testing.assert_close(found["total_loss"], total + 0.1 * found["contrastive_loss"], rtol=1e-12, atol=0)


def test_the_loss_trains_a_model_of_unequal_widths_and_leaves_terms_of_weight_0_out():
    model, given_, labels = outputs_and_labels()
    loss = TFTLoss()(model(*given_), labels)
    assert set(loss) == {"total_loss", "main_loss", "aux_spec_loss", "aux_tab_loss", "contrastive_loss"}
    loss["total_loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    bare = TFTLoss(aux_spec_weight=0, aux_tab_weight=0, contrastive_weight=0)
    assert set(bare({"logits": torch.zeros(4, 3)}, labels)) == {"total_loss", "main_loss"}
    with pytest.raises(ValueError, match="no output 'aux_logits_spec'; the outputs are logits"):
        TFTLoss()({"logits": torch.zeros(4, 3)}, labels)


def test_a_missing_modality_is_finite_in_the_loss():
    model, (spectra, _, table), labels = outputs_and_labels()
    mask = torch.tensor([[True, True], [False, False], [False, True], [True, False]])
    table[2] = NAN
    TFTLoss()(model(spectra, mask, table), labels)["total_loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TFTMultimodal(0), "tab_dim must be at least 1, got 0"),
        (lambda: TFTMultimodal(3, num_classes=0), "num_classes must be at least 1, got 0"),
        (lambda: TFTMultimodal(3, dropout=1.0), "dropout must be at least 0 and less than 1, got 1.0"),
        (lambda: SpectraTFTEncoder(10, 6, heads=4), "width must be a multiple of heads, got 6 and 4"),
        (lambda: SpectraTFTEncoder(10, 6, kernel_sizes=(3, 4)), r"kernel_sizes must be odd.*got \(3, 4\)"),
        (lambda: SpectraTFTEncoder(10, 6)(torch.zeros(2, 3, 9)), r"L = 10 bands \(spec_len\); got \[2, 3, 9\]"),
        (lambda: SpectraTFTEncoder(10, 6)(torch.zeros(2, 0, 10)), r"one scan or more.*got \[2, 0, 10\]"),
        (lambda: SpectraTFTEncoder(10, 6)(torch.zeros(2, 3, 10), torch.ones(2, 2)), r"mask must be of shape \[2, 3\]"),
        (lambda: TabularStaticEncoder(3)(torch.zeros(2, 4)), r"D = 3 \(tab_dim\); got \[2, 4\]"),
        (lambda: GatedFusion(3, 0), "tab_dim must be at least 1, got 0"),
        (lambda: AttentionMultimodal(fusion_type="cross"), "must be one of enhanced_cross, concat; got 'cross'"),
        (lambda: AttentionMultimodal(hidden_dims=(0,)), "hidden_dims must be one or more whole numbers"),
        (
            lambda: AttentionMultimodal(4, 4)({"embedding": torch.zeros(2, 3)}, {}),
            r"'embedding' \[B, 4\].*got \[2, 3\]",
        ),
        (lambda: AttentionMultimodal(4, 4)(torch.zeros(2, 4), {}), r"a mapping with 'embedding' \[B, 4\].*got Tensor"),
        (lambda: TFTLoss(temperature=0.0), "temperature must be greater than 0 and finite, got 0.0"),
        (lambda: TFTLoss(aux_tab_weight=-1.0), "aux_tab_weight must be 0 or more and finite, got -1.0"),
        (lambda: TFTLoss(label_smoothing=2.0), "label_smoothing must be between 0 and 1"),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_refuses_a_table_of_other_examples():
    spectra, mask, table = inputs([[True], [True]])
    with pytest.raises(ValueError, match="spectra are of 2 examples, and the table has 1 rows"):
        tft()(spectra, mask, table[:1])
