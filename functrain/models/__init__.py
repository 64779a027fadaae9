"""Networks that ship with functrain. Imports torch only; nothing above depends on them."""

from functrain.models.digits_cnn import DigitsCNN as DigitsCNN
