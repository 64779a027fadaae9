"""`functrain sweep`: many runs of one configuration, each in a process of its own. The driver imports no torch."""
