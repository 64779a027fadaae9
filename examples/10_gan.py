"""A GAN: two networks, two states, one compiled step.   Usage: python examples/10_gan.py [folder] [epochs]

Both states are in one checkpoint, with which the same call goes on. At the end the nearest drawn digit reads real ones.
"""

import sys

import torch
import torch.nn.functional as F
from torch.func import functional_call

import functrain as ft
from functrain.models import MLP

torch.manual_seed(0)
networks = {"generator": MLP(32 + 10, 64, width=256), "discriminator": MLP(64 + 10, 1, width=256)}


def draw(generator, classes):  # within a step, random numbers come from the key of its state
    named = F.one_hot(classes, 10)
    images = generator(torch.cat([torch.randn(len(classes), 32), named], 1)).sigmoid()
    return torch.cat([images, named], 1)


def tell_apart(discriminator, batch):
    (images, classes), params = batch
    real = torch.cat([images.flatten(1), F.one_hot(classes, 10)], 1)
    drawn = draw(lambda values: functional_call(networks["generator"], params, values), classes)
    return ft.Loss((F.softplus(-discriminator(real)) + F.softplus(discriminator(drawn))).sum(), len(classes))


def deceive(generator, batch):
    (_, classes), params = batch
    judged = functional_call(networks["discriminator"], params, draw(generator, classes))
    return ft.Loss(F.softplus(-judged).sum(), len(classes))


def gan_step(states, batch, *, run):  # `ft.compile` gives `run`; the other network's parameters are data
    discriminator, _ = ft.train_step(states["discriminator"], (batch, states["generator"].params), run=run)
    generator, _ = ft.train_step(states["generator"], (batch, discriminator.params), run=run)
    return {"generator": generator, "discriminator": discriminator}


adam = ft.optim.adam(5e-4, betas=(0.5, 0.999))
objectives = {"generator": deceive, "discriminator": tell_apart}
states = {name: ft.init_state(networks[name], objectives[name], adam, ema_decay=0.99) for name in networks}
stream, step = ft.data.Loader(ft.data.digits("train"), 64, drop_last=True).stream(key=0), ft.compile(gan_step)
with ft.Checkpointer(sys.argv[1] if len(sys.argv) > 1 else "gan") as checkpoints:
    if checkpoints.names():
        states = checkpoints.restore(like=states).tree
    for epoch in range(states["generator"].epoch, int(sys.argv[2]) if len(sys.argv) > 2 else 200):
        for batch in stream.batches(epoch):
            states = step(states, batch)
        states = {name: state.after_epochs(epoch + 1) for name, state in states.items()}
        checkpoints.save(states, step=states["generator"].step)

images, digits = ft.data.digits("test").tensors
drawn = draw(ft.to_module(states["generator"], ema=True), torch.arange(1000) % 10)[:, :64]
nearest = torch.cdist(images.flatten(1), drawn).argmin(1) % 10
print(f"read by the nearest of 1,000 drawn digits: test accuracy {(nearest == digits).float().mean():.1%}")
