"""Pure sums over examples that metrics are computed from: they add over micro-batches, batches, epochs and ranks."""
