"""Data sets and comparisons that the tests of the data layer share."""

import random

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

LENGTH = 23


class Augmented(Dataset):
    """Distinct rows, with noise from all three global generators and one of its own."""

    def __init__(self, length=LENGTH):
        self.length = length
        self.rng = np.random.default_rng(0)
        self.reads = []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.reads.append(int(index))
        noise = torch.tensor([np.random.randn(), random.random(), self.rng.random()], dtype=torch.float64)
        return torch.cat([torch.tensor([index], dtype=torch.float64), noise, torch.randn(2).double()]), index


class Mapped(Dataset):
    """Six samples, made by a function of the index."""

    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return self.sample(index)


def tensors():
    return TensorDataset(torch.arange(LENGTH * 2.0).reshape(LENGTH, 2), torch.arange(LENGTH))


def noisy_collate(samples):
    rows = torch.stack([row for row, _ in samples])
    return rows + torch.rand(()), torch.tensor([index for _, index in samples])


def same_bits(first, second):
    """Equal containers, dtypes, shapes and bits."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.stride() == second.stride() and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_bits(first[k], second[k]) for k in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same_bits, first, second))
    return first == second


def global_states():
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())
