"""A class for each pixel: which digit is the ink of?   Usage: python examples/08_segmentation.py [folder]"""

import sys
from pathlib import Path

import torch

import functrain as ft
from functrain.models import EncoderDecoder

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "segmentation")
train = ft.data.Loader(ft.data.segmented_digits("train"), 64)
test = ft.data.Loader(ft.data.segmented_digits("test"), 64, shuffle=False)

torch.manual_seed(0)
model = EncoderDecoder(in_channels=1, out_channels=11, width=16, depth=2)
schedule = ft.schedules.cosine(5e-3, total_steps=10 * len(train), warmup_steps=20)
state = ft.init_state(model, ft.segmentation(), ft.optim.adamw(schedule), clip_norm=1.0)
state = ft.fit(state, train, epochs=10, metrics=["dice"], run_dir=f"{folder}/run").state

report = ft.evaluation_report(state, test, labels=["none", *map(str, range(10))])
ft.write_report(report, folder, title="Ink of the digits")
classes = ft.predict(state, test).argmax(1)  # [N, 8, 8]
for row in classes[0].tolist():
    print(" ".join("." if number == 0 else str(number - 1) for number in row))
dice = {number.name: number.value for number in report.numbers}["mean_dice_without_class_0"]
print(f"mean Dice of the ten digits {dice:.3f}")
