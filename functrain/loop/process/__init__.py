"""What a run needs of its process: signals, an interactive interpreter, the heap, deterministic algorithms."""
