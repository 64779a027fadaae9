"""Private training: what a network keeps of single examples.   Usage: python examples/20_private_training.py [folder]

A tenth of the training digits have a wrong label, which only a network that remembers single examples repeats. One is
trained as usual and one by DP-SGD, which bounds how much any example can change. (pip install opacus)
"""

import sys

import torch
from torch import nn

import functrain as ft

EPSILON, DELTA, BATCH = 8.0, 1e-4, 64


def with_wrong_labels(seed=0, share=0.1):
    """Images and labels for training, and the numbers of those whose label is wrong."""
    images, labels = (torch.as_tensor(array) for array in ft.data.digits("train").tensors)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=generator)[: int(share * len(labels))]
    labels = labels.clone()
    labels[wrong] = (labels[wrong] + torch.randint(1, 10, (len(wrong),), generator=generator)) % 10
    return images, labels, wrong


def train(private, folder=None, steps=600, seed=0):
    """Accuracy on the test digits, the share of wrong labels that the network repeats, and epsilon."""
    images, labels, wrong = with_wrong_labels(seed)
    loader = ft.data.PoissonLoader(ft.data.Arrays(images, labels), BATCH)
    budget = {"sample_rate": loader.sample_rate, "delta": DELTA}
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    state, epsilon = ft.init_state(model, ft.classification(), ft.optim.adam(2e-2), seed=seed), float("inf")
    if private:
        sigma = ft.transforms.noise_multiplier_for(epsilon=EPSILON, steps=steps, **budget)
        state = ft.transforms.private(state, max_grad_norm=1.0, noise_multiplier=sigma, expected_batch_size=BATCH)
    state = ft.fit(state, loader, steps=steps, run_dir=folder, compile=False, progress=False).state
    if private:
        epsilon = ft.transforms.privacy_spent(state, **budget)
    accuracy = ft.evaluate(state, ft.data.Loader(ft.data.digits("test"), 128, shuffle=False))["accuracy"]
    repeated = ft.predict(state, [(images[wrong], labels[wrong])]).argmax(1) == labels[wrong]
    return accuracy, repeated.float().mean().item(), epsilon


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "private_training"
    for name in ("ordinary", "private"):
        accuracy, repeated, epsilon = train(name == "private", f"{folder}/{name}")
        print(f"{name}: test accuracy {accuracy:.1%}, wrong labels repeated {repeated:.1%}, epsilon {epsilon:.2f}")
