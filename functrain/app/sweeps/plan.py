"""The members of a sweep, as `sweep.json` in its directory records them."""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from functrain.app.config.catalogue import STAGES
from functrain.app.sweeps.identity import DIGITS, Parts, differences
from functrain.app.sweeps.points import Point, label, point_key
from functrain.app.sweeps.space import settings_of
from functrain.foundation.errors import ConfigError
from functrain.foundation.paths import shown_path
from functrain.foundation.regular_files import read_regular

FILE = "sweep.json"
LARGEST = 500_000_000  # bytes
MOST_SHOWN = 10  # differences in a message
Changed = Literal["keep", "again"]


class Criterion(NamedTuple):
    """By which members are compared.

    Attributes:
        metric: of the log.
        maximizes: the highest value is the best.
    """

    metric: str
    maximizes: bool


@dataclass(frozen=True)
class Request:
    """A member as the command asks for it now.

    Attributes:
        point: the overrides that not all members have.
        config: the merged configuration; of several stages, each stage's.
        parts: what its identity is made of.
        program: the same for all requests that can be trained in one program; "" for the others.
        why: why it is trained alone, or in a further program.
    """

    point: Point
    config: Mapping[str, Any]
    parts: Parts
    program: str = ""
    why: str = ""


@dataclass(frozen=True)
class Member:
    """A member of a sweep.

    Attributes:
        name: of its directory.
        point, config, parts: as in `Request`.
        criterion: by which it is compared; None: by what its configuration watches.
    """

    name: str
    point: Point
    config: Mapping[str, Any]
    parts: Parts
    criterion: Criterion | None = None

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def id(self) -> str:
        """For people."""
        return self.name.rpartition("-")[2]

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        """The configurations of its stages by their names; one that is called "" of a member without stages."""
        found: Mapping[str, Mapping[str, Any]] = self.config[STAGES] if self.is_staged else {"": self.config}
        return found

    @property
    def is_staged(self) -> bool:
        """Whether it trains several stages."""
        return STAGES in self.config

    @property
    def runs(self) -> list[str]:
        """The directories of its runs in the sweep's: its own, or one for each stage."""
        return [f"{self.name}/{stage}" if stage else self.name for stage in self.stages]

    @property
    def last(self) -> Mapping[str, Any]:
        """The configuration of the run whose metric counts: the last stage's."""
        return list(self.stages.values())[-1]

    @property
    def watch(self) -> str | None:
        """The metric by which it is compared; None for the run's default."""
        found: str | None = self.last["evaluation"]["watch"] if self.criterion is None else self.criterion.metric
        return found

    @property
    def maximizes(self) -> bool:
        """Whether the highest metric is the best."""
        if self.criterion is not None:
            return self.criterion.maximizes
        return bool(self.last["evaluation"]["watch_mode"] == "max")

    @property
    def epochs(self) -> int | None:
        """The length of its last run, if it is counted in epochs."""
        return self.epochs_of(list(self.stages)[-1])

    def epochs_of(self, stage: str) -> int | None:
        """The length of a stage, likewise."""
        found: int | None = self.stages[stage]["training"]["epochs"]
        return found


@dataclass(frozen=True)
class Plan:
    """A sweep's members.

    Attributes:
        threads: of each member, where the configuration does not say; the first start of the sweep decides.
        batch_size: of the sampler's suggestions; likewise.
        search: what the sampler searches, as text; "" without one.
        members: in the order in which they were asked for.
        batches: the names of the members that the sampler has suggested, batch by batch.
        programs: the names of members that are trained in one program, likewise.
    """

    threads: int
    batch_size: int
    search: str = ""
    members: tuple[Member, ...] = ()
    batches: tuple[tuple[str, ...], ...] = ()
    programs: tuple[tuple[str, ...], ...] = ()

    def replace(self, **changes: Any) -> "Plan":
        """A plan that differs in these fields."""
        return dataclasses.replace(self, **changes)

    def compared_by(self, criterion: Criterion | None) -> "Plan":
        """The plan with members that are compared in this way."""
        return self.replace(members=tuple(dataclasses.replace(each, criterion=criterion) for each in self.members))

    def named(self, names: Iterable[str]) -> list[Member]:
        """The members of these names."""
        by_name = {member.name: member for member in self.members}
        return [by_name[name] for name in names]


def read_plan(folder: Path) -> Plan | None:
    """The plan in a sweep's directory; None if there is none yet.

    Raises:
        ConfigError: it is damaged.
    """
    path = folder / FILE
    try:
        values = json.loads(read_regular(path, LARGEST))
        members = [
            Member(each["name"], tuple(each["point"]), each["config"], Parts(**each["parts"]))
            for each in values["members"]
        ]
        batches = tuple(tuple(names) for names in values["batches"])
        programs = tuple(tuple(names) for names in values.get("programs", ()))
        plan = Plan(
            int(values["threads"]), int(values["batch_size"]), values["search"], tuple(members), batches, programs
        )
        plan.named(name for names in (*batches, *programs) for name in names)
        return plan
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{shown_path(path)} is damaged ({error}): put back the file as it was, or choose another directory with "
            "--sweep-dir"
        ) from None


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan. A kill leaves the old file or the new one.

    Raises:
        OSError: it cannot be written.
    """
    write_whole(folder / FILE, json.dumps(asdict(plan)) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file as a whole, which outlives a crash of the system, too.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def joined(plan: Plan, requests: Sequence[Request], folder: Path, changed: Changed | None) -> tuple[Plan, list[Member]]:
    """The plan with the members that are asked for, and the member of each request.

    A member is known by its identity. One with the same values of the searched keys and another identity has changed.

    Args:
        plan: as it is recorded.
        requests: what the command asks for now.
        folder: the sweep's.
        changed: what becomes of changed members that have begun: "keep" them, or train them "again" in a directory of
            their own. None refuses.

    Raises:
        ConfigError: a member has changed, and `changed` is None.
    """
    known = {member.parts.identity: member for member in plan.members}
    known_as = {member.name: member for member in plan.members}
    former = {point_key(member.point): member for member in plan.members}
    wanted: dict[str, Member] = {}
    replaced: dict[str, Member] = {}
    refused: list[tuple[Member, Request]] = []
    for request in requests:
        identity = request.parts.identity
        if identity in wanted:
            continue
        before = known.get(identity)
        if before is None and (old := former.get(point_key(request.point))) is not None:
            if not (folder / old.name).exists():
                replaced[old.name] = _new(request)
            elif changed is None:
                refused.append((old, request))
                continue
            else:
                replaced[old.name] = _new(request) if changed == "again" else _kept(old, request)
            wanted[identity] = replaced[old.name]
        elif before is not None:
            # What shows in no bit of the result may be another: checkpoints to keep, workers.
            replaced[before.name] = wanted[identity] = _kept(before, request)
        else:
            wanted[identity] = _new(request)
    if refused:
        raise ConfigError(_refusal(refused, folder))
    rest = [replaced.get(member.name, member) for member in plan.members]
    names = {member.name for member in rest}
    added = [member for member in wanted.values() if member.name not in names]
    batches = tuple(
        tuple(replaced[name].name if name in replaced else name for name in batch) for batch in plan.batches
    )
    members = [wanted[request.parts.identity] for request in requests]
    programs = tuple(names for names in plan.programs if all(replaced.get(n, known_as[n]).name == n for n in names))
    return plan.replace(members=(*rest, *added), batches=batches, programs=programs), members


def _new(request: Request) -> Member:
    name = f"{label(request.point)}-{request.parts.identity[:DIGITS]}"
    return Member(name, request.point, {**request.config, "name": name}, request.parts)


def _kept(member: Member, request: Request) -> Member:
    """The member under its name, as it would be begun now."""
    return dataclasses.replace(member, config={**request.config, "name": member.name}, parts=request.parts)


def _refusal(refused: Sequence[tuple[Member, Request]], folder: Path) -> str:
    lines: dict[str, list[Member]] = {}
    for member, request in refused:
        for difference in differences(member.parts, request.parts):
            lines.setdefault(difference, []).append(member)
    said = [f"  {_who(members)}: {difference}" for difference, members in list(lines.items())[:MOST_SHOWN]]
    if len(lines) > MOST_SHOWN:
        said.append(f"  ... and {len(lines) - MOST_SHOWN} more differences")
    return "\n".join(
        [
            f"members of the sweep in {shown_path(folder)} have begun as something else:",
            *said,
            "Put that back as it was, or choose: --changed keep (finished members stay as they are, the others go on "
            "with what is new), --changed again (train them again; what there is stays where it is), or another "
            "directory with --sweep-dir",
        ]
    )


def _who(members: Sequence[Member]) -> str:
    first = f"member {members[0].id} ({' '.join(members[0].point)})"
    return first if len(members) == 1 else f"{first} and {len(members) - 1} more"


def settings(member: Member) -> Mapping[str, Any]:
    """The values that the member's overrides give."""
    return settings_of(member.point)
