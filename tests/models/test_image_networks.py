"""CNN, ResNet and U-Net."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.data import digits
from functrain.models import CNN, EncoderDecoder, ResNet, UNet


def sizes(model):
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("blocks", "bottleneck", "parameters"),
    [
        # Of torchvision's documentation.
        ((2, 2, 2, 2), False, 11_689_512),
        ((3, 4, 6, 3), True, 25_557_032),
    ],
)
def test_a_resnet_has_torchvisions_parameters(blocks, bottleneck, parameters):
    with torch.device("meta"):
        model = ResNet(3, 1000, blocks, bottleneck=bottleneck, stem="large")
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    found = sizes(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert found["conv1.weight"] == (64, 3, 7, 7)
    assert found["layer2.0.downsample.0.weight"] == ((512, 256, 1, 1) if bottleneck else (128, 64, 1, 1))
    assert found["layer4.1.conv2.weight"] == (512, 512, 3, 3)
    assert {"bn1.running_mean", "layer1.0.bn2.num_batches_tracked"} <= dict(model.named_buffers()).keys()
    assert {"fc.weight", "fc.bias"} <= found.keys()


def test_the_residual_network_of_cifar_has_the_papers_parameters():
    model = ResNet(3, 10, (3, 3, 3), width=16)
    weights = sum(parameter.numel() for name, parameter in model.named_parameters() if "downsample" not in name)
    assert round(weights, -4) == 270_000  # table 6 of the paper: 0.27 million; its shortcuts have none


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_residual_block_begins_as_the_identity(bottleneck):
    torch.manual_seed(0)
    model = ResNet(1, 3, (2,), width=4, bottleneck=bottleneck)
    features = torch.rand(2, 16 if bottleneck else 4, 6, 6)
    assert torch.equal(model.layer1[1](features), features)


def test_a_resnet_with_a_large_stem_quarters_images():
    model = ResNet(1, 3, (1,), width=2, stem="large").eval()
    seen = []
    model.layer1.register_forward_pre_hook(lambda _module, given: seen.append(given[0].shape))
    model(torch.zeros(2, 1, 64, 48))
    assert seen == [(2, 2, 16, 12)]


def test_a_unet_is_the_encoder_decoder_where_that_takes_the_image():
    torch.manual_seed(0)
    ours, theirs = UNet(2, 3, width=4, depth=2).eval(), EncoderDecoder(2, 3, width=4, depth=2).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 2, 8, 12)
    assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("size", [(8, 8), (9, 14), (1, 1), (3, 17)])
def test_a_unet_gives_an_output_for_each_pixel_of_images_of_any_size(size):
    torch.manual_seed(0)
    model = UNet(1, 2, width=2, depth=2).eval()
    images = torch.randn(2, 1, *size)
    extended = nn.functional.pad(images, (0, -size[1] % 4, 0, -size[0] % 4))
    assert torch.equal(model(images), model(extended)[:, :, : size[0], : size[1]])
    assert model(images).shape == (2, 2, *size)


def test_images_do_not_depend_on_each_other_with_instance_normalisation():
    torch.manual_seed(0)
    model = UNet(1, 2, width=2, depth=1, norm="instance").double()  # in training mode
    images = torch.randn(3, 1, 8, 8).double()
    assert torch.allclose(model(images)[:1], model(images[:1]), rtol=1e-10)
    assert not list(model.buffers())


@pytest.mark.parametrize("training", [True, False])
def test_instance_normalisation_refuses_images_of_which_one_pixel_is_left(training):
    torch.manual_seed(0)
    model = UNet(1, 2, width=2, depth=2, norm="instance").train(training)
    for size in ((1, 1), (4, 3)):
        with pytest.raises(
            ValueError, match=f"images of {size[0]} x {size[1]} pixels, halved 2 times, leave one pixel"
        ):
            model(torch.zeros(2, 1, *size))
    for size in ((5, 1), (4, 5)):  # two pixels are left
        assert model(torch.randn(2, 1, *size)).isfinite().all()
    assert UNet(1, 2, width=2, depth=2).train(training)(torch.zeros(2, 1, 1, 1)).shape == (2, 2, 1, 1)


def test_a_cnn_takes_images_of_any_size_and_learns_digits():
    torch.manual_seed(0)
    model = CNN(widths=(8, 16))
    assert model(torch.zeros(2, 1, 5, 7)).shape == (2, 10)
    batch = digits("train").take(range(32))
    state = ft.init_state(model, ft.classification(), ft.optim.adamw(2e-2))
    for _ in range(15):
        state, metrics = ft.train_step(state, batch)
    assert metrics["accuracy"] > 0.8


@pytest.mark.parametrize("make", [CNN, lambda: ResNet(1, 10, (1, 1), width=8), lambda: UNet(1, 2, width=8)])
def test_activations_neither_vanish_nor_explode_at_the_start(make):
    torch.manual_seed(0)
    model, spreads = make(), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(lambda _module, _given, out: spreads.append(out.std().item()))
    model(torch.randn(8, 1, 16, 16))
    assert all(0.2 < spread < 5.0 for spread in spreads), spreads
