"""For all tests: one thread each, as `pytest -n 2` on two cores has no more to give."""

import torch

torch.set_num_threads(1)
