"""REINFORCE: a policy that balances a pole on a cart.   Usage: python examples/13_reinforce.py [folder]

The environment is a function of tensors within the objective: 64 carts run at the same time. What they do at random
comes from the state's key, so that a step stays a pure function, and a run that was killed goes on bit for bit.
"""

import sys

import torch
import torch.nn.functional as F

import functrain as ft
from functrain.models import MLP

LONGEST = 200


def moved(cart, right):
    """The carts [B, 4] (place, speed, angle, angular speed) 0.02 s after a push to the right or to the left [B]."""
    place, speed, angle, turning = cart.unbind(1)  # Barto, Sutton and Anderson 1983
    push = (torch.where(right, 10.0, -10.0) + 0.05 * turning**2 * angle.sin()) / 1.1
    turn = (9.8 * angle.sin() - angle.cos() * push) / (2 / 3 - 0.05 * angle.cos() ** 2 / 1.1)
    pull = push - 0.05 * turn * angle.cos() / 1.1
    return torch.stack([place + 0.02 * speed, speed + 0.02 * pull, angle + 0.02 * turning, turning + 0.02 * turn], 1)


@torch.no_grad()
def played(policy, cart):
    """What was seen [T, B, 4], what was done [T, B] and whether the pole still stood [T, B]."""
    seen, done, stood = [], [], [torch.ones(len(cart), dtype=torch.bool)]
    for _ in range(LONGEST):
        chance = policy(cart).squeeze(1).sigmoid()
        right = chance > (torch.rand_like(chance) if policy.training else 0.5)
        seen, done = [*seen, cart], [*done, right]
        cart = moved(cart, right)
        stood.append(stood[-1] & (cart[:, 0].abs() < 2.4) & (cart[:, 2].abs() < 0.21))
    return torch.stack(seen), torch.stack(done), torch.stack(stood[:-1])


def reinforce(policy, batch):
    seen, right, stood = played(policy, batch[0])
    still = stood.flip(0).cumsum(0).flip(0).float()  # how many moves the pole will stand from here on: the return
    advantage = (still - still.mean(1, keepdim=True)) * stood  # against the other carts at that time
    losses = F.binary_cross_entropy_with_logits(policy(seen).squeeze(2), right.float(), reduction="none") * advantage
    return ft.Loss(losses.sum() / LONGEST, len(batch[0]), {"moves": stood.sum()})


def train(folder=None, seed=0):
    """The mean number of moves, of 200, for which the pole stands on carts that the policy has not seen."""
    torch.manual_seed(seed)
    carts, others = (ft.data.Loader(ft.data.Arrays(torch.rand(1024, 4) / 10 - 0.05), 64) for _ in range(2))
    state = ft.init_state(MLP(4, 1, width=32, depth=1), reinforce, ft.optim.adam(1e-2), seed=seed)
    before = ft.evaluate(state, others)["moves"]
    state = ft.fit(state, carts, epochs=10, run_dir=folder, compile=False).state
    return before, ft.evaluate(state, others)["moves"]


if __name__ == "__main__":
    before, after = train(sys.argv[1] if len(sys.argv) > 1 else "reinforce")
    print(f"the pole stands for {before:.0f} moves before training, and for {after:.1f} of {LONGEST} after it")
