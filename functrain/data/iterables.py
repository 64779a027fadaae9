"""Streams over loaders that can only be iterated: stateful ones, and bare iterables that are fast-forwarded."""

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from functrain.data.forking import start_iterating
from functrain.data.gathering import AT_ONCE
from functrain.data.plans import check_reached, set_epoch, sized
from functrain.data.randomness import Randomness
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import nbytes


class DataWarning(UserWarning):
    """The data can be trained on, but at a cost or without a guarantee that one would expect."""


class IterableStream:
    """A loader that can only be iterated from its beginning.

    It is iterated with the global generators seeded by (key, epoch, position) and put back after each
    batch, so what it draws from them repeats. Resuming at a position reads and discards what comes before.

    Args:
        loader: an iterable of batches; an iterator serves one pass.
        key: the key of the run's data.
        what: the loader as messages call it: "train loader", "eval_loader".
        repeats: a list that is known to hold the same batches after a resume, which needs no warning.
    """

    kind = "iterable"
    ragged = True  # for all that is known

    def __init__(self, loader: Iterable[Any], key: int, what: str, *, repeats: bool = False):
        batch_size = getattr(loader, "batch_size", None)
        self.batch_size = batch_size if isinstance(batch_size, int) else None
        self._loader, self._key, self._what = loader, key, what
        self._repeats = repeats
        self._randomness = Randomness(loader)
        self._draws = type(loader) not in (list, tuple)  # of those no code runs that could draw
        # of others each only when it is asked for: drawing may do anything
        self.at_once = 1 if self._draws else _at_once(loader)  # type: ignore[arg-type]
        self._spent = False

    def length(self, epoch: int) -> int | None:  # noqa: ARG002 - an iterable does not tell it by epoch
        """The number of micro-batches in one pass; None if only iterating tells."""
        loader = self._loader
        if isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset) and loader.num_workers > 1:
            return None  # len() would be an estimate: every worker may end with a ragged batch of its own
        return sized(loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """One pass over the epoch from micro-batch `start`; the ones before are read and discarded.

        Raises:
            DataError: if the loader is an iterator already used up, ends before `start` or yields nothing.
        """
        if start < 0:
            raise ValueError(f"start must not be negative, got {start}")
        if isinstance(self._loader, Iterator):
            if self._spent:
                raise DataError(
                    f"the {self._what} is an iterator ({type(self._loader).__name__}) and can be "
                    "passed over once. Train for one epoch, or give an object whose __iter__ starts anew: "
                    "a list, a DataLoader, functrain's Loader"
                )
            self._spent = True
        if start and not self._repeats:
            _warn_of_fast_forward(self._loader, start, self._what)
        return self._pass(epoch, start)

    def glimpse(self, epoch: int) -> Any:  # noqa: ARG002 - a list is the same in each epoch
        """The first batch of a list or a tuple; None of others, which to iterate may change."""
        return None if self._draws or not self._loader else self._loader[0]  # type: ignore[index]

    def state_dict(self) -> dict[str, Any]:
        """Empty: an iterable has no state that could be asked for."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""

    def close(self) -> None:
        """Nothing to shut down: workers of a DataLoader end with its iterator."""

    def _pass(self, epoch: int, start: int) -> Iterator[Any]:
        parts = (getattr(self._loader, name, None) for name in ("dataset", "sampler", "batch_sampler"))
        set_epoch(epoch, self._loader, *parts)
        with self._randomness.seeded(fold_in(self._key, "iterable", epoch)):
            iterator = start_iterating(self._loader)
        if not self._draws:
            return self._stored(iterator, epoch, start)
        return numbered(iterator, self._randomness, self._key, epoch, 0, start, self._what)

    def _stored(self, iterator: Iterator[Any], epoch: int, start: int) -> Iterator[Any]:
        check_reached(len(self._loader), start, epoch, self._what)  # type: ignore[arg-type]
        return itertools.islice(iterator, start, None)


def _at_once(batches: Sequence[Any]) -> int:
    size = nbytes(batches[0]) if batches else 0
    return max(1, AT_ONCE // size) if size else 1


class StatefulStream:
    """A loader that knows its own position: `state_dict()` and `load_state_dict(state)`.

    A pass that `iter()` begins starts anew, whatever became of the one before; after `load_state_dict` it goes on from
    that state, and starts anew if that was taken at a pass's end. The stream's state is the loader's, with
    the epoch and position that it belongs to, so that a state saved at the last batch of an epoch neither repeats nor
    skips one.

    What is left of an unfinished pass when an epoch ends (`tail="drop"`) is read and discarded: a loader that was left
    in its middle could not be brought to the same place again. Where a second pass extends an epoch, the loader goes
    back afterwards to how the first one had left it.

    Args:
        loader: an iterable of batches with `state_dict` and `load_state_dict`.
        key: the key of the run's data, for what the loader draws from the global generators.
        what: the loader as messages call it: "train loader", "eval_loader".
    """

    kind = "stateful"
    at_once = 1
    ragged = True  # for all that is known

    def __init__(self, loader: Any, key: int, what: str):
        batch_size = getattr(loader, "batch_size", None)
        self.batch_size = batch_size if isinstance(batch_size, int) else None
        self._loader, self._key, self._what = loader, key, what
        self._randomness = Randomness(loader)
        self._restored: Mapping[str, Any] | None = None
        self._epoch, self._position, self._ended = 0, 0, False
        self._offset = 0  # micro-batches of the epoch before its present pass
        self._first_end: Any = None  # the loader's state at the end of the epoch's first pass, while a further one runs
        self._open: Iterator[Any] = iter(())

    def length(self, epoch: int) -> int | None:  # noqa: ARG002 - a loader does not tell it by epoch
        """The number of micro-batches in one pass; None if only iterating tells."""
        return sized(self._loader)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """One pass over the epoch from micro-batch `start`, where the restored state, if any, must stand.

        Without a restored state the batches before `start` are read and discarded.

        Raises:
            DataError: if the restored state is of another position, or as for other loaders.
        """
        if start < 0:
            raise ValueError(f"start must not be negative, got {start}")
        if self._restored is not None:
            return self._from_restored(self._restored, epoch, start)
        if start == 0 and self._position and epoch == self._epoch:
            return self._further_pass()
        self._leave_epoch()
        whole = self._pass(epoch, 0)
        if start:
            _warn_of_fast_forward(self._loader, start, self._what)
            check_reached(sum(1 for _ in itertools.islice(whole, start)), start, epoch, self._what)
        return whole

    def _from_restored(self, restored: Mapping[str, Any], epoch: int, start: int) -> Iterator[Any]:
        position, ended, extends = restored["position"], restored["ended"], restored.get("first_end") is not None
        length = self.length(epoch)
        at_end = ended or position - restored.get("offset", 0) == length
        if epoch == restored["epoch"]:
            if start == position and (ended or (extends and start)):
                return iter(())  # nothing more in this pass; what extends it is asked for from its beginning
            further = (at_end or extends) and start == (position % length if length else 0)
            if start == position or further:
                self._take_up(restored, opens=further and at_end)
                return self._further_pass() if further and at_end else self._pass(epoch, position)
        elif start == 0 and epoch > restored["epoch"]:
            self._take_up(restored, opens=not extends)
            self._leave_epoch()
            return self._pass(epoch, 0)
        raise DataError(
            f"the restored state of the {self._what} stands after micro-batch {position} of "
            f"epoch {restored['epoch'] + 1}, but training goes on after micro-batch {start} of epoch {epoch + 1}"
        )

    def _take_up(self, restored: Mapping[str, Any], *, opens: bool) -> None:
        """Be where the restored state was saved; `opens` its pass, if that had not seen its end, to be finished."""
        self._epoch, self._position, self._ended = (restored[name] for name in ("epoch", "position", "ended"))
        self._first_end, self._offset = restored.get("first_end"), restored.get("offset", 0)
        self._restored = None
        if self._ended and self._first_end is None:
            self._first_end = restored["loader"]
        elif opens and not self._ended:
            self._pass(self._epoch, self._position)

    def state_dict(self) -> dict[str, Any]:
        """The loader's state after the batch that was handed out last, and where that is."""
        if self._restored is not None:
            return dict(self._restored)
        where = {"epoch": self._epoch, "position": self._position, "ended": self._ended}
        return {**where, "offset": self._offset, "first_end": self._first_end, "loader": self._loader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand the state back to the loader; the next pass goes on from it."""
        missing = {"epoch", "position", "ended", "loader"} - state.keys()
        if missing:
            raise DataError(
                f"this is no state of a stateful loader: {sorted(missing)} missing, got the keys "
                f"{sorted(state)}. The run was saved with another kind of loader: go on with that one, or "
                "start a new run"
            )
        self._loader.load_state_dict(state["loader"])
        self._restored = state

    def close(self) -> None:
        """Nothing to shut down: a loader ends its workers with its iterator."""

    def _further_pass(self) -> Iterator[Any]:
        """Another pass in the same epoch."""
        self._finish_pass()
        if self._first_end is None:
            self._first_end = self._loader.state_dict()
        self._offset = self._position
        return self._pass(self._epoch, self._position)

    def _leave_epoch(self) -> None:
        """Bring the loader to where the next epoch starts: the same place in a resumed run and in another."""
        if self._first_end is not None:
            self._open = iter(())
            self._loader.load_state_dict(self._first_end)
            self._first_end = None
        else:
            self._finish_pass()
        self._offset = 0

    def _finish_pass(self) -> None:
        for _ in self._open:
            pass

    def _pass(self, epoch: int, start: int) -> Iterator[Any]:
        set_epoch(epoch, self._loader)
        with self._randomness.seeded(fold_in(self._key, "iterable", epoch)):
            iterator = start_iterating(self._loader)
        self._epoch, self._position, self._ended = epoch, start, False
        self._open = self._tracked(
            numbered(iterator, self._randomness, self._key, epoch, start - self._offset, 0, self._what)
        )
        return self._open

    def _tracked(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self._position += 1
            yield batch
        self._ended = True


def numbered(
    iterator: Iterator[Any], randomness: Randomness, key: int, epoch: int, first: int, discard: int, what: str
) -> Iterator[Any]:
    """The batches of an iterator, each read with the generators seeded for its number.

    Args:
        iterator: stands before micro-batch `first`.
        randomness: the generators to seed.
        key: the key of the run's data.
        epoch: number of the epoch.
        first: number of the iterator's first batch.
        discard: batches with smaller numbers are read and thrown away.
        what: the loader as messages call it.

    Raises:
        DataError: if there is no batch at all, or not as many as are to be discarded.
    """
    position, nothing = first, object()
    while True:
        with randomness.seeded(fold_in(key, "iterable", epoch, position)):
            batch = next(iterator, nothing)
        if batch is nothing:
            break
        position += 1
        if position > discard:
            yield batch
    check_reached(position, discard, epoch, what)


def _warn_of_fast_forward(loader: Any, start: int, what: str) -> None:
    warnings.warn(
        f"resuming at micro-batch {start}: the {what} ({type(loader).__name__}) starts at "
        f"its beginning, so {start} batches are now read and thrown away, and the run repeats bit for bit "
        "only if it yields the same batches again. A map-style data set in functrain's Loader or torch's "
        "DataLoader, or a restored loader with state_dict and load_state_dict, resumes without reading",
        DataWarning,
        stacklevel=3,
    )
