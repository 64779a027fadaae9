"""The only layer that calls torch's compilers."""

from functrain.compiler.runner import CompilingRunner as CompilingRunner
from functrain.compiler.steps import compile as compile
from functrain.compiler.steps import runner_for as runner_for
