"""Text from elsewhere, made fit to be printed: a terminal obeys the control characters in it."""

import re

# C0 and C1 controls but for the end of a line and the tab, bidirectional overrides, and what UTF-8 cannot hold.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text, with control characters as Python writes them.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
