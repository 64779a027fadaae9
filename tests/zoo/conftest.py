"""The helpers of this folder, importable; torchvision's operators, where they are missing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torchvision_operators

torchvision_operators.define()
