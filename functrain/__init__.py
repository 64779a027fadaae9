"""functrain: functional training for PyTorch."""
