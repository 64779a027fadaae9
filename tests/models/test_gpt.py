"""The language model and its texts."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings

import functrain as ft
from functrain.models import GPT
from functrain.models.gpt import Sampling

few = settings(max_examples=8, deadline=None)
LENGTH = 10


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    net = GPT(vocabulary=11, length=LENGTH, width=8, layers=2, heads=2, dropout=0.5)
    with torch.no_grad():
        for parameter in net.parameters():  # initial weights make all tokens equally likely
            parameter.add_(torch.randn_like(parameter), alpha=0.4)
    return net.double()


def texts(draw, least=1, most=13):
    count = draw(st.integers(1, 4))
    tokens = st.integers(0, 10)
    return [torch.tensor(draw(st.lists(tokens, min_size=least, max_size=most))) for _ in range(count)]


@st.composite
def prompts(draw):
    return texts(draw)


@st.composite
def ways(draw):
    return {
        "temperature": draw(st.sampled_from([0.0, 0.3, 1.0, 5.0])),
        "top_k": draw(st.sampled_from([None, 1, 3, 100])),
        "top_p": draw(st.sampled_from([None, 0.2, 0.9, 1.0])),
        "key": draw(st.integers(-3, 3)),
    }


def together(given_texts, fill=0):
    """Texts of unequal lengths as one prompt, with padding before them."""
    longest = max(map(len, given_texts))
    tokens = torch.full((len(given_texts), longest), fill)
    mask = torch.zeros(len(given_texts), longest, dtype=torch.bool)
    for row, text in enumerate(given_texts):
        tokens[row, longest - len(text) :], mask[row, longest - len(text) :] = text, True
    return tokens, mask


@few
@given(prompts(), ways(), st.integers(0, 8))
def test_tokens_are_the_same_without_a_cache(model, given_texts, way, n):
    tokens, mask = together(given_texts)
    found = model.generate(tokens, n, mask=mask, **way)
    assert found.shape == (len(tokens), tokens.shape[1] + n)
    assert torch.equal(found, model.generate(tokens, n, mask=mask, cache=False, **way))
    assert torch.equal(found[:, : tokens.shape[1]], tokens)
    assert torch.equal(found, model.generate(tokens, n, mask=mask, **way))


@few
@given(prompts(), ways())
def test_a_text_does_not_depend_on_the_others_nor_on_padding(model, given_texts, way):
    tokens, mask = together(given_texts, fill=-100)
    found = model.generate(tokens, 5, mask=mask, **way)
    for row, text in enumerate(given_texts):
        if not any(torch.equal(text, other) for other in given_texts[:row]):
            assert torch.equal(model.generate(text, 5, **way)[-5:], found[row, -5:])


@few
@given(prompts(), ways(), st.integers(0, 6))
def test_fewer_tokens_are_the_first_of_more(model, given_texts, way, n):
    text = given_texts[0]
    assert torch.equal(model.generate(text, 7, **way)[: len(text) + n], model.generate(text, n, **way))


def test_keys_and_equal_prompts_give_different_texts(model):
    prompt = torch.tensor([[1, 2, 3]] * 4)
    found = model.generate(prompt, 20, temperature=3.0, key=1)
    assert len({tuple(row) for row in found.tolist()}) == 4
    assert not torch.equal(found[0], model.generate(prompt[0], 20, temperature=3.0, key=2))
    assert torch.equal(found[0], model.generate(prompt[0], 20, temperature=3.0, key=1))
    greedy = model.generate(prompt, 5, temperature=0.0)
    assert (greedy == greedy[0]).all()
    assert torch.equal(greedy, model.generate(prompt, 5, top_k=1))
    assert torch.equal(greedy, model.generate(prompt, 5, top_p=1e-9))


def test_greedy_tokens_are_the_most_likely_ones_of_the_last_tokens_that_it_sees(model):
    model.eval()
    text = [4, 5]
    for _ in range(14):
        text.append(int(model(torch.tensor([text[-LENGTH:]]))[0, -1].argmax()))
    model.train()
    assert model.generate(torch.tensor([4, 5]), 14, temperature=0.0).tolist() == text


def test_generating_changes_neither_mode_nor_generator(model):
    model.train()
    model.blocks[0].eval()
    before, modes = torch.get_rng_state(), [part.training for part in model.modules()]
    model.generate(torch.tensor([1]), 3)
    assert torch.equal(before, torch.get_rng_state())
    assert [part.training for part in model.modules()] == modes
    model.train()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=9),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.one_of(st.none(), st.integers(1, 10)),
    st.one_of(st.none(), st.floats(0.01, 1.0)),
    st.floats(0, 1, exclude_max=True),
)
def test_a_choice_is_the_inverse_of_the_distribution(logits, temperature, top_k, top_p, uniform):
    chances = torch.tensor(logits).double().div(temperature).softmax(0).tolist()
    order = sorted(range(len(logits)), key=lambda token: -chances[token])[:top_k]
    kept, before = [], [0.0]  # the tokens that are left, and the chance of those before each
    for token in order:
        if kept and top_p is not None and before[-1] / sum(chances[each] for each in order) >= top_p:
            break
        kept.append(token)
        before.append(before[-1] + chances[token])
    edges = [edge / before[-1] for edge in before]
    shares = [edge / sum(chances[each] for each in order) for edge in before]
    assume(all(abs(edge - uniform) > 1e-9 for edge in edges[1:]))  # rounding decides there
    assume(top_p is None or all(abs(share - top_p) > 1e-9 for share in shares))
    found = Sampling(temperature, top_k, top_p).choose(torch.tensor([logits]), torch.tensor([uniform]).double())
    assert int(found) == next(token for token, edge in zip(kept, edges[1:]) if edge > uniform)


def test_the_last_number_below_1_chooses_no_token_that_is_left_out():
    largest = torch.tensor([1.0 - 2.0**-53], dtype=torch.float64)
    for logits in ([0.0, 0.0, 0.0], [3.0, 0.1, -7.0], [0.3, 0.1, 0.2]):
        assert (
            Sampling(top_k=2).choose(torch.tensor([logits]), largest)
            == sorted(range(3), key=lambda token: -logits[token])[1]
        )


def test_no_position_sees_a_later_token(model):
    model.eval()
    text = torch.randint(11, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    before = model(text)
    for place in (1, 5, 9):
        changed = text.clone()
        changed[:, place] = (changed[:, place] + 1) % 11
        after = model(changed)
        assert torch.allclose(before[:, :place], after[:, :place], rtol=1e-12)
        assert not torch.allclose(before[:, place], after[:, place])
    model.train()


@few
@given(prompts(), st.integers(-100, 200), st.booleans())
def test_padding_of_any_number_on_either_side_changes_no_real_token(model, given_texts, fill, behind):
    model.eval()
    given_texts = [text[:LENGTH] for text in given_texts]
    tokens, mask = together(given_texts)
    if behind:
        tokens, mask = tokens.flip(1), mask.flip(1)
        given_texts = [text.flip(0) for text in given_texts]
    found = model(torch.where(mask, tokens, fill), mask)
    assert torch.equal(found, model(tokens, mask))
    for row, text in enumerate(given_texts):
        assert torch.allclose(found[row][mask[row]], model(text[None])[0], rtol=1e-9, atol=1e-12)
    model.train()


def test_it_begins_as_gpt_2_and_ties_its_tables():
    torch.manual_seed(0)
    model = GPT(vocabulary=256, width=64, layers=8)
    assert model.head.weight is model.tokens.weight
    for name, parameter in model.state_dict().items():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.ndim == 2:
            adds = "attention.output" in name or "feed.3" in name
            assert float(parameter.std()) == pytest.approx(0.005 if adds else 0.02, rel=0.1), name
    text = torch.randint(256, (4, 32))
    loss = torch.nn.functional.cross_entropy(model(text)[:, :-1].flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(5.545, abs=0.1)  # ln 256: it knows nothing yet


def test_it_learns_a_short_text_by_heart_and_says_it():
    torch.manual_seed(0)
    text = torch.tensor([list(b"the quick brown fox jumps over the lazy dog")])
    state = ft.init_state(GPT(length=64, width=32, layers=1, heads=2), ft.language_modelling(), ft.optim.adamw(2e-2))
    for _ in range(60):
        state, metrics = ft.train_step(state, (text[:, :-1], text[:, 1:]))
    assert metrics["accuracy"] == 1.0
    assert torch.equal(ft.to_module(state).generate(text[0, :4], 39, temperature=0.0), text[0])


def test_attention_weights_are_returned_on_request():
    torch.manual_seed(0)
    model = GPT(vocabulary=11, length=LENGTH, width=8, layers=2, heads=2, attention_weights=True)
    state = ft.init_state(model, ft.language_modelling(), ft.optim.adamw(1e-3))
    text = torch.arange(12).view(2, 6) % 11
    found = ft.observe(state, [(text, text)]).attention
    assert [tuple(weights.shape) for weights in found.values()] == [(2, 2, 6, 6)] * 2
    for weights in found.values():
        assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 6))
        assert not weights.triu(1).any()
    assert ft.to_module(state).generate(text, 3).shape == (2, 9)


PROMPT = torch.tensor([[1, 2]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n must be at least 0, got -1"),
        ({"n": 1.5}, "n must be a whole number, got 1.5"),
        ({"temperature": -0.1}, "temperature must be a finite number of at least 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be a finite number of at least 0, got nan"),
        ({"top_k": 0}, "top_k must be a whole number of at least 1, or None; got 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, or None; got 0.0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1, or None; got 1.1"),
        ({"prompt": torch.zeros(2, 0, dtype=torch.int64)}, r"at least one token; got torch.int64 \[2, 0\]"),
        ({"prompt": torch.zeros(1, 2)}, r"a prompt is integers \[B, S\] or \[S\] .* got torch.float32 \[1, 2\]"),
        ({"prompt": torch.tensor([[1, 11]])}, "the tokens of a prompt must be from 0 to 10, got 1 to 11"),
        ({"prompt": torch.tensor([[-1, 3]])}, "the tokens of a prompt must be from 0 to 10, got -1 to 3"),
        ({"mask": torch.tensor([[1, 0]])}, "the padding of a prompt must stand before its text"),
        ({"mask": torch.tensor([[0, 0]])}, "each text have a token"),
        ({"mask": torch.tensor([[1, 1, 1]])}, r"mask must be of shape \[1, 2\]"),
    ],
)
def test_refuses_what_it_cannot_continue(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**{"prompt": PROMPT, "n": 2, **arguments})


def test_refuses_longer_texts_and_logits_that_are_not_finite(model):
    with pytest.raises(ValueError, match=r"S at most 10; got \[2, 11\]"):
        model(torch.zeros(2, 11, dtype=torch.int64))
    broken = GPT(vocabulary=5, length=4, width=4, layers=1, heads=1)
    with torch.no_grad():
        broken.norm.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        broken.generate(torch.tensor([1]), 1)
