"""Changes of torch's internals, a file each: what it does, what it gains, and how to tell that it is still needed.

A patch whose target is missing in a release of torch is left out. If a compilation with patches fails, it is tried
once without them (`functrain.compiler.packages`).
"""

from functrain.compiler.patches import (
    data_pointers,
    dead_values,
    draw_order,
    dtype_rules,
    exported_graphs,
    fusion_attempts,
    input_checks,
    instruction_set,
    nested_compilers,
    numbers_once,
    onednn_products,
    operation_order,
    parallel_loops,
    parallel_wrapper,
    updates_apart,
    whole_files,
    write_order,
)

TRACING = (nested_compilers.PATCH, data_pointers.PATCH)
"""Those that are in force while a step is traced."""

COMPILING = (
    whole_files.PATCH,
    dtype_rules.PATCH,
    input_checks.PATCH,
    exported_graphs.PATCH,
    parallel_wrapper.PATCH,
    instruction_set.PATCH,
    dead_values.PATCH,
    numbers_once.PATCH,
    write_order.PATCH,
    draw_order.PATCH,
    operation_order.PATCH,
    fusion_attempts.PATCH,
    parallel_loops.PATCH,
    updates_apart.PATCH,
    onednn_products.PATCH,
)
"""Those that are in force while inductor compiles. A later one may change what an earlier one has put in place."""
