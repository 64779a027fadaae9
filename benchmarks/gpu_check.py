"""Everything that needs a GPU, in one go.   Usage: python -m benchmarks.gpu_check [--out FOLDER] [OPTIONS]

OPTIONS are those of benchmarks.gpu.

Runs the tests that are marked gpu, then benchmarks.gpu, and writes what they print to FOLDER (default: gpu-check). It
is for a machine that is lent for minutes and has no network: each part has a time limit, and packages that the machine
lacks are taken from wheels in the folder gpu-wheels, which `make gpu-wheels` fills beforehand. They are put into a
temporary folder; the machine's own torch is used.

To try it out without a GPU: make gpu-check GPU_OPTIONS="--device cpu --layers 2 --steps 3 --backend aot_eager"
"""

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "gpu-wheels"
NEEDED = {  # module -> name of the package: what functrain and its tests import besides torch
    "optree": "optree",
    "orbax.checkpoint": "orbax-checkpoint",
    "jax": "jax",
    "ml_dtypes": "ml_dtypes",
    "pydantic": "pydantic",
    "yaml": "PyYAML",
    "rich": "rich",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
TESTS_LIMIT, BENCHMARK_LIMIT = 180, 300  # seconds


def is_there(module: str) -> bool:
    """Whether the interpreter finds a module."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def install_missing(target: str) -> list[str]:
    """Unpack the wheels, if a package is missing; those that cannot be had."""
    missing = [package for module, package in NEEDED.items() if not is_there(module)]
    wheels = sorted(map(str, WHEELS.glob("*.whl")))
    if missing and wheels:
        options = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check", "--target", target]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *wheels], check=True)
        sys.path.append(target)
        importlib.invalidate_caches()
    return [package for module, package in NEEDED.items() if not is_there(module)]


def run(name: str, command: list[str], limit: int, out: Path, environment: dict[str, str]) -> bool:
    """Run one part, print what it prints and keep it; whether it ended well."""
    print(f"== {name}: {' '.join(command[1:])}", flush=True)
    log = out / f"{name}.txt"
    try:
        with log.open("w") as file:
            code: int | None = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=limit
            ).returncode
    except subprocess.TimeoutExpired:
        code = None
    print(log.read_text()[-6000:])
    ended = f"not done after {limit} s" if code is None else f"exit code {code}"
    print(f"== {name}: {ended}", flush=True)
    return code in (0, 5)  # 5: no test was selected


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-check", help="folder for what the parts print")
    arguments, options = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        if still_missing := install_missing(wheels):
            print(f"missing here: {', '.join(still_missing)}. Run `make gpu-wheels` where there is a network")
            return 2
        # Behind the machine's own packages, which must win.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path[1:])])}
        print(f"Python {platform.python_version()}, {platform.platform()}")
        subprocess.run(["nvidia-smi", "-L"], check=False) if shutil.which("nvidia-smi") else print("no nvidia-smi here")
        python = [sys.executable, "-W", "ignore", "-m"]
        # Only these files: the others import references that such a machine lacks.
        files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
        pytest = [*python, "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider", *files]
        tests = run("tests", pytest, TESTS_LIMIT, arguments.out, environment)
        table = ["--out", str(arguments.out / "gpu.md")]
        bench = [*python, "benchmarks.gpu", *table, *options]
        return 0 if run("benchmark", bench, BENCHMARK_LIMIT, arguments.out, environment) and tests else 1


if __name__ == "__main__":
    sys.exit(main())
