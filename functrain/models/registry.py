"""Networks by the names that a configuration gives them."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any


class _Imported(Mapping[str, Callable[..., Any]]):
    """Functions by name; the module of one is imported when it is asked for.

    Args:
        places: name -> (module, name in it).
    """

    def __init__(self, places: Mapping[str, tuple[str, str]]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Callable[..., Any]:
        module, function = self._places[name]
        found: Callable[..., Any] = getattr(import_module(f"functrain.models.{module}"), function)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places


REGISTRY: Mapping[str, Callable[..., Any]] = _Imported(
    {
        "attention_multimodal": ("multimodal", "attention_multimodal"),
        "byte_transformer": ("byte_transformer", "ByteTransformer"),
        "cnn": ("cnn", "CNN"),
        "dense_vit": ("vit", "DenseViT"),
        "digits_cnn": ("digits_cnn", "DigitsCNN"),
        "encoder_decoder": ("encoder_decoder", "EncoderDecoder"),
        "gpt": ("gpt", "GPT"),
        "masked_autoencoder": ("vit", "MaskedAutoencoder"),
        "mlp": ("mlp", "MLP"),
        "resnet": ("resnet", "ResNet"),
        "tft_multimodal": ("multimodal", "TFTMultimodal"),
        "unet": ("unet", "UNet"),
        "vit": ("vit", "ViT"),
    }
)
