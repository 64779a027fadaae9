"""Networks that ship with functrain."""

from functrain.models.digits_cnn import DigitsCNN as DigitsCNN
from functrain.models.encoder_decoder import EncoderDecoder as EncoderDecoder
