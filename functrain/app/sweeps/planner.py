"""Merge and check the configurations of a sweep's members, and fingerprint data and code: a process of its own.

It needs torch and imports the user's code; the process that drives the sweep does neither. Its arguments are two
files: the question and the answer, see `functrain.app.sweeps.planning`.
"""

import dataclasses
import json
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from functrain.app.config.build import build_loader
from functrain.app.config.catalogue import STAGES
from functrain.app.config.loading import Stage, chosen, load_stages, plain, plain_stages
from functrain.app.config.resolving import WHOLE
from functrain.app.config.schema import Config, InitFromConfig
from functrain.app.config.source import config_error
from functrain.app.lifeline import end_with_parent
from functrain.app.runs.beginning import source_of
from functrain.app.runs.changes import SHOWS_IN_NO_BIT
from functrain.app.runs.stages import RUNS
from functrain.app.sweeps.grouping import Sharing, sharing
from functrain.app.sweeps.identity import Parts, digest_of_file, flat
from functrain.app.sweeps.plan import Request
from functrain.data.contents import content_digest
from functrain.foundation.errors import ConfigError, FunctrainError
from functrain.foundation.paths import absolute

USER_ERROR = 2
SPLITS = ("train", "val", "test")
INDEX = "functrain.json"  # of a checkpoint, with a checksum of each array


def main() -> int:
    """Answer the question; the exit code is 2 after an error that the user can mend."""
    end_with_parent()
    question, answer = map(Path, sys.argv[1:])
    try:
        requests = requested(**json.loads(question.read_text()))
        answer.write_text(json.dumps([asdict(request) for request in requests]))
    except (FunctrainError, OSError) as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    return 0


def requested(
    config: str,
    fixed: Sequence[str],
    points: Sequence[Sequence[str]],
    threads: int,
    trust: bool,
    stage: str | None = None,
    all_stages: bool = False,
    written: Mapping[str, str] = MappingProxyType({}),
    vectorize: bool = False,
) -> list[Request]:
    """The members of a sweep as they would be begun now.

    Args:
        config: the configuration file.
        fixed: the overrides that all members have.
        points: the other overrides of each member.
        threads: of a member, where the configuration does not say.
        trust: as `load_stages`.
        stage: train this stage of the configuration.
        all_stages: train all of its stages.
        written: where each key that is searched is written, by its name.
        vectorize: say which members can be trained in one program.

    Raises:
        FunctrainError: with a line for each problem of any member. One that several values of a key have is told once.
    """
    members: list[Sequence[Stage]] = []
    problems: list[tuple[str, str]] = []
    for point in points:
        try:
            stages = _with_threads(config, [*fixed, *point], threads, trust)
            members.append(_to_train(stages, config, stage, all_stages))
        except ConfigError as error:
            problems += [(line, _of_key(line, point, written)) for line in _lines(str(error))]
    if problems:
        values = Counter(of_key for _, of_key in dict.fromkeys(problems))
        raise config_error(of_key if values[of_key] > 1 else line for line, of_key in problems)
    data = _Data()
    digests = [data.of(stages) for stages in members]
    # After the data sets: what their functions import is there by now.
    code = _code([stage.config for stages in members for stage in stages])
    shares = sharing(members) if vectorize else [Sharing("")] * len(members)
    return [
        dataclasses.replace(_request(tuple(point), stages, found, code), **shared._asdict())
        for point, stages, found, shared in zip(points, members, digests, shares, strict=True)
    ]


def _with_threads(path: str, overrides: Sequence[str], threads: int, trust: bool) -> list[Stage]:
    """The stages of a member, with a number of threads where the configuration does not say one."""
    stages = load_stages(path, overrides, trust=trust)
    unset = [stage.name for stage in stages if stage.config.training.threads is None]
    places = ("training.threads" if name == WHOLE else f"stages.{name}.training.threads" for name in unset)
    given = [f"{place}={threads}" for place in places]
    return load_stages(path, [*overrides, *given], trust=trust) if given else stages


def _to_train(stages: Sequence[Stage], path: str, name: str | None, all_stages: bool) -> Sequence[Stage]:
    """The stages that a member trains: all of them, or one, which is then a configuration without stages.

    Raises:
        ConfigError: there are none, or they are not chosen.
    """
    if all_stages:
        if stages[0].name == WHOLE:
            raise ConfigError(f"--all-stages: {path} has no stages")
        return stages
    if name is None and stages[0].name != WHOLE:
        names = ", ".join(stage.name for stage in stages)
        raise ConfigError(
            f"{path} has the stages {names}: give --all-stages to let each member train them in this order, or "
            "--stage NAME for one"
        )
    found = chosen(stages, path, name)
    return [found._replace(name=WHOLE, config=_on_its_own(found.config))]


def _on_its_own(config: Config) -> Config:
    """The configuration of a stage that begins with the run of another stage, wherever its own directory is.

    Raises:
        ConfigError: the other stage has no run.
    """
    begins = config.init_from
    if begins is None or begins.stage is None:
        return config
    other = absolute(RUNS / config.name / begins.stage)
    source_of(begins, other)  # beside which the stage's own run would be
    begins = begins.model_copy(update={"path": str(other), "stage": None})
    return config.model_copy(update={"init_from": begins})


def _lines(message: str) -> list[str]:
    """The problems in a message that may have several, below a line that counts them."""
    first, *rest = message.split("\n  ")
    return rest or [first]


def _of_key(problem: str, point: Sequence[str], written: Mapping[str, str]) -> str:
    """A member's problem, as one of a key that is searched and not of the one value that the member has."""
    for text in point:
        name = text.partition("=")[0].strip()
        if name in written:
            problem = problem.replace(f"override {text!r}", written[name])
    return problem


def _request(
    point: tuple[str, ...], stages: Sequence[Stage], data: Mapping[str, str | None], code: Mapping[str, str]
) -> Request:
    bits: dict[str, Any] = {}
    begins = []
    for name, config, _ in stages:
        own = {key: value for key, value in flat(plain(config)).items() if not _shows_in_no_bit(key)}
        bits |= {f"{_prefix(name)}{key}": value for key, value in own.items()}
        begins += [] if config.init_from is None else [_init(config.init_from)]
    values = plain(stages[0].config) if stages[0].name == WHOLE else plain_stages(stages)
    init = " ".join(each for each in begins if each is not None) or None
    return Request(point, values, Parts(bits, data, code, init, version("functrain")))


def _prefix(stage: str) -> str:
    """Of a key of a stage; none without stages."""
    return f"{STAGES}.{stage}." if stage else ""


def _shows_in_no_bit(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in SHOWS_IN_NO_BIT)


class _Data:
    """The digests of the splits; those of equal sections are computed once."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, str | None]] = {}

    def of(self, stages: Sequence[Stage]) -> dict[str, str | None]:
        """Those of a member."""
        found: dict[str, str | None] = {}
        for name, config, _ in stages:
            section = json.dumps([plain(config)["data"], config.code], sort_keys=True)
            if section not in self._known:
                self._known[section] = _digests(config)
            found |= {f"{_prefix(name)}{split}": digest for split, digest in self._known[section].items()}
        return found


def _digests(config: Config) -> dict[str, str | None]:
    loaders = {split: build_loader(config, split, training=split == "train") for split in SPLITS}
    return {
        split: content_digest(loader.dataset, reads=loader.num_workers == 0)
        for split, loader in loaders.items()
        if loader is not None
    }


def _code(configs: Sequence[Config]) -> dict[str, str]:
    """The files of the user's own modules, and a digest of each.

    These are all modules that are imported by now and belong neither to Python, nor to an installed package, nor to
    functrain.
    """
    if not any(config.references for config in configs):
        return {}
    foreign = tuple(_foreign())
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and module.__name__ != "__main__" and _is_own(file, foreign):
            found[file] = digest_of_file(Path(file))
    return dict(sorted(found.items()))


def _is_own(file: str, foreign: tuple[str, ...]) -> bool:
    """Whether a module's file is the user's. (Some modules of torch name a file that is not there.)"""
    return os.path.isabs(file) and not os.path.realpath(file).startswith(foreign) and os.path.isfile(file)


def _foreign() -> Iterator[str]:
    """The folders of Python, of installed packages and of functrain, with a slash at the end."""
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield os.path.join(os.path.realpath(sysconfig.get_path(name)), "")
    yield os.path.join(Path(__file__).resolve().parents[2], "")


def _init(begins: InitFromConfig) -> str | None:
    """A digest of the file or checkpoint that a member begins with; None of a stage that it trains itself."""
    if begins.path is None:
        return None
    source = Path(begins.path)
    if source.is_dir():
        linked = source / "checkpoints" / begins.which
        source = (linked if linked.is_dir() else source) / INDEX
    return digest_of_file(source) if source.is_file() else None
