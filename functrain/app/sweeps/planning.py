"""Ask the planner, in a process of its own, what a sweep's members would be now."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from functrain.app.lifeline import python
from functrain.app.sweeps.identity import Parts
from functrain.app.sweeps.plan import Request
from functrain.app.sweeps.points import Point
from functrain.foundation.errors import ConfigError, FunctrainError
from functrain.foundation.scratch import scratch_folder

USER_ERROR = 2
MOST_LINES = 20  # of a traceback


class Asked(NamedTuple):
    """What all members of a sweep have in common.

    Attributes:
        config: the configuration file.
        fixed: the overrides.
        threads: of a member, where the configuration does not say.
        trust: `--trust` was given.
        stage: of the configuration, that members train.
        all_stages: they train all of its stages.
        written: where each key that is searched is written.
        vectorize: find out which members can be trained in one program.
    """

    config: Path
    fixed: Sequence[str]
    threads: int
    trust: bool
    stage: str | None = None
    all_stages: bool = False
    written: Mapping[str, str] = MappingProxyType({})
    vectorize: bool = False


def requested(asked: Asked, points: Sequence[Point]) -> list[Request]:
    """The members as they would be begun now.

    Raises:
        ConfigError: with a line for each problem of any member.
        FunctrainError: the planner ended otherwise, such as by a signal.
    """
    with scratch_folder() as folder:
        question, answer = folder / "question.json", folder / "answer.json"
        given = {**asked._asdict(), "config": os.fspath(asked.config), "written": dict(asked.written)}
        question.write_text(json.dumps({**given, "points": points}))
        command = python("functrain.app.sweeps.planner", os.fspath(question), os.fspath(answer))
        # Its standard input ends with this process, and so does it.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            errors="replace",
        )  # fmt: skip
        assert process.stderr is not None
        assert process.stdin is not None
        with process:
            try:
                errors = process.stderr.read()
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                process.stdin.close()
        if code == USER_ERROR:
            raise ConfigError(errors.strip())
        if code:
            said = "\n".join(errors.strip().splitlines()[-MOST_LINES:])
            how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
            raise FunctrainError(f"the process that reads configurations, data and code {how}:\n{said}")
        return [
            Request(tuple(each["point"]), each["config"], Parts(**each["parts"]), each["program"], each["why"])
            for each in json.loads(answer.read_text())
        ]
