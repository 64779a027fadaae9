"""Numbers to predict, and is a network better than a line?   Usage: python examples/07_regression.py [folder]

The progression of diabetes within a year from ten measurements. A model of scikit-learn is compared with a network of
ours on the same patients: any function of the inputs is a model. (pip install scikit-learn)
"""

import sys

import torch
from sklearn.linear_model import Ridge
from torch import nn

import functrain as ft

folder = sys.argv[1] if len(sys.argv) > 1 else "regression"
data = {part: ft.data.diabetes(part) for part in ("train", "val", "test")}
line = Ridge(alpha=10.0).fit(*(tensor.numpy() for tensor in data["train"].tensors))

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
state = ft.init_state(model, ft.regression(), ft.optim.adamw(3e-3, weight_decay=0.1))
train, val, test = (ft.data.Loader(data[part], 32, shuffle=part == "train") for part in data)
network = ft.fit(state, train, eval_loader=val, epochs=40, run_dir=f"{folder}/run")

models = {"network": network, "line": lambda inputs: line.predict(inputs.numpy()).reshape(-1, 1)}
found = ft.compare_models(models, test, metrics=["r2", "rmse", "mae"])
print(found)
ft.write_comparison(found, folder)
