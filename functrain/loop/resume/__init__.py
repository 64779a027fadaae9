"""Saving a run and going on with it: checkpoints with a position, and what would keep a resume from the same bits."""
