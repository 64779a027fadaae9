import pytest
import torch

import functrain as ft
from functrain.models import ByteTransformer


def test_no_position_sees_a_later_byte():
    torch.manual_seed(0)
    model = ByteTransformer(16, layers=2, heads=2, length=12).double()
    text = torch.randint(256, (3, 12))
    before = model(text)
    for place in (1, 7, 11):
        changed = text.clone()
        changed[:, place] = (changed[:, place] + 1) % 256
        after = model(changed)
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.allclose(before[:, place], after[:, place])


def test_it_learns_a_short_text_by_heart():
    torch.manual_seed(0)
    text = torch.tensor([list(b"the quick brown fox jumps over the lazy dog")])
    state = ft.init_state(
        ByteTransformer(32, layers=1, heads=2, length=64), ft.language_modelling(), ft.optim.adamw(1e-2)
    )
    for _ in range(60):
        state, metrics = ft.train_step(state, (text[:, :-1], text[:, 1:]))
    assert metrics["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 and 4"),
        ({"dropout": -0.1}, "dropout must be at least 0 and less than 1, got -0.1"),
    ],
)
def test_refuses_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        ByteTransformer(**arguments)


def test_refuses_longer_texts():
    with pytest.raises(ValueError, match=r"T at most 8; got \[2, 9\]"):
        ByteTransformer(8, heads=2, length=8)(torch.zeros(2, 9, dtype=torch.int64))
