"""The preprocessors that checkpoints can hold, by their kind."""

from collections.abc import Callable, Mapping
from typing import Any

from functrain.data.image_files import ImagePreprocessor
from functrain.data.preprocessing import Preprocessor
from functrain.data.table_preprocessor import TablePreprocessor
from functrain.foundation.errors import DataError

_READERS: Mapping[str, Callable[[Mapping[str, Any]], Preprocessor]] = {
    ImagePreprocessor.kind: ImagePreprocessor.from_json,
    TablePreprocessor.kind: TablePreprocessor.from_json,
}


def preprocessor_from(values: Mapping[str, Any]) -> Preprocessor | None:
    """The preprocessor that `to_json` wrote; None of an empty mapping, or of a kind that is somebody else's.

    Raises:
        DataError: it is not what `to_json` writes.

    Example:
        >>> preprocessor_from(ImagePreprocessor("grey", (8, 8)).to_json())
        ImagePreprocessor(mode='grey', size=(8, 8), classes=())
    """
    if not isinstance(values, Mapping):
        raise DataError(f"a preprocessor is written as a mapping, got {type(values).__name__}")
    read = _READERS.get(values.get("kind", ""))
    return None if read is None else read(values)
