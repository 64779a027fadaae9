"""Networks that ship with functrain."""

from functrain.models.byte_transformer import ByteTransformer as ByteTransformer
from functrain.models.digits_cnn import DigitsCNN as DigitsCNN
from functrain.models.encoder_decoder import EncoderDecoder as EncoderDecoder
from functrain.models.mlp import MLP as MLP
