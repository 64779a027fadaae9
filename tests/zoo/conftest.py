"""torchvision's operators, where they are missing."""

import torchvision_operators

torchvision_operators.define()
