"""`functrain doctor`: all checks, as lines or JSON."""

import json
from collections.abc import Generator
from functools import partial
from pathlib import Path

from functrain.app.commands.command import FOUND
from functrain.app.doctor.computing import check_compiler, check_gpu, check_threads
from functrain.app.doctor.finding import Check, Finding, findings
from functrain.app.doctor.software import check_packages, check_python, check_torch
from functrain.app.doctor.storage import check_caches, check_disk, check_key


def checks(run_dir: Path) -> list[Check]:
    """All of them, in their order."""
    return [
        Check("Python", check_python),
        Check("packages", check_packages),
        Check("torch", check_torch),
        Check("C++ compiler", check_compiler),
        Check("threads", check_threads),
        Check("GPU", check_gpu),
        Check("disk", partial(check_disk, run_dir)),
        Check("caches", check_caches),
        Check("signatures", check_key),
    ]


def doctor(run_dir: Path, as_json: bool) -> Generator[str, None, int]:
    """The command.

    Args:
        run_dir: where runs will be written.
        as_json: give JSON, at the end.

    Returns:
        The exit code: 1 if something is broken.
    """
    found = list[Finding]()
    for check in checks(run_dir):
        new = findings(check)
        found += new
        if not as_json:
            yield from map(_line, new)
    broken = sum(each.status == "broken" for each in found)
    if as_json:
        yield json.dumps({"broken": broken, "findings": [each._asdict() for each in found]}, indent=2)
    else:
        yield from _advice(found, broken)
    return FOUND if broken else 0


def _line(finding: Finding) -> str:
    return f"{finding.status:<8} {finding.check:<18} {finding.found}"


def _advice(found: list[Finding], broken: int) -> list[str]:
    fixes = [f"  {each.check}: {each.fix}" for each in found if each.fix]
    warnings = sum(each.status == "warning" for each in found)
    ending = (
        f"{broken} broken, {warnings} warning{'' if warnings == 1 else 's'}" if broken or warnings else "all is well"
    )
    return ["", *(["what to do:", *fixes, ""] if fixes else []), ending]
