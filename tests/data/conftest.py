"""Property tests without a deadline, and the helpers of this folder importable."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("data", deadline=None)
settings.load_profile("data")
