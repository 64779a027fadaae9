"""For all tests: one thread each, as `pytest -n 2` on two cores has no more to give; compiled steps kept here."""

import os
from pathlib import Path

import torch

torch.set_num_threads(1)
os.environ.setdefault("FUNCTRAIN_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "functrain"))
