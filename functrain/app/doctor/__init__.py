"""The checks of `functrain doctor`. None of them imports torch before it runs."""
