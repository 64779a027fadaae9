"""Programs of a sweep: members that are trained together, in one step (`--vectorize`). It imports no torch."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from functrain.app.sweeps.plan import Member, Plan, Request, write_whole
from functrain.foundation.regular_files import read_regular

FOLDER = ".programs"  # in the sweep's directory: a run for each program
NOTE = "program.json"  # in a member's directory, until its run is written
LARGEST = 10_000  # bytes
MOST_LISTED = 8  # members in a line


def program_id(names: Iterable[str]) -> str:
    """The name of the program of these members.

    Example:
        >>> program_id(["a", "b"]) == program_id(["b", "a"])
        True
    """
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:8]


def with_programs(plan: Plan, members: Sequence[Member], requests: Sequence[Request], folder: Path) -> Plan:
    """The plan with programs for the members that have not begun; those that have go on as they began.

    Args:
        plan: with these members.
        members, requests: what the command asks for now; the requests say which of them fit together.
        folder: the sweep's.
    """
    taken = {name for names in plan.programs for name in names}
    together: dict[str, list[str]] = {}
    for member, request in zip(members, requests, strict=True):
        is_new = member.name not in taken and not (folder / member.name).exists()
        if request.program and is_new and member.name not in together.setdefault(request.program, []):
            together[request.program].append(member.name)
    more = tuple(tuple(names) for names in together.values() if len(names) > 1)
    return plan.replace(programs=(*plan.programs, *more))


def note(folder: Path, names: Sequence[str]) -> None:
    """Note in the directories of a program's members that they have begun, and where their log is.

    Raises:
        OSError: it cannot be written.
    """
    for number, name in enumerate(names):
        if not (folder / name / "config.yaml").exists():
            content = {"program": program_id(names), "number": number}
            write_whole(folder / name / NOTE, json.dumps(content) + "\n")


def noted(directory: Path) -> tuple[Path, int] | None:
    """The directory of the program that trains a member, and the member's number in it; None of other members."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known: Mapping[str, Any] = json.loads(read_regular(directory / NOTE, LARGEST))
        return directory.parent / FOLDER / Path(str(known["program"])).name, int(known["number"])
    return None


def of_member(records: Iterable[Mapping[str, Any]], number: int) -> list[Mapping[str, Any]]:
    """The records of a program as one of its members has them; none after it has stopped.

    Example:
        >>> of_member([{"epoch": 1, "eval_loss": 2.0, "members": {"eval_loss": [1.0, 3.0]}}], 1)
        [{'epoch': 1, 'eval_loss': 3.0}]
    """
    found: list[Mapping[str, Any]] = []
    for record in records:
        own = {name: each[number] for name, each in record.get("members", {}).items()}
        if own and all(value is None for value in own.values()):
            break
        found.append({name: own.get(name, value) for name, value in record.items() if name != "members"})
    return found


def program_lines(plan: Plan, members: Sequence[Member], why: Mapping[str, str]) -> list[str]:
    """What is trained in one program, and why the other members are not; nothing without a program or a reason.

    Args:
        plan: of the sweep.
        members: that the command asks for.
        why: why a member is trained alone, or in a further program, by name.
    """
    by_name = {member.name: member for member in plan.members}
    asked = {member.name for member in members}
    lines = []
    for names in plan.programs:
        if asked & set(names):
            ids = [by_name[name].id for name in names]
            listed = ", ".join(ids[:MOST_LISTED]) + (f", ... ({len(ids)})" if len(ids) > MOST_LISTED else "")
            apart = f" (apart, since {why[names[0]]})" if names[0] in why else ""
            lines.append(f"program-{program_id(names)}: {len(ids)} members in one step: {listed}{apart}")
    shared = {name for names in plan.programs for name in names}
    reasons: dict[str, list[str]] = {}
    for member in members:
        if member.name in why and member.name not in shared:
            reasons.setdefault(why[member.name], []).append(member.id)
    lines += [f"alone: {', '.join(ids[:MOST_LISTED])}, since {reason}" for reason, ids in reasons.items()]
    return lines
