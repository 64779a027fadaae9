"""A language model of bytes, and what it writes.   Usage: python examples/17_language_model.py [folder] [epochs]

The text is the source of Python's standard library. A model that knows nothing needs 8 bits a byte; one that is always
sure and right needs none.
"""

import sys

import torch

import functrain as ft
from functrain.models import GPT


def train(folder=None, seed=0, epochs=3):
    """The trained state, and its bits a byte on modules that it has not seen."""
    train = ft.data.Loader(ft.data.standard_library("train"), 16)
    test = ft.data.Loader(ft.data.standard_library("test"), 64, shuffle=False)
    torch.manual_seed(seed)
    schedule = ft.schedules.cosine(3e-3, total_steps=epochs * len(train), warmup_steps=100)
    optimizer = ft.optim.adamw(schedule, weight_decay=0.1, weight_decay_mask=ft.optim.no_decay_1d)
    state = ft.init_state(GPT(), ft.language_modelling(), optimizer, seed=seed, clip_norm=1.0)
    state = ft.fit(state, train, epochs=epochs, save_every=100, run_dir=folder).state
    [bits] = [number for number in ft.evaluation_report(state, test).numbers if number.name == "bits_per_token"]
    text = ft.to_module(state).generate(torch.tensor(list(b"def __init__(self, ")), 200, temperature=0.7, key=seed)
    return bits, bytes(text.tolist()).decode(errors="replace")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "language_model"
    bits, text = train(folder, epochs=int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    low, high = bits.interval
    print(f"bits a byte {bits.value:.3f}, with 95 % confidence between {low:.3f} and {high:.3f}")
    print(text)
