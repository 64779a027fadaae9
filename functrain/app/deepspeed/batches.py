"""Batch sizes: `train_batch_size = train_micro_batch_size_per_gpu * gradient_accumulation_steps * processes`."""

from collections.abc import Mapping
from typing import Any

from functrain.app.deepspeed.translation import Translation

WHOLE, MICRO, STEPS = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"
_OURS = {WHOLE: "data.batch_size", MICRO: "data.batch_size", STEPS: "training.accumulate"}


def batches(values: Mapping[str, Any], world: int | None, found: Translation) -> None:
    """Read the three keys. Here a micro-batch is that of all processes together, who share it out.

    Args:
        values: of the file.
        world: the number of processes; None: nobody has said it.
        found: what gets the result.
    """
    at = found.at()
    before = len(found.problems)
    sizes = {key: at.number(values, key, ours, integer=True, above=1) for key, ours in _OURS.items()}
    whole, micro, steps = sizes[WHOLE], sizes[MICRO], sizes[STEPS]
    if len(found.problems) > before:
        found.used.update(key for key in sizes if key in values)
        return
    given = [key for key in sizes if sizes[key] is not None]
    if micro is None and whole is None:
        if steps is not None:
            found.put("training.accumulate", steps, STEPS)
        return
    if micro is None:
        assert whole is not None
        _whole(int(whole), int(steps or 1), given, values, found)
        return
    if whole is None:
        if world is None:
            at.refuse(
                MICRO,
                f"it is of each process, so that data.batch_size is {micro} times their number: say it with --world N",
            )
            found.used.update(given)
            return
        if steps is not None:
            found.put("training.accumulate", steps, STEPS)
        found.put("data.batch_size", micro * world, MICRO, origin=f"{MICRO} {micro} x {world} processes")
        return
    _both(int(whole), int(micro), None if steps is None else int(steps), world, given, values, found)


def _whole(whole: int, steps: int, given: list[str], values: Mapping[str, Any], found: Translation) -> None:
    if whole % steps:
        found.at().refuse(WHOLE, f"{whole} examples cannot be cut into {STEPS}={steps} equal micro-batches: change one")
        found.used.update(given)
        return
    if values.get(STEPS) != "auto":
        found.put("training.accumulate", steps, *([STEPS] if STEPS in given else []), origin=f"{STEPS} {steps}")
    size = whole // steps
    found.put("data.batch_size", size, WHOLE, origin=f"{WHOLE} {whole} / {steps}, of all processes together")


def _both(
    whole: int,
    micro: int,
    steps: int | None,
    world: int | None,
    given: list[str],
    values: Mapping[str, Any],
    found: Translation,
) -> None:
    """Both sizes: the number of processes or of steps follows."""
    if steps is None:
        if world is None:
            found.at().refuse(
                STEPS if STEPS in values else WHOLE,
                f"the steps follow of {WHOLE}={whole}, {MICRO}={micro} and the number of processes: say it with "
                f"--world N, or set {STEPS}",
            )
            found.used.update(given)
            return
        steps = max(whole // (micro * world), 1)
    ranks = world or max(whole // (micro * steps), 1)
    if whole != micro * steps * ranks:
        of = f"{micro} x {steps} x {ranks} = {micro * steps * ranks}"
        found.at().refuse(
            WHOLE,
            f"it must be {MICRO} x {STEPS} x processes, and {whole} is not {of}: change one of them"
            + ("" if world is None else ", or --world"),
        )
        found.used.update(given)
        return
    found.notes.pop(STEPS, None)
    found.put("training.accumulate", steps, *([STEPS] if STEPS in values else []), origin=f"{STEPS} {steps}")
    size = micro * ranks
    found.put("data.batch_size", size, WHOLE, MICRO, origin=f"{MICRO} {micro} x {ranks} processes")
