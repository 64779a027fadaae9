"""Networks that ship with functrain, a family a file. A file is imported when its first name is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain.models.attention import AttentionPooling as AttentionPooling
    from functrain.models.attention import MultiHeadAttention as MultiHeadAttention
    from functrain.models.byte_transformer import ByteTransformer as ByteTransformer
    from functrain.models.cnn import CNN as CNN
    from functrain.models.digits_cnn import DigitsCNN as DigitsCNN
    from functrain.models.encoder_decoder import EncoderDecoder as EncoderDecoder
    from functrain.models.gpt import GPT as GPT
    from functrain.models.lora import add_lora as add_lora
    from functrain.models.lora import load_lora as load_lora
    from functrain.models.lora import lora_state_dict as lora_state_dict
    from functrain.models.lora import merge_lora as merge_lora
    from functrain.models.mlp import MLP as MLP
    from functrain.models.multimodal import AttentionMultimodal as AttentionMultimodal
    from functrain.models.multimodal import CrossModalAttention as CrossModalAttention
    from functrain.models.multimodal import EncodedMultimodal as EncodedMultimodal
    from functrain.models.multimodal import GatedFusion as GatedFusion
    from functrain.models.multimodal import SpectraTFTEncoder as SpectraTFTEncoder
    from functrain.models.multimodal import TabularStaticEncoder as TabularStaticEncoder
    from functrain.models.multimodal import TFTLoss as TFTLoss
    from functrain.models.multimodal import TFTMultimodal as TFTMultimodal
    from functrain.models.multimodal import attention_multimodal as attention_multimodal
    from functrain.models.registry import REGISTRY as REGISTRY
    from functrain.models.resnet import ResNet as ResNet
    from functrain.models.transformer import TENSOR_PARALLEL as TENSOR_PARALLEL
    from functrain.models.transformer import TransformerBlock as TransformerBlock
    from functrain.models.unet import UNet as UNet
    from functrain.models.vit import DenseViT as DenseViT
    from functrain.models.vit import MaskedAutoencoder as MaskedAutoencoder
    from functrain.models.vit import ViT as ViT

_NAMES = {
    "attention": ("AttentionPooling", "MultiHeadAttention"),
    "byte_transformer": ("ByteTransformer",),
    "cnn": ("CNN",),
    "digits_cnn": ("DigitsCNN",),
    "encoder_decoder": ("EncoderDecoder",),
    "gpt": ("GPT",),
    "lora": ("add_lora", "load_lora", "lora_state_dict", "merge_lora"),
    "mlp": ("MLP",),
    "multimodal": (
        "AttentionMultimodal",
        "CrossModalAttention",
        "EncodedMultimodal",
        "GatedFusion",
        "SpectraTFTEncoder",
        "TabularStaticEncoder",
        "TFTLoss",
        "TFTMultimodal",
        "attention_multimodal",
    ),
    "registry": ("REGISTRY",),
    "resnet": ("ResNet",),
    "transformer": ("TENSOR_PARALLEL", "TransformerBlock"),
    "unet": ("UNet",),
    "vit": ("DenseViT", "MaskedAutoencoder", "ViT"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'functrain.models' has no attribute {name!r}")
    return getattr(import_module(f"functrain.models.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
