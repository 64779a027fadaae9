"""DeepSpeed's JSON configuration, and what it is here. This imports the standard library only."""
