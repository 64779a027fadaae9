"""A parameter that the loss does not use has gradient 0, so that decay still shrinks it; torch skips it."""

import pytest
import torch
from torch import nn

import functrain as ft


class WithSpareHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.spare = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        return self.head(x)


BATCH = (torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64))


def initial(optimizer):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ft.init_state(WithSpareHead(), ft.regression(), optimizer, precision="fp64")


def test_weight_decay_shrinks_what_the_loss_does_not_use_where_torch_skips_it():
    before = initial(ft.optim.adamw(0.1, weight_decay=0.5))
    after, _ = ft.train_step(before, BATCH)
    for name in ("spare.weight", "spare.bias"):
        torch.testing.assert_close(after.params[name], before.params[name] * (1 - 0.1 * 0.5), rtol=1e-15, atol=0)
    model = ft.to_module(before)
    reference = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    ((model(BATCH[0]) - BATCH[1]) ** 2).mean().backward()
    reference.step()
    assert torch.equal(model.spare.weight, before.params["spare.weight"])  # torch's grad is None: skipped


@pytest.mark.parametrize(
    "optimizer",
    [
        ft.optim.sgd(0.1, momentum=0.9),
        ft.optim.adamw(0.1, weight_decay=0.0),
        ft.optim.partition({"spare.*": ft.optim.freeze(), "*": ft.optim.adamw(0.1, weight_decay=0.5)}),
        ft.optim.adamw(0.1, weight_decay=0.5, weight_decay_mask=lambda path, leaf: not path.startswith("spare")),
    ],
    ids=["sgd", "adamw without decay", "frozen", "spared by a mask"],
)
def test_without_decay_or_frozen_it_stays_as_it_is(optimizer):
    state = before = initial(optimizer)
    for _ in range(3):
        state, _ = ft.train_step(state, BATCH)
    for name in ("spare.weight", "spare.bias"):
        assert torch.equal(state.params[name], before.params[name])
    assert not torch.equal(state.params["head.weight"], before.params["head.weight"])
