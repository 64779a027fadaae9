"""The names of records that a run can watch."""


def check_watch(watch: str | None, evaluates: bool, averages: bool) -> None:
    """Check the prefix of a name; the rest is known when the first step tells the names of the metrics.

    Raises:
        ValueError: if no record can have that name.
    """
    if watch is None:
        return
    prefixes = watched_prefixes(evaluates, averages)
    if not watch.startswith(prefixes):
        missing = (
            ""
            if evaluates or watch.startswith("train_")
            else "; eval_... needs an eval_loader (in a configuration: a split 'val')"
        )
        if evaluates and watch.startswith("ema_"):
            missing = "; ema_... needs averages of the parameters (ema_decay)"
        names = ", ".join(f"{prefix}loss" for prefix in prefixes)
        raise ValueError(f"watch must be {names}, or another metric behind such a prefix; got {watch!r}{missing}")


def watched_prefixes(evaluates: bool, averages: bool) -> tuple[str, ...]:
    """What the names of watched records begin with."""
    return ("train_", *(("eval_",) if evaluates else ()), *(("ema_",) if evaluates and averages else ()))
