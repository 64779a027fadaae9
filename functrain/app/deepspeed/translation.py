"""What the keys of a DeepSpeed configuration become: keys of a configuration here, notes, or problems."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from functrain.app.config.wording import shown

AUTO = "auto"  # of Hugging Face's Trainer, which puts one of its arguments in its place

Key = tuple[str, ...]  # of a configuration here


def dotted(path: Key) -> str:
    """A path as one writes it."""
    return ".".join(path)


@dataclass
class Translation:
    """What was found so far. Each key of the file is in `used`, `notes` or `problems`.

    Attributes:
        values: of a configuration here, by path.
        origins: the keys of the file that each comes of, in words.
        used: keys of the file that became values.
        notes: keys of the file that became none, and why the file is no other one for that.
        problems: keys of the file that ask for what there is not, and what there is.
        opened: sections of the file whose keys are read one by one.
    """

    values: dict[Key, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)

    def is_done(self, path: str) -> bool:
        """Whether something was found about a key of the file."""
        return any(path in each for each in (self.used, self.notes, self.problems, self.opened))

    def put(self, key: str, value: Any, *of: str, origin: str = "") -> None:
        """Set a key of a configuration here.

        Args:
            key: it, with dots.
            value: its value.
            of: keys of the file.
            origin: what stands beside the value; default: the keys.
        """
        path = tuple(key.split("."))
        self.values[path] = value
        self.origins[path] = origin or ", ".join(of)
        self.used.update(of)

    def at(self, *key: str) -> "At":
        """A place in the file."""
        return At(self, dotted(key))


@dataclass(frozen=True)
class At:
    """A place in the file, from which values are read.

    Attributes:
        translation: what gets the notes and problems.
        place: the path, with dots; empty for the file itself.
    """

    translation: Translation
    place: str

    def path(self, key: str) -> str:
        """The path of a key here."""
        return f"{self.place}.{key}" if self.place else key

    def note(self, key: str, text: str) -> None:
        """Say why a key became no value."""
        self.translation.notes[self.path(key)] = text

    def refuse(self, key: str, text: str) -> None:
        """Say that there is no such thing here, and what there is."""
        self.translation.problems[self.path(key)] = text

    def section(self, values: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
        """The section that a key holds; None if there is none, or it is none."""
        found = values.get(key)
        if found is None or isinstance(found, Mapping):
            if found is not None and not found:
                self.note(key, "it is empty")
            elif key in values and found is None:
                self.note(key, "it is null")
            if found:
                self.translation.opened.add(self.path(key))
            return found or None
        self.refuse(key, f"it must be an object {{...}}, got {shown(found)}")
        return None

    def number(
        self, values: Mapping[str, Any], key: str, ours: str, *, integer: bool = False, above: float = 0.0
    ) -> int | float | None:
        """A number that is at least `above` and not "auto"; None if there is none, which a note or a problem says.

        Args:
            values: of this place.
            key: which of them.
            ours: the key of a configuration here that "auto" leaves to the user.
            integer: only a whole number will do.
            above: the least that will do.
        """
        found = values.get(key)
        if key not in values:
            return None
        if found is None:
            self.note(key, "it is null")
            return None
        if found == AUTO:
            self.auto(key, ours)
            return None
        if isinstance(found, float) and integer and found.is_integer():
            found = int(found)
        is_number = isinstance(found, int if integer else int | float) and not isinstance(found, bool)
        if not is_number or not above <= found < float("inf"):
            self.refuse(
                key, f"it must be {'a whole number' if integer else 'a number'} from {above:g}, got {shown(found)}"
            )
            return None
        number: int | float = found
        return number

    def switch(self, values: Mapping[str, Any], key: str, ours: str, *, default: bool = False) -> bool | None:
        """True or false; None for "auto" and what is neither, which a note or a problem says."""
        found = values.get(key, default)
        if isinstance(found, bool):
            return found
        if found == AUTO:
            self.auto(key, ours)
        elif found is None:
            self.note(key, "it is null")
            return default
        else:
            self.refuse(key, f"it must be true or false, got {shown(found)}")
        return None

    def auto(self, key: str, ours: str) -> None:
        """Leave a key to the user."""
        self.note(key, f'"auto" (an argument of Hugging Face\'s Trainer): set {ours} in your own configuration')

    def rest(self, values: Mapping[str, Any], known: Mapping[str, str], unknown: str) -> None:
        """Note the keys that are known to change no result, and refuse the others that are neither used nor named.

        Args:
            values: of this place.
            known: why each is left out.
            unknown: what to say of any other.
        """
        for key in values:
            if self.translation.is_done(self.path(key)):
                continue
            if key in known:
                self.note(key, known[key])
            else:
                self.refuse(key, unknown)


def leaves(values: Any, path: Key = ()) -> Iterator[str]:
    """The keys of a file, with dots: those that hold no section, or an empty one.

    Example:
        >>> list(leaves({"a": {"b": 1, "c": {}}, "d": [1]}))
        ['a.b', 'a.c', 'd']
    """
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from leaves(value, (*path, key))
    elif path:
        yield dotted(path)
