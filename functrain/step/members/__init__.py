"""Several runs in one step: members of a stack, each of which trains as if it were alone."""
