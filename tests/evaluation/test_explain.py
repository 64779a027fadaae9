"""`ft.explain` and `ft.observe`: what is explained, what is refused, and that companions do not matter."""

import numpy as np
import pytest
import torch
from torch import nn

import functrain as ft
from functrain.evaluation.explaining import METHODS, pca, tsne
from functrain.evaluation.explaining.observing import spread_examples

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def state_of(net, objective=None, **options):
    return ft.init_state(net, objective or ft.classification(), ft.optim.sgd(0.1), seed=0, **options)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)),
        *(nn.Flatten(), nn.Linear(36, 3)),
    )


class Multimodal(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectra, self.tabular, self.head = nn.Linear(7, 4), nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, spectra, mask, tabular):
        weights = (self.spectra(spectra).sum(-1).masked_fill(~mask, -torch.inf)).softmax(-1)
        embedding = (self.spectra(spectra).tanh() * weights[..., None]).sum(1) + self.tabular(tabular).tanh()
        found = {"logits": self.head(embedding), "embedding": embedding, "attention_weights": weights[:, None]}
        return found | {"gates": {"all": embedding.sigmoid(), "one": embedding[:, 0].sigmoid()}}


def patients(rows=5):
    generator = torch.Generator().manual_seed(1)
    return {
        "spectra": torch.randn(rows, 4, 7, generator=generator),
        "mask": torch.rand(rows, 4, generator=generator) < 0.8,
        "tabular": torch.randn(rows, 3, generator=generator),
    } | {"mask": torch.ones(rows, 4, dtype=torch.bool)}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_explains_the_predicted_class(method):
    state = state_of(convolutional())
    baseline = {"baseline": IMAGES[:2]} if method == "gradient_shap" else {}
    found = ft.explain(state, (IMAGES, None), method=method, **baseline)
    logits = ft.predict(state, [(IMAGES, torch.zeros(6))])
    assert torch.equal(found.target, logits.argmax(1))
    torch.testing.assert_close(found.scores, logits.amax(1))
    assert (found.method, found.values.shape) == (method, IMAGES.shape)
    alone = ft.explain(state, IMAGES[3:4], method=method, **baseline)
    at_once = method in ("saliency", "input_x_gradient")  # of many examples, to rounding
    torch.testing.assert_close(alone.values[0], found.values[3], rtol=1e-5 * at_once, atol=1e-6 * at_once)


def test_integrated_gradients_in_fp64_of_a_state_in_bf16():
    found = ft.explain(state_of(convolutional(), precision="bf16"), IMAGES, precision="fp64")
    assert found.values.dtype is torch.float64
    assert found.completeness.max() < 1e-6


def test_what_is_explained_can_be_chosen():
    state = state_of(convolutional())
    each = ft.explain(state, IMAGES[:3], method="saliency", target=torch.tensor([0, 1, 2]))
    for number in range(3):
        one = ft.explain(state, IMAGES[:3], method="saliency", target=number)
        assert torch.equal(one.values[number], each.values[number])


def test_several_inputs_of_which_some_cannot_vary():
    state, inputs = state_of(Multimodal()), patients()
    found = ft.explain(state, {"inputs": inputs, "targets": torch.zeros(5)}, precision="fp64")
    assert list(found.named()) == ["spectra", "tabular"]
    assert found.values["mask"] is None
    assert found.completeness.max() < 1e-6
    reference = {name: leaf[:2] for name, leaf in inputs.items()}
    shap = ft.explain(state, (inputs, None), method="gradient_shap", baseline=reference, samples=4)
    assert shap.values["tabular"].shape == (5, 3)


def test_outputs_of_pixels_are_explained_by_their_mean():
    state = state_of(nn.Conv2d(1, 2, 3, padding=1), ft.segmentation())
    with pytest.raises(ValueError, match="a class for each pixel; say which one to explain: target=0 to 1"):
        ft.explain(state, IMAGES)
    found = ft.explain(state, IMAGES, method="saliency", target=1)
    outputs = ft.predict(state, [(IMAGES, torch.zeros(6))])
    torch.testing.assert_close(found.scores, outputs[:, 1].flatten(1).mean(1))


def test_neither_generators_nor_the_state_change():
    state = state_of(convolutional())
    digest, before = ft.digest(state), torch.get_rng_state()
    first = ft.explain(state, IMAGES, method="smooth_grad", samples=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert ft.digest(state) == digest
    torch.manual_seed(123)
    assert torch.equal(ft.explain(state, IMAGES, method="smooth_grad", samples=3).values, first.values)
    assert not torch.equal(ft.explain(state, IMAGES, method="smooth_grad", samples=3, seed=1).values, first.values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "shap"}, "method must be one of integrated_gradients, saliency"),
        ({"method": "saliency", "samples": 3}, "saliency takes no samples; it is an argument of smooth_grad and gradi"),
        ({"method": "gradient_shap"}, "gradient_shap needs baseline="),
        ({"target": 3}, "the model has the outputs 0 to 2; target=3 is none of them"),
        ({"target": torch.tensor([0, 1])}, "one for each of the 6 examples"),
        ({"target": 1.5}, "target must be the number of a class"),
        ({"target": "a"}, "target must be the number of a class, or one for each of the 6 examples; got 'a'"),
        ({"target": True}, "got True"),
        ({"method": "gradient_shap", "baseline": 0.5}, "gradient_shap needs baseline=: inputs of other examples"),
        ({"precision": "bf16"}, "precision must be one of fp32, fp64"),
        ({"ema": True}, "this state keeps no moving average"),
        ({"rows": 0}, "must be 1 or more"),
    ],
)
def test_wrong_arguments_are_one_message(options, message):
    with pytest.raises(ValueError, match=message):
        ft.explain(state_of(convolutional()), IMAGES, **options)


def test_inputs_that_cannot_be_explained():
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="they need an input of floating-point numbers"):
        ft.explain(state_of(tokens), torch.zeros(2, 2, dtype=torch.long))
    values = state_of(nn.Linear(2, 3), ft.regression())
    with pytest.raises(ValueError, match="the model gives 3 values; say which one to explain: target=0 to 2"):
        ft.explain(values, torch.ones(2, 2))
    assert ft.explain(values, torch.ones(2, 2), target=2).values.shape == (2, 2)
    with pytest.raises(ValueError, match="no example to explain: the inputs have no rows"):
        ft.explain(values, torch.ones(0, 2), target=2)
    with pytest.raises(TypeError, match=r"one batch, such as next\(iter\(loader\)\); got a Loader"):
        ft.explain(values, ft.data.Loader(ft.data.Arrays(torch.ones(2, 2), torch.ones(2, 3)), batch_size=2))
    one = state_of(nn.Linear(2, 1), ft.regression(), precision="fp64")
    with pytest.raises(ValueError, match="the model has no layer 'x'; it has no parts; leave layer out"):
        ft.observe(one, [(torch.ones(2, 2), torch.ones(2, 1))], layer="x")
    assert ft.explain(one, torch.ones(2, 2)).completeness.max() < 1e-12


def test_the_embedding_is_the_models_own_or_a_layers():
    state, inputs = state_of(Multimodal()), patients()
    loader = [{"inputs": inputs, "targets": torch.arange(5)}]
    found = ft.observe(state, loader)
    assert found.place == "output 'embedding'"
    outputs = ft.predict(state, loader)
    assert torch.equal(found.embedding, outputs["embedding"])
    assert torch.equal(found.attention["attention_weights"], outputs["attention_weights"])
    assert torch.equal(found.targets, torch.arange(5))
    assert torch.equal(found.gates["gates all"], outputs["gates"]["all"])
    assert found.gates["gates one"].shape == (5, 1)
    layer = ft.observe(state, loader, layer="head")
    assert torch.equal(layer.embedding, outputs["logits"])
    with pytest.raises(ValueError, match=r"no layer 'heat'; it has head"):
        ft.observe(state, loader, layer="heat")


def test_without_one_it_is_what_the_last_linear_layer_gets():
    found = ft.observe(state_of(convolutional()), (each for each in IMAGES.split(4)))
    assert (found.place, found.embedding.shape) == ("input of layer 6", (6, 36))
    assert (found.targets, found.attention) == (None, {})
    none = ft.observe(state_of(nn.Conv2d(1, 2, 8), ft.segmentation()), (each for each in IMAGES.split(4)))
    assert none.embedding is None


def test_principal_components_are_those_of_the_covariance():
    points = np.random.default_rng(0).normal(size=(30, 5)) * np.array([5, 3, 2, 1, 0.5])
    found = pca(points)
    sizes, directions = np.linalg.eigh(np.cov(points.T))
    np.testing.assert_allclose(found.explained, sizes[::-1] / sizes.sum(), atol=1e-12)
    expected = (points - points.mean(0)) @ directions[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(found.points), np.abs(expected), atol=1e-10)
    np.testing.assert_allclose(pca(points[::-1]).points, found.points[::-1], atol=1e-10)  # the sign is fixed
    assert pca(np.ones((4, 2))).explained.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="at least 2 examples"):
        pca(points[:1])
    with pytest.raises(ValueError, match="not finite"):
        pca(points * np.nan)


def test_tsne_separates_and_repeats():
    points = np.random.default_rng(0).normal(size=(24, 5))
    points[12:] += 30
    found = tsne(points).points
    assert np.array_equal(found, tsne(points).points)
    between = np.linalg.norm(found[:12].mean(0) - found[12:].mean(0))
    assert between > 2 * max(np.linalg.norm(found[:12].std(0)), np.linalg.norm(found[12:].std(0)))
    with pytest.raises(ValueError, match="at least 4 examples"):
        tsne(points[:3])


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (3, [0, 4, 9]), (4, [0, 3, 6, 9]), (99, list(range(10)))])
def test_examples_are_taken_at_equal_distances(count, expected):
    batches = spread_examples((each for each in torch.arange(10).split(3)), 10, count)
    assert torch.cat(list(batches)).tolist() == expected
