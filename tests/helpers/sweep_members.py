"""Members of a sweep that were never trained, and what they reached."""

from functrain.app.sweeps.identity import Parts, flat
from functrain.app.sweeps.plan import Member, Request
from functrain.app.sweeps.results import Result
from functrain.app.sweeps.space import settings_of


def request(point, *, epochs=9, mode="min", data="d", code="c", functrain="1"):
    """A member as a command asks for it."""
    config = {
        "name": "base",
        "training": {"epochs": epochs, "steps": None},
        "evaluation": {"watch": "eval_loss", "watch_mode": mode},
        "own": settings_of(point),
    }
    parts = Parts(flat(config), {"train": data}, {"net.py": code}, None, functrain)
    return Request(tuple(point), config, parts)


def member(point, **given):
    """A member."""
    asked = request(point, **given)
    return Member(f"m-{asked.parts.identity}", asked.point, asked.config, asked.parts)


def members(values, **given):
    """Members of these best values (None: without one), and their results."""
    made = [member([f"own={number}"], **given) for number in range(len(values))]
    return made, {each.name: Result("eval_loss", value, 1, value, 1) for each, value in zip(made, values, strict=True)}
