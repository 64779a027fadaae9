"""What a run shows and writes while it trains: the display, the log files, TensorBoard."""
