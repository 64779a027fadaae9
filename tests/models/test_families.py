"""What all networks promise: each trains, eagerly and as one graph, and refuses arguments out of range."""

import pytest
import torch

import functrain as ft
from functrain.models import REGISTRY
from functrain.objectives.outputs import output_of
from functrain.objectives.supervised import call

IMAGES = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BYTES = torch.arange(4 * 9).view(4, 9) % 7
SMALL_VIT = {"size": 8, "patch": 4, "width": 8, "layers": 1, "heads": 2}
CLASSES, PIXELS = torch.arange(4) % 3, torch.arange(4 * 64).view(4, 8, 8) % 3
SPECTRA = torch.randn(4, 2, 20, generator=torch.Generator().manual_seed(1))
SPECTRA_BATCH = ((SPECTRA, torch.ones(4, 2, dtype=torch.bool), SPECTRA[:, 0, :5]), CLASSES)
SMALL_MULTIMODAL = {"tab_dim": 5, "spec_len": 20, "spec_emb": 8, "tab_emb": 6, "num_classes": 3, "fusion_dim": 8}
PIXEL_BATCH, IMAGE_BATCH, TEXT_BATCH = (IMAGES, PIXELS), (IMAGES, CLASSES), (BYTES[:, :-1], BYTES[:, 1:])

# name -> arguments, objective, batch, shape of the first output
CASES = {
    "attention_multimodal": ({**SMALL_MULTIMODAL, "hidden_dims": (8,)}, ft.classification(), SPECTRA_BATCH, (4, 3)),
    "byte_transformer": ({"width": 8, "layers": 1, "heads": 2}, ft.language_modelling(), TEXT_BATCH, (4, 8, 256)),
    "cnn": ({"num_classes": 3, "widths": (2, 4)}, ft.classification(), IMAGE_BATCH, (4, 3)),
    "dense_vit": ({**SMALL_VIT, "out_channels": 3}, ft.segmentation(), PIXEL_BATCH, (4, 3, 8, 8)),
    "digits_cnn": ({"channels": 2, "num_classes": 3}, ft.classification(), IMAGE_BATCH, (4, 3)),
    "encoder_decoder": ({"out_channels": 3, "width": 2}, ft.segmentation(), PIXEL_BATCH, (4, 3, 8, 8)),
    "gpt": ({"width": 8, "layers": 1, "heads": 2, "vocabulary": 7}, ft.language_modelling(), TEXT_BATCH, (4, 8, 7)),
    "masked_autoencoder": ({**SMALL_VIT, "decoder_width": 4}, ft.masked_reconstruction(), IMAGE_BATCH, (4, 4, 16)),
    "mlp": ({"inputs": 8, "outputs": 3, "width": 4}, ft.classification(), (IMAGES[:, 0, 0], CLASSES), (4, 3)),
    "resnet": (
        {"in_channels": 1, "num_classes": 3, "blocks": (1, 1), "width": 2},
        ft.classification(),
        IMAGE_BATCH,
        (4, 3),
    ),
    "tft_multimodal": (SMALL_MULTIMODAL, ft.classification(), SPECTRA_BATCH, (4, 3)),
    "unet": ({"out_channels": 3, "width": 2, "dropout": 0.1}, ft.segmentation(), PIXEL_BATCH, (4, 3, 8, 8)),
    "vit": ({**SMALL_VIT, "num_classes": 3}, ft.classification(), IMAGE_BATCH, (4, 3)),
}


def test_each_network_has_a_case():
    assert set(CASES) == set(REGISTRY)


@pytest.mark.parametrize("name", CASES)
def test_a_network_gives_what_its_docstring_says_and_trains(name):
    arguments, objective, batch, shape = CASES[name]
    torch.manual_seed(0)
    model = REGISTRY[name](**arguments)
    first = "prediction" if name == "masked_autoencoder" else "logits"
    assert output_of(call(model.eval(), batch[0]), None, first).shape == shape
    state = ft.init_state(model.train(), objective, ft.optim.sgd(0.1), seed=3)
    moved, metrics = ft.train_step(state, batch)
    assert metrics["loss"].isfinite()
    assert moved.params.keys() == dict(model.named_parameters()).keys()
    assert all(parameter.isfinite().all() for parameter in moved.params.values())
    assert any(not torch.equal(moved.params[leaf], state.params[leaf]) for leaf in state.params)


QUICK = ("gpt", "masked_autoencoder")  # they hold what others are made of; a compilation takes seconds
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_a_network_trains_as_one_graph(name):
    arguments, objective, batch, _ = CASES[name]
    torch.manual_seed(0)
    state = ft.init_state(REGISTRY[name](**arguments), objective, ft.optim.sgd(0.1), seed=3)
    eager, metrics = ft.train_step(state, batch)
    compiled, same = ft.compile(ft.train_step, backend="aot_eager")(state, batch)
    assert metrics["loss"] == pytest.approx(same["loss"].item(), rel=1e-5)
    for leaf, parameter in eager.params.items():
        assert torch.allclose(parameter, compiled.params[leaf], atol=1e-5), leaf


IMAGE_NETWORKS = ["cnn", "dense_vit", "masked_autoencoder", "resnet", "unet", "vit"]


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_a_network_names_the_parameter_that_an_image_does_not_fit(name):
    model = REGISTRY[name](**CASES[name][0])
    for images in (torch.zeros(2, 3, 8, 8), torch.zeros(2, 64), torch.zeros(1, 8, 8)):
        with pytest.raises(ValueError, match=r"takes images of shape \[B, 1, .*in_channels is their number of"):
            model(images)
    if name in ("dense_vit", "masked_autoencoder", "vit"):
        with pytest.raises(ValueError, match=r"got \[2, 1, 12, 12\]; .* size their height and width"):
            model(torch.zeros(2, 1, 12, 12))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cnn", {"widths": ()}, r"widths must be one or more whole numbers of at least 1, got \(\)"),
        ("cnn", {"widths": (8, 0)}, r"widths must be .* got \(8, 0\)"),
        ("cnn", {"in_channels": True}, "in_channels must be a whole number, got True"),
        ("resnet", {"blocks": 2}, "blocks must be one or more whole numbers of at least 1, got 2"),
        ("resnet", {"stem": "tiny"}, 'stem must be "small" or "large", got \'tiny\''),
        ("resnet", {"dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
        ("unet", {"norm": "layer"}, 'norm must be "batch" or "instance", got \'layer\''),
        ("unet", {"depth": 7}, "depth must be from 1 to 6, got 7"),
        ("unet", {"width": 0}, "width must be at least 1, got 0"),
        ("vit", {"size": 30}, "size must be a multiple of patch, got 30 and 4"),
        ("vit", {"size": (28, 28, 28)}, "size must be a whole number of at least 1, or two for height and width"),
        ("vit", {"size": 28.0}, "size must be a whole number of at least 1, or two for height and width; got 28.0"),
        ("vit", {"width": 30, "heads": 5}, "a width must be a multiple of 4 for positions in images, got 30"),
        ("vit", {"heads": 3}, "width must be a multiple of heads, got 64 and 3"),
        ("dense_vit", {"out_channels": 0}, "out_channels must be at least 1, got 0"),
        ("masked_autoencoder", {"fraction": 1.0}, "fraction must be at least 0 and less than 1, got 1.0"),
        ("masked_autoencoder", {"fraction": 0.001}, "a fraction of 0.001 of 49 patches hides 0 of them"),
        ("masked_autoencoder", {"decoder_width": 6}, "a width must be a multiple of 4"),
        ("gpt", {"vocabulary": 0}, "vocabulary must be at least 1, got 0"),
        ("gpt", {"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 and 4"),
        ("gpt", {"ratio": 0}, "ratio must be at least 1, got 0"),
    ],
)
def test_refuses_arguments_out_of_range(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        REGISTRY[name](**arguments)
