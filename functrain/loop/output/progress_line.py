"""The lines of the progress display: which fields, how wide, how fast."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from functrain.step.finish import is_about_update

GAP = "  "
SHORTEST_BAR, LONGEST_BAR = 6, 40
# Where a line has no room for all fields, the later ones here go first.
IMPORTANCE = ("epoch", "loss", "bar", "left", "metric", "rate", "lr", "percent")
ORDER = ("epoch", "bar", "percent", "loss", "metric", "lr", "rate", "left")
PREFIXES = ("train_", "eval_", "ema_")


class Pace:
    """How fast training goes, from marks in time. A pause, such as a compilation, does not count.

    It begins in a pause, which the first mark ends: the first micro-batch may have taken minutes to compile.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=25)  # (seconds, batches, samples)
        self._first: tuple[float, int, int] | None = None
        self._lost = 0.0
        self._paused: float | None = None

    def pause(self, now: float) -> None:
        """Time stands still until the next mark."""
        if self._paused is None:
            self._paused = now

    def mark(self, now: float, batches: int, samples: int) -> None:
        """At `now` seconds so many micro-batches and examples are done."""
        if self._paused is not None:
            self._lost += now - self._paused
            self._paused = None
        mark = (now - self._lost, batches, samples)
        self._first = self._first or mark
        self._marks.append(mark)

    def rate(self) -> float | None:
        """Examples per second, over the last marks."""
        if not self._marks or self._marks[-1][0] <= self._marks[0][0]:
            return None
        return (self._marks[-1][2] - self._marks[0][2]) / (self._marks[-1][0] - self._marks[0][0])

    def seconds_left(self, total: int) -> float | None:
        """Until `total` micro-batches are done, at the average speed so far, evaluations included.

        Example:
            >>> pace = Pace()
            >>> pace.mark(10.0, 1, 64)
            >>> pace.mark(12.0, 5, 320)
            >>> pace.rate(), pace.seconds_left(25)
            (128.0, 10.0)
        """
        if self._first is None or self._marks[-1][1] <= self._first[1]:
            return None
        seconds, batches, _ = self._marks[-1]
        return (seconds - self._first[0]) / (batches - self._first[1]) * max(total - batches, 0)


@dataclass(frozen=True)
class LiveLine:
    """What the live line shows, at any width: rich renders it.

    Attributes:
        epochs, total: epochs and micro-batches of the whole run, where known.
        done: micro-batches done.
        fields: the texts, by the names in `IMPORTANCE`.
    """

    epochs: int | None = None
    total: int | None = None
    done: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

    def at(self, epoch: int, done: int, metrics: Mapping[str, Any], pace: Pace) -> "LiveLine":
        """The line at another moment; a metric that is not given, as the learning rate within a window, stays."""
        of = "" if self.epochs is None else f"/{self.epochs}"
        fields = {**self.fields, "epoch": f"epoch {epoch:{max(len(of) - 1, 1)}d}{of}"}
        names = [name for name in metrics if name != "loss" and not is_about_update(name)]
        for place, name in zip(("loss", "metric"), ["loss", *names]):
            fields[place] = f"{name} {short(float(metrics[name]))}"
        if "lr" in metrics:
            fields["lr"] = f"lr {float(metrics['lr']):.1e}"
        rate = pace.rate()
        if rate is not None:
            fields["rate"] = f"{rate:,.0f} samples/s"
        if self.total:
            fields |= {"bar": " " * SHORTEST_BAR, "percent": f"{min(done / self.total, 1):3.0%}"}
            left = pace.seconds_left(self.total)
            if left is not None:
                fields["left"] = f"{clock(left)} left"
        return dataclasses.replace(self, done=done, fields=fields)

    def parts(self, width: int) -> list[tuple[str, str]]:
        """The names and texts that fit, in the line's order; the bar takes the room that the others leave."""
        names = fitting(self.fields, width)
        shown = {name: text for name, text in self.fields.items() if name in names}
        if "bar" in shown:
            rest = width - sum(len(text) + len(GAP) for name, text in shown.items() if name != "bar")
            shown["bar"] = " " * min(rest, LONGEST_BAR)
        return [(name, shown[name]) for name in ORDER if name in shown]

    def line(self) -> str:
        """The fields in one line, without the bar."""
        return GAP.join(self.fields[name] for name in ORDER if name in self.fields and name != "bar")

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.control import Control
        from rich.segment import ControlType, Segment
        from rich.text import Text

        text = Text(end="", no_wrap=True, overflow="crop")
        for number, (name, part) in enumerate(self.parts(options.max_width)):
            text.append(GAP if number else "")
            if name == "bar":
                stroke = "-" if options.ascii_only else "━"
                filled = int(len(part) * min(self.done / (self.total or 1), 1))
                text.append(("#" if options.ascii_only else stroke) * filled, "green")
                text.append(stroke * (len(part) - filled), "bright_black")
            else:
                text.append(part, "bold" if name == "epoch" else "")
        # The cursor waits at the line's beginning (where a ^C may be echoed), and all that follows is erased first: a
        # terminal that was made narrower has wrapped the last line into several rows, the cursor in the first of them.
        yield Segment("\r\x1b[J", None, [(ControlType.ERASE_IN_LINE, 0)])
        yield text
        yield Control(ControlType.CARRIAGE_RETURN)


def fitting(fields: Mapping[str, str], width: int) -> set[str]:
    """The most important of the fields that a line has room for; the first always.

    Example:
        >>> sorted(fitting({"epoch": "epoch 1/9", "loss": "loss 0.519", "lr": "lr 1.0e-03"}, 30))
        ['epoch', 'loss']
    """
    names: set[str] = set()
    used = -len(GAP)
    for name in IMPORTANCE:
        needed = len(GAP) + len(fields.get(name, ""))
        if name in fields and (not names or used + needed <= width):
            names.add(name)
            used += needed
    return names


def epoch_line(record: Mapping[str, Any], width: int | None = None, *, epochs: int | None = None) -> str:
    """A record of the log in a line; in several, the later ones indented, where it is longer than `width`.

    Of a run of so many epochs, the lines' columns stand below each other.

    Example:
        >>> epoch_line({"kind": "epoch", "epoch": 3, "step": 51, "train_loss": 0.684, "eval_loss": 0.65})
        'epoch 3  train loss 0.6840  eval loss 0.6500'
    """
    digits = len(str(epochs or ""))
    start = f"epoch {record['epoch']:{digits}d}" if record["kind"] == "epoch" else f"step {record['step']}"
    lines = [start]
    for prefix in PREFIXES:
        named = [key for key in record if key.startswith(prefix) and "/" not in key]  # numbers of classes fill screens
        metrics = [f"{key.removeprefix(prefix)} {exact(record[key])}" for key in named]
        if not metrics:
            continue
        group = f"{prefix[:-1]} {' '.join(metrics)}"
        if width is not None and len(lines[-1]) + len(GAP) + len(group) > width and lines != [start]:
            lines.append(" " * len(start))
        lines[-1] += GAP + group
    return "\n".join(lines)


def short(value: float) -> str:
    """Three digits in five characters, if they suffice.

    Example:
        >>> short(0.51923), short(1.0), short(123.4), short(3e-7)
        ('0.519', '1.000', '123.4', '3.0e-07')
    """
    if value == 0 or 1e-3 <= abs(value) < 10:
        return f"{value:.3f}"
    return f"{value:.1f}" if 10 <= abs(value) < 1e4 else f"{value:.1e}"


def exact(value: float) -> str:
    """Four decimals, or four digits where these say more.

    Example:
        >>> exact(0.51923), exact(1.0), exact(123456.0), exact(3e-7)
        ('0.5192', '1.0000', '1.235e+05', '3e-07')
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:.4g}"


def counted(number: int, word: str, plural: str | None = None) -> str:
    """A number of things; `plural` for words that do not end in s.

    Example:
        >>> counted(1, "epoch"), counted(2034, "update")
        ('1 epoch', '2,034 updates')
    """
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def clock(seconds: float) -> str:
    """A time span as a clock shows it.

    Example:
        >>> clock(4.2), clock(754), clock(3723)
        ('0:04', '12:34', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
