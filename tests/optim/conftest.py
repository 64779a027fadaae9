"""Property tests without a deadline: torch imports parts of itself at the first call of a function."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # for optim_helpers

settings.register_profile("optim", deadline=None, max_examples=25)
settings.load_profile("optim")
