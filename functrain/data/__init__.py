"""Data: sources, the order of examples as arithmetic, loaders, streams, splits and padding."""

from functrain.data import transforms as transforms
from functrain.data.caching import cached, clear_cache
from functrain.data.coffee import COFFEE_ORIGINS, coffee, coffee_spectra
from functrain.data.datasets import Arrays, digits
from functrain.data.digit_pixels import masked_digits, segmented_digits
from functrain.data.folds import Fold, k_fold
from functrain.data.image_folder import ImageFolder, image_folder
from functrain.data.iterables import DataWarning
from functrain.data.lengths import PaddedCollate, pad_length
from functrain.data.loader import Loader
from functrain.data.loader_of_each import LoaderOfEach, per_member
from functrain.data.memory_mapped import MemoryMapped, memory_mapped
from functrain.data.mnist import mnist
from functrain.data.order import batch_count, batch_indices, epoch_order
from functrain.data.padding import pad_batch
from functrain.data.poisson import PoissonLoader
from functrain.data.portions import Portion, first_batches, part_of_length
from functrain.data.preprocessing import Preprocessor
from functrain.data.sampling import balanced_weights
from functrain.data.spectra import Spectra, pad_scans
from functrain.data.splits import split
from functrain.data.standard_library import standard_library
from functrain.data.streams import Stream, as_stream, chosen_batches, glimpse
from functrain.data.table import table
from functrain.data.table_preprocessor import TablePreprocessor
from functrain.data.tables import breast_cancer, diabetes
from functrain.data.tokens import TokenWindows, tokens
from functrain.data.transfer import Transfer, to_device
from functrain.data.transforms import Compose, Standardise, Transformed, TransformedBatch
from functrain.objectives.batch import batch_length

__all__ = [
    "COFFEE_ORIGINS",
    "Arrays",
    "Compose",
    "DataWarning",
    "Fold",
    "ImageFolder",
    "Loader",
    "LoaderOfEach",
    "MemoryMapped",
    "PaddedCollate",
    "PoissonLoader",
    "Portion",
    "Preprocessor",
    "Spectra",
    "Standardise",
    "Stream",
    "TablePreprocessor",
    "TokenWindows",
    "Transfer",
    "Transformed",
    "TransformedBatch",
    "as_stream",
    "balanced_weights",
    "batch_count",
    "batch_indices",
    "batch_length",
    "breast_cancer",
    "cached",
    "chosen_batches",
    "clear_cache",
    "coffee",
    "coffee_spectra",
    "diabetes",
    "digits",
    "epoch_order",
    "first_batches",
    "glimpse",
    "image_folder",
    "k_fold",
    "masked_digits",
    "memory_mapped",
    "mnist",
    "pad_batch",
    "pad_length",
    "pad_scans",
    "part_of_length",
    "per_member",
    "segmented_digits",
    "split",
    "standard_library",
    "table",
    "to_device",
    "tokens",
    "transforms",
]
