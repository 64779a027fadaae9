"""Where the tests of this folder find `notebook_kernel`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "loop"))
