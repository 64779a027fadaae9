"""The mask law of attention, and parity with torch's own."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from functrain.models.attention import AttentionPooling, Heads, MultiHeadAttention, masked_mean, masked_softmax
from functrain.models.transformer import TransformerBlock, sinusoids

WIDTH = 8
FILLS = (math.nan, math.inf, -math.inf, 1e30)
few = settings(max_examples=10, deadline=None)


def attended(module, features, mask, **options):
    return module(features, mask=mask, **options).features


MODULES = {
    "attention": (lambda: MultiHeadAttention(WIDTH, 2), attended),
    "causal attention": (lambda: MultiHeadAttention(WIDTH, 2), lambda m, f, mask: attended(m, f, mask, causal=True)),
    "block": (lambda: TransformerBlock(WIDTH, 4), attended),
    "causal block": (lambda: TransformerBlock(WIDTH, 1), lambda m, f, mask: attended(m, f, mask, causal=True)),
    "attention pooling": (lambda: AttentionPooling(WIDTH, 4), attended),
    "mean": (nn.Identity, lambda m, f, mask: masked_mean(f, mask)),
}


def made(name, dtype=torch.float64):
    torch.manual_seed(0)
    make, run = MODULES[name]
    module = make().to(dtype)
    for parameter in module.parameters():  # biases are 0 at first, and hide mistakes
        nn.init.normal_(parameter, std=0.5)
    return module, run


def computed(module, run, features, mask):
    """Outputs, gradient of the features, and gradients of the parameters, for a loss of all outputs."""
    features = features.clone().requires_grad_()
    outputs = run(module, features, mask)
    weights = torch.linspace(-1, 2, outputs.numel(), dtype=outputs.dtype).view_as(outputs)
    found = torch.autograd.grad((outputs * weights).sum(), [features, *module.parameters()])
    return [outputs.detach(), *found]


@st.composite
def masked_tokens(draw):
    examples, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rows = st.lists(st.booleans(), min_size=tokens, max_size=tokens)
    mask = torch.tensor(draw(st.lists(rows, min_size=examples, max_size=examples)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return torch.randn(examples, tokens, WIDTH, dtype=torch.float64, generator=generator), mask


@few
@pytest.mark.parametrize("name", MODULES)
@given(masked_tokens(), st.sampled_from(FILLS), st.randoms(use_true_random=False))
def test_padding_reaches_no_output_and_gets_no_gradient(name, given_tokens, fill, random):
    features, mask = given_tokens
    module, run = made(name)
    clean = computed(module, run, torch.where(mask[..., None], features, 0.0), mask)
    places = (~mask).nonzero().tolist()
    dirty = features.clone()
    for example, token in places:
        dirty[example, token] = random.choice([fill, math.nan, *FILLS, 1.0])
    for got, expected in zip(computed(module, run, dirty, mask), clean):
        assert torch.equal(got, expected)  # no NaN equals itself
    assert not clean[1][~mask].any()
    for example in range(len(mask)):
        if not mask[example].any():
            assert not clean[0][example].any()


@few
@pytest.mark.parametrize("name", MODULES)
@given(masked_tokens(), st.integers(1, 3))
def test_more_padding_changes_real_tokens_by_rounding_only(name, given_tokens, more):
    features, mask = given_tokens
    module, run = made(name)
    longer = nn.functional.pad(features, (0, 0, 0, more), value=math.nan)
    found = run(module, longer, nn.functional.pad(mask, (0, more)))
    expected = run(module, features, mask)
    if expected.ndim == 3:
        assert not found[:, features.shape[1] :].any()
        found = found[:, : features.shape[1]]
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@few
@pytest.mark.parametrize("name", ["attention", "block"])
@given(masked_tokens(), st.randoms(use_true_random=False))
def test_tokens_permute_with_their_mask(name, given_tokens, random):
    features, mask = given_tokens
    module, run = made(name)
    order = list(range(features.shape[1]))
    random.shuffle(order)
    found = run(module, features[:, order], mask[:, order])
    assert torch.allclose(found, run(module, features, mask)[:, order], rtol=1e-12, atol=1e-12)


@few
@given(masked_tokens(), masked_tokens())
def test_a_masked_context_and_masked_queries(ours, theirs):
    (queries, query_mask), (context, mask) = ours, theirs
    examples = min(len(queries), len(context))
    queries, query_mask, context, mask = (each[:examples] for each in (queries, query_mask, context, mask))
    module, _ = made("attention")

    def run(queries, context):
        queries, context = queries.clone().requires_grad_(), context.clone().requires_grad_()
        seen = module(queries, context, mask=mask, query_mask=query_mask, need_weights=True)
        loss = seen.features.square().sum()
        return [*seen[:2], *torch.autograd.grad(loss, [queries, context, *module.parameters()])]

    clean = run(queries, context)
    dirty = run(torch.where(query_mask[..., None], queries, math.nan), torch.where(mask[..., None], context, math.inf))
    assert all(torch.equal(got, expected) for got, expected in zip(dirty, clean))
    features, weights, of_queries, of_context = clean[:4]
    assert not of_queries[~query_mask].any()
    assert not of_context[~mask].any()
    assert not features[~query_mask].any()
    assert not features[~mask.any(1)].any()
    sums = weights.sum(-1)
    assert torch.allclose(sums, mask.any(1).double()[:, None, None].expand_as(sums), rtol=1e-12)
    assert not weights.masked_select(~mask[:, None, None, :]).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_row_of_huge_scores_beside_masked_ones(dtype):
    large = torch.finfo(dtype).max
    scores = torch.tensor([[-large, large, 0.0], [-large, -large, math.nan], [math.nan] * 3], dtype=dtype)
    visible = torch.tensor([[True, False, False], [True, True, False], [False] * 3])
    found = masked_softmax(scores.requires_grad_(), visible)
    assert found.tolist() == [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0] * 3]
    (gradient,) = torch.autograd.grad(found[:, 0].sum(), scores)
    assert gradient.tolist() == [[0.0, 0.0, 0.0], [0.25, -0.25, 0.0], [0.0] * 3]


def with_weights_of(theirs, ours):
    """Copy the parameters of torch's attention into ours."""
    with torch.no_grad():
        for layer, weight, bias in zip(
            (ours.query, ours.key, ours.value), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
        ):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        ours.output.load_state_dict(theirs.out_proj.state_dict())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_parity_with_torchs_attention(causal, heads):
    torch.manual_seed(0)
    ours, theirs = MultiHeadAttention(WIDTH, heads).double(), nn.MultiheadAttention(WIDTH, heads, batch_first=True)
    theirs = theirs.double()
    nn.init.normal_(theirs.in_proj_bias)
    with_weights_of(theirs, ours)
    features, mask = (
        torch.randn(3, 5, WIDTH).double(),
        torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 1, 1, 0]]),
    )
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    expected, weights = theirs(
        features,
        features,
        features,
        key_padding_mask=mask == 0,
        attn_mask=hidden,
        average_attn_weights=False,
    )
    found = ours(features, mask=mask, causal=causal, need_weights=True)
    assert torch.allclose(found.features[mask == 1], expected[mask == 1], rtol=1e-12, atol=1e-12)
    real = mask.bool()[:, None, :, None].expand_as(weights)
    assert torch.allclose(found.weights[real], weights[real], rtol=1e-12, atol=1e-12)


def test_parity_with_torchs_attention_to_a_context():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, 2, batch_first=True).double()
    ours = MultiHeadAttention(WIDTH, 2).double()
    with_weights_of(theirs, ours)
    queries, context = torch.randn(3, 2, WIDTH).double(), torch.randn(3, 5, WIDTH).double()
    expected, _ = theirs(queries, context, context)
    assert torch.allclose(ours(queries, context).features, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_parity_with_torchs_transformer_layer(causal):
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True).double()
    ours = TransformerBlock(WIDTH, 2).double()
    with_weights_of(theirs.self_attn, ours.attention)
    for layer, source in (
        (ours.attention_norm, theirs.norm1),
        (ours.feed_norm, theirs.norm2),
        (ours.feed[0], theirs.linear1),
        (ours.feed[3], theirs.linear2),
    ):
        nn.init.normal_(source.weight)
        layer.load_state_dict(source.state_dict())
    features, mask = torch.randn(2, 4, WIDTH).double(), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1) if causal else None
    expected = theirs(features, src_mask=hidden, src_key_padding_mask=mask == 0)
    found = ours(features, mask, causal=causal).features
    assert torch.allclose(found[mask == 1], expected[mask == 1], rtol=1e-12, atol=1e-12)


def test_tokens_after_others_see_what_they_would_see_together():
    module, _ = made("block")
    features, mask = torch.randn(2, 6, WIDTH).double(), torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    whole = module(features, mask, causal=True)
    heads, parts = None, []
    for start, stop in ((0, 3), (3, 4), (4, 6)):
        seen = module(features[:, start:stop], mask[:, :stop], causal=True, past=heads)
        heads, parts = seen.heads, [*parts, seen.features]
    assert isinstance(heads, Heads)
    assert torch.allclose(torch.cat(parts, 1), whole.features, rtol=1e-12, atol=1e-12)
    assert torch.allclose(heads.keys, whole.heads.keys, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["causal block"])
def test_one_graph_and_the_transforms_of_torch_func(name):
    module, run = made(name, torch.float32)
    features, mask = torch.randn(3, 4, WIDTH), torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    features = features.masked_fill(mask[..., None] == 0, math.nan)

    def loss(features, mask):
        return run(module, features, mask).square().sum()

    gradient = torch.func.grad(loss)(features, mask)
    assert gradient.isfinite().all()
    assert not gradient[mask == 0].any()
    compiled = torch.compile(lambda *given: run(module, *given), fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(features, mask), run(module, features, mask), atol=1e-6)
    alone = torch.func.vmap(torch.func.grad(lambda f, m: loss(f[None], m[None])))(features, mask)
    assert torch.allclose(alone, gradient, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = run(module, features, mask)
    assert torch.allclose(half.float(), run(module, features, mask), atol=0.3)
    tangent = torch.func.jvp(lambda f: run(module, f, mask), (features,), (torch.ones_like(features),))[1]
    assert tangent.isfinite().all()


def test_dropout_changes_training_only():
    module = MultiHeadAttention(WIDTH, 2, dropout=0.5)
    features = torch.randn(2, 5, WIDTH)
    training = module(features, need_weights=True)
    assert not torch.equal(training.features, module(features).features)
    assert torch.allclose(training.weights.sum(-1), torch.ones(2, 2, 5))
    module.eval()
    assert torch.equal(module(features).features, module(features).features)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 and 4"),
        ({"width": 8, "heads": 0}, "heads must be at least 1, got 0"),
        ({"width": 8.0, "heads": 2}, "width must be a whole number, got 8.0"),
        ({"width": 8, "heads": 2, "dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
        ({"width": 8, "heads": 2, "context_width": 0}, "context_width must be at least 1, got 0"),
    ],
)
def test_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**arguments)


def test_refuses_masks_of_another_shape():
    features = torch.zeros(2, 3, WIDTH)
    for wrong in (torch.ones(3, 2), torch.ones(2, 4), torch.ones(2, 3, 1), torch.ones(6)):
        with pytest.raises(ValueError, match=r"mask must be of shape \[2, 3\]"):
            MultiHeadAttention(WIDTH, 2)(features, mask=wrong)
    with pytest.raises(ValueError, match=r"query_mask must be of shape \[2, 3\]"):
        MultiHeadAttention(WIDTH, 2)(features, torch.zeros(2, 5, WIDTH), query_mask=torch.ones(2, 5))
    with pytest.raises(ValueError, match="as many queries as keys, got 3 and 2"):
        MultiHeadAttention(WIDTH, 2)(features, torch.zeros(2, 2, WIDTH), causal=True)


def test_positions_differ_and_have_one_length():
    found = sinusoids(torch.arange(100), 16)
    assert torch.allclose(found.square().sum(1), torch.full((100,), 8.0))
    assert torch.cdist(found, found).add(torch.eye(100)).min() > 0.1
    with pytest.raises(ValueError, match="width must be even"):
        sinusoids(torch.arange(3), 5)
