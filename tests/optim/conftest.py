"""Property tests without a deadline: torch imports parts of itself at the first call of a function."""

from hypothesis import settings

settings.register_profile("optim", deadline=None, max_examples=40)
settings.load_profile("optim")
