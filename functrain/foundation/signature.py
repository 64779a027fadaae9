"""Whether this user wrote a text: an HMAC under a key that nobody else can read.

A run's configuration is signed when `functrain train` writes it. A run from somebody else has no valid signature.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from functrain.foundation.scratch import scratch_folder

KEY_BYTES = 32
_MARK = "# signature: "  # the last line of a signed YAML file


def sign(text: str) -> str | None:
    """The signature of a text; None if the user's key can be neither read nor made."""
    key = _key(make=True)
    return None if key is None else _hmac(key, text)


def is_signed(text: str, signature: object) -> bool:
    """Whether `sign` of this user made this signature for this text."""
    key = _key(make=False)
    return key is not None and isinstance(signature, str) and hmac.compare_digest(_hmac(key, text), signature)


def signed_yaml(text: str) -> str:
    """A YAML text with its signature in a comment at the end, where it can be signed."""
    signature = sign(text)
    return text if signature is None else f"{text}{_MARK}{signature}\n"


def is_signed_yaml(text: str) -> bool:
    """Whether this user's `signed_yaml` made a text, and nobody has changed it since."""
    head, mark, signature = text.rpartition(_MARK)
    return bool(mark) and is_signed(head, signature.rstrip("\n"))


def canonical(values: Mapping[str, Any]) -> str:
    """A configuration as text to sign: the same for the same values.

    Example:
        >>> canonical({"b": 1, "a": 2.5})
        '{"a": 2.5, "b": 1}'
    """
    return json.dumps(values, sort_keys=True)


def _hmac(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()


def _key(make: bool) -> bytes | None:
    path = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state", "functrain", "key")
    try:
        path = path.expanduser()
        if make and not path.exists():
            _make_key(path)
        status = path.lstat()
        private = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o077)
        key = path.read_bytes() if private and stat.S_ISREG(status.st_mode) and status.st_size == KEY_BYTES else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None
    return key


def _make_key(path: Path) -> None:
    """Write a new key; of two processes that do so at once, one wins and both use its key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with scratch_folder(path.parent, ".making-") as folder:
        made = Path(folder, "key")
        made.touch(mode=0o600)
        made.write_bytes(secrets.token_bytes(KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
