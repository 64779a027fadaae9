"""Vision transformers and the masked autoencoder."""

import pytest
import torch

import functrain as ft
from functrain.data import digits
from functrain.models import DenseViT, MaskedAutoencoder, ViT
from functrain.models.patches import grid_positions, patches
from functrain.models.vit import Encoder
from functrain.objectives import masked_reconstruction

SIZES = {"size": (8, 12), "in_channels": 2, "patch": 4, "width": 8, "layers": 2, "heads": 2}
IMAGES = torch.randn(5, 2, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return MaskedAutoencoder(**SIZES, decoder_width=4, decoder_layers=1, fraction=0.5)


def test_hidden_pixels_reach_no_output(autoencoder):
    found = autoencoder(IMAGES, key=7)
    assert torch.equal(found["target"], patches(IMAGES, 4))
    hidden = autoencoder.images(found["hidden"][..., None].expand_as(found["target"]))
    changed = autoencoder(torch.where(hidden, 1e6, IMAGES), key=7)
    for name in ("prediction", "embedding", "hidden"):
        assert torch.equal(found[name], changed[name]), name
    visible = autoencoder(torch.where(hidden, IMAGES, IMAGES + 1), key=7)
    assert not torch.allclose(found["embedding"], visible["embedding"])


def test_as_many_patches_of_each_image_are_hidden_and_each_at_times(autoencoder):
    hidden = torch.stack([autoencoder(IMAGES)["hidden"] for _ in range(60)])
    assert (hidden.sum(2) == 3).all()
    assert (hidden.float().mean(0) > 0.2).all()
    assert (hidden.float().mean(0) < 0.8).all()


def test_a_key_decides_what_is_hidden_and_leaves_the_generator_alone(autoencoder):
    before = torch.get_rng_state()
    first, again, other = (autoencoder(IMAGES, key=key)["hidden"] for key in (1, 1, -2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(autoencoder(IMAGES[:2], key=1)["hidden"], first[:2])
    assert not torch.equal(autoencoder(IMAGES)["hidden"], autoencoder(IMAGES)["hidden"])


def test_the_loss_is_the_mean_over_hidden_pixels_and_weighs_examples(autoencoder):
    autoencoder.double()
    images = IMAGES.double()
    outputs = autoencoder(images, key=3)
    expected = torch.stack(
        [
            (outputs["prediction"][row][outputs["hidden"][row]] - outputs["target"][row][outputs["hidden"][row]])
            .square()
            .mean()
            for row in range(5)
        ]
    )
    objective = masked_reconstruction()

    def model(given):
        return autoencoder(given, key=3)

    for batch in ((images, torch.zeros(5)), {"inputs": images, "targets": None}):
        loss = objective(model, batch)
        assert loss.weight == 5
        assert torch.allclose(loss.total, expected.sum(), rtol=1e-12)
    weight = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0])
    loss = objective(model, (images, torch.zeros(5), weight))
    assert loss.weight == 4
    assert torch.allclose(loss.total, (expected * weight).sum(), rtol=1e-12)


def test_a_step_hides_by_its_key_and_an_evaluation_repeats_itself(autoencoder):
    state = ft.init_state(autoencoder, ft.masked_reconstruction(), ft.optim.adamw(1e-2), seed=1)
    torch.manual_seed(5)
    first, _ = ft.train_step(state, (IMAGES, torch.zeros(5)))
    torch.manual_seed(6)
    again, _ = ft.train_step(state, (IMAGES, torch.zeros(5)))
    assert ft.diff_states(first, again) == []
    sums = [ft.eval_step(state, (IMAGES, torch.zeros(5))).means()["loss"] for _ in range(2)]
    assert torch.equal(*sums)


def test_normalized_targets_have_mean_0_and_deviation_1():
    model = MaskedAutoencoder(**SIZES, normalize_pixels=True)
    target = model(IMAGES)["target"]
    assert torch.allclose(target.mean(-1), torch.zeros(5, 6), atol=1e-6)
    assert torch.allclose(target.std(-1), torch.ones(5, 6), atol=1e-4)
    assert not model(torch.ones_like(IMAGES))["target"].any()


def test_an_encoder_fits_all_three_networks(autoencoder):
    parts = {
        name: {key: parameter for key, parameter in model.named_parameters() if key.startswith("encoder.")}
        for name, model in (("mae", autoencoder), ("vit", ViT(**SIZES)), ("dense", DenseViT(**SIZES)))
    }
    assert parts["mae"].keys() == parts["vit"].keys() == parts["dense"].keys()
    assert not list(autoencoder.buffers())  # nothing else of an encoder must fit
    vit = ViT(**SIZES).eval()
    vit.load_state_dict(parts["mae"], strict=False)
    assert torch.equal(vit.encoder(IMAGES).features, autoencoder.encoder(IMAGES).features)


def test_an_encoder_sees_chosen_patches_in_any_order():
    torch.manual_seed(0)
    encoder = Encoder(8, 1, 4, 8, 2, 2, 4, 0.0).double()
    images, order = torch.randn(3, 1, 8, 8).double(), torch.tensor([[2, 0, 3, 1]] * 3)
    found = encoder(images, order).features
    assert torch.allclose(found, encoder(images).features[:, [2, 0, 3, 1]], rtol=1e-10)


def test_positions_differ():
    found = grid_positions((6, 9), torch.zeros(16))
    assert torch.cdist(found, found).add(torch.eye(54)).min() > 0.1


def test_the_attention_of_a_vision_transformer_is_observed():
    torch.manual_seed(0)
    model = ViT(**SIZES, attention_weights=True)
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-3))
    batch = (IMAGES, torch.arange(5) % 3)
    state, metrics = ft.train_step(state, batch)
    assert metrics["loss"].isfinite()
    found = ft.observe(state, [batch])
    assert found.place == "output 'embedding'"
    assert found.embedding.shape == (5, 8)
    assert [tuple(weights.shape) for weights in found.attention.values()] == [(5, 2, 6, 6)] * 2
    plain = ViT(**SIZES)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain.eval()(IMAGES), model.eval()(IMAGES)["logits"])


def test_a_vision_transformer_learns_a_few_digits_by_heart():
    torch.manual_seed(0)
    images, classes = digits("train").take(range(32))
    model = ViT(8, patch=2, width=32, layers=1, heads=2)
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(1e-2))
    for _ in range(40):
        state, metrics = ft.train_step(state, (images, classes))
    assert metrics["accuracy"] == 1.0


def test_a_masked_autoencoder_learns_to_reconstruct():
    torch.manual_seed(0)
    images, _ = digits("train").take(range(64))
    model = MaskedAutoencoder(8, patch=2, width=32, layers=1, decoder_layers=1, fraction=0.5)
    state = ft.init_state(model, ft.masked_reconstruction(), ft.optim.adamw(5e-3))
    losses = []
    for _ in range(60):
        state, metrics = ft.train_step(state, (images, images))
        losses.append(float(metrics["loss"]))
    assert max(losses[-5:]) < images.var() < losses[0]  # better than one grey for all pixels
