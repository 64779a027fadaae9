import pytest
import torch

import functrain as ft
from functrain.data import Loader, digits
from functrain.models import DigitsCNN


@pytest.mark.parametrize(("channels", "num_classes", "batch"), [(1, 2, 1), (4, 10, 3)])
def test_returns_a_logit_for_each_class(channels, num_classes, batch):
    model = DigitsCNN(channels, num_classes=num_classes).eval()
    assert model(torch.randn(batch, 1, 8, 8)).shape == (batch, num_classes)


def test_has_batch_statistics_and_draws_dropout_in_training_only():
    model, images = DigitsCNN(4, dropout=0.5), torch.randn(6, 1, 8, 8)
    assert any("running_mean" in name for name, _ in model.named_buffers())
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, got 1.0"),
        ({"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ({"size": 7}, "size must be even and at least 2, got 7"),
    ],
)
def test_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        DigitsCNN(**arguments)


def test_takes_images_of_the_size_that_it_is_made_for():
    assert DigitsCNN(2, size=28)(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_refuses_images_of_another_shape():
    with pytest.raises(ValueError, match=r"shape \[B, 1, 8, 8\], got \[2, 1, 28, 28\]"):
        DigitsCNN()(torch.zeros(2, 1, 28, 28))


def test_learns_a_few_digits_by_heart():
    torch.manual_seed(0)
    images, classes = digits("train").take(range(32))
    state = ft.init_state(DigitsCNN(8, dropout=0.0), ft.classification(), ft.optim.adamw(1e-2))
    for _ in range(15):
        state, metrics = ft.train_step(state, (images, classes))
    assert metrics["accuracy"] == 1.0


@pytest.mark.slow
def test_reaches_98_percent_on_digits_it_has_not_seen():
    epochs, batch_size = 20, 64
    loader = Loader(digits("train"), batch_size)
    torch.manual_seed(0)
    lr = ft.schedules.cosine(1e-2, epochs * len(loader), warmup_steps=40)
    optimizer = ft.optim.adamw(lr, weight_decay=0.05, weight_decay_mask=ft.optim.no_decay_1d)
    state = ft.init_state(DigitsCNN(24, dropout=0.4), ft.classification(label_smoothing=0.1), optimizer)
    stream = loader.stream(state.key)
    for epoch in range(epochs):
        for batch in stream.batches(epoch):
            state, _ = ft.train_step(state, batch)
    assert ft.eval_step(state, digits("test").tensors).means()["accuracy"] >= 0.98
