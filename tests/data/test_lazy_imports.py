"""A data set that imports a library at its first sample: what that draws shows in no sample."""

import sys

import numpy as np
import pytest
import torch
from data_helpers import Mapped, same_bits
from torch.utils.data import DataLoader, default_collate

from functrain.data import as_stream
from functrain.data.contents import content_digest

DRAWING = "import random, numpy, torch\nfirst = random.random(), numpy.random.rand(), torch.rand(())\n"


@pytest.fixture
def forget(tmp_path, monkeypatch):
    (tmp_path / "drawing_library.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(tmp_path)

    def forget():
        sys.modules.pop("drawing_library", None)

    yield forget
    forget()


def draw():
    import random

    import drawing_library  # noqa: F401

    return torch.tensor([random.random(), np.random.rand(), float(torch.rand(()))], dtype=torch.float64)


def drawing_collate(samples):
    drawn = draw()
    return [default_collate([samples.pop() for _ in range(len(samples))]), drawn]


class Batches(Mapped):
    def __getitems__(self, indices):
        drawn = draw()
        return [(drawn, index) for index in indices]


CASES = {
    "samples": (Mapped(lambda index: (draw(), index)), None),
    "batches": (Batches(lambda index: (draw(), index)), None),
    "collate_fn": (Mapped(lambda index: torch.tensor(index)), drawing_collate),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("case", CASES)
def test_a_library_that_a_sample_imports_changes_no_batch(case, workers, forget):
    dataset, collate = CASES[case]
    stream = as_stream(DataLoader(dataset, 2, shuffle=True, num_workers=workers, collate_fn=collate), 7)
    forget()
    whole = list(stream.batches(0))
    forget()
    resumed = list(stream.batches(0, 1))
    assert same_bits(whole[1:], resumed)
    known = list(stream.batches(0))
    assert same_bits(whole, known)


def test_a_library_that_a_sample_imports_does_not_change_the_digest_of_the_data(forget):
    dataset = Mapped(lambda index: draw())
    forget()
    assert content_digest(dataset) == content_digest(dataset)
