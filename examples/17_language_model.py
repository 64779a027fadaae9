"""A language model of bytes, sampled from at the end.   Usage: python examples/17_language_model.py [folder] [seed]

The text is the source of Python's standard library. A model that knows nothing needs 8 bits a byte; one that is always
sure and right needs none.
"""

import sys

import torch

import functrain as ft
from functrain.models import ByteTransformer

folder = sys.argv[1] if len(sys.argv) > 1 else "language_model"
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
train = ft.data.Loader(ft.data.standard_library("train"), 32)
test = ft.data.Loader(ft.data.standard_library("test"), 32, shuffle=False)
torch.manual_seed(seed)
schedule = ft.schedules.cosine(3e-3, total_steps=2 * len(train), warmup_steps=50)
optimizer = ft.optim.adamw(schedule, weight_decay=0.1, weight_decay_mask=ft.optim.no_decay_1d)
state = ft.init_state(ByteTransformer(), ft.language_modelling(), optimizer, seed=seed, clip_norm=1.0)
state = ft.fit(state, train, epochs=2, run_dir=folder).state

for number in ft.evaluation_report(state, test).numbers[1:3]:
    low, high = number.interval
    print(f"{number.name} {number.value:.3f}, with 95 % confidence between {low:.3f} and {high:.3f}")

model, text = ft.to_module(state).eval(), list(b"def __init__(self, ")
torch.manual_seed(seed)
with torch.no_grad():
    for _ in range(200):
        chances = model(torch.tensor([text[-128:]]))[0, -1].div(0.7).softmax(0)
        text.append(int(torch.multinomial(chances, 1)))
print(bytes(text).decode(errors="replace"))
