"""The only layer that calls torch's compilers."""

from functrain.compiler.runner import CompilingRunner as CompilingRunner
from functrain.compiler.runner import compile as compile
