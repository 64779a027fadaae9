"""Merge and check the configurations of a sweep's members, and fingerprint data and code: a process of its own.

It needs torch and imports the user's code; the process that drives the sweep does neither. Its arguments are two
files: the question and the answer, see `functrain.app.sweeps.planning`.
"""

import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from functrain.app.config.build import build_loader
from functrain.app.config.loading import load_config, plain
from functrain.app.config.schema import Config
from functrain.app.config.source import config_error
from functrain.app.runs.changes import SHOWS_IN_NO_BIT
from functrain.app.sweeps.identity import Parts, digest_of_file, flat
from functrain.app.sweeps.lifeline import end_with_parent
from functrain.app.sweeps.plan import Request
from functrain.data.contents import content_digest
from functrain.foundation.errors import ConfigError, FunctrainError

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
    config: str, fixed: Sequence[str], points: Sequence[Sequence[str]], threads: int, trust: bool
) -> list[Request]:
    """The members of a sweep as they would be begun now.

    Args:
        config: the configuration file.
        fixed: the overrides that all members have.
        points: the other overrides of each member.
        threads: of a member, where the configuration does not say.
        trust: as `load_config`.

    Raises:
        FunctrainError: with a line for each problem of any member.
    """
    configs, problems = [], []
    for point in points:
        try:
            configs.append(_config(config, [*fixed, *point], threads, trust))
        except ConfigError as error:
            problems += _lines(str(error))
    if problems:
        raise config_error(problems)
    digests: dict[str, Mapping[str, str | None]] = {}
    found = []
    for point, each in zip(points, configs, strict=True):
        section = json.dumps([plain(each)["data"], each.code], sort_keys=True)
        if section not in digests:
            digests[section] = _data(each)
        found.append((tuple(point), each, digests[section]))
    code = _code(configs)  # after the data sets: what their functions import is there by now
    return [_request(point, each, data, code) for point, each, data in found]


def _config(path: str, overrides: Sequence[str], threads: int, trust: bool) -> Config:
    config = load_config(path, overrides, trust=trust)
    if config.training.threads is not None:
        return config
    return load_config(path, [*overrides, f"training.threads={threads}"], trust=trust)


def _lines(message: str) -> list[str]:
    """The problems in a message that may have several, below a line that counts them."""
    first, *rest = message.split("\n  ")
    return rest or [first]


def _request(
    point: tuple[str, ...], config: Config, data: Mapping[str, str | None], code: Mapping[str, str]
) -> Request:
    values = plain(config)
    bits = {key: value for key, value in flat(values).items() if not _shows_in_no_bit(key)}
    begins = bits.get("init_from.path")
    return Request(point, values, Parts(bits, data, code, _init(begins), version("functrain")))


def _shows_in_no_bit(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in SHOWS_IN_NO_BIT)


def _data(config: Config) -> dict[str, str | None]:
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
    found = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.endswith(".py") and module.__name__ != "__main__" and _is_own(Path(file)):
            found[file] = digest_of_file(Path(file))
    return dict(sorted(found.items()))


def _is_own(file: Path) -> bool:
    """Whether a module's file is the user's. (Some modules of torch name a file that is not there.)"""
    return (
        file.is_absolute()
        and file.is_file()
        and not any(file.resolve().is_relative_to(folder) for folder in _foreign())
    )


def _foreign() -> Iterator[Path]:
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name)).resolve()
    yield Path(__file__).resolve().parents[2]


def _init(path: Any) -> str | None:
    """A digest of the file, the checkpoint or the last checkpoint of the run that a member begins with."""
    if path is None:
        return None
    source = Path(path)
    if source.is_dir():
        last = source / "checkpoints" / "last"
        source = (last if last.is_dir() else source) / INDEX
    return digest_of_file(source) if source.is_file() else None
