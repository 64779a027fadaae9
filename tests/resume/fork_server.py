"""A parent that has imported all that training needs, and forks a training process for each request.

Requests and answers are lines on descriptors 0 and 1, which the child has too (see moments.Aim):

    -> {"arguments": ["RUN_DIR", "KEY=VALUE", ...], "errors": "FILE", "environment": {...}}
    <- pid NUMBER, then what the child says, then: ended CODE

Importing takes ten times as long as a run does. It is sound as long as the parent has no thread but its first (a fork
copies no other, and locks that others hold stay locked for ever), which is checked before each fork; the children are
real processes, get real signals, and end as interpreters do. What they share, unlike fresh ones, is the hash seed: the
tests use parents of different seeds.

A child ends as an interpreter does, with all its threads waited for and all its hooks run, but for one thing: it does
not take apart the modules that it was born with. That would copy half of the parent's memory, and take twice as long
as its run.
"""

import atexit
import gc
import importlib
import json
import os
import sys

_code: int | None = None


def _leave() -> None:
    if _code is not None:  # else it ends by an exception, which Python reports
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_code)


atexit.register(_leave)  # the first of the hooks is run as the last

import training_process  # noqa: E402

from functrain.checkpoint import orbax_io  # noqa: E402


def read_line() -> str:
    """A line from descriptor 0, and not a byte more: what follows may be meant for the child."""
    text = b""
    while not text.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)  # nothing to put in order: imports alone
        text += byte
    return text.decode().strip()


def serve() -> dict[str, object]:
    """Returns in the children only, with their request."""
    while True:
        line = read_line()
        if not line:
            continue  # told a child to go on that no longer was
        request: dict[str, object] = json.loads(line)
        threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
        assert threads == 1, f"a parent with {threads} threads must not fork"
        pid = os.fork()
        if pid == 0:
            return request
        os.write(1, f"pid {pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(1, f"ended {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    orbax_io.import_orbax()
    for module in (
        "torch.fx.experimental.proxy_tensor",
        "torch._functorch.aot_autograd",
        "functrain.compiler.packages",
    ):
        importlib.import_module(module)  # else at the first compiled step
    gc.freeze()  # a collection would write to every page that the children share
    os.write(1, b"ready\n")
    request = serve()
    os.environ |= request["environment"]
    descriptor = os.open(str(request["errors"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 2)
    try:
        training_process.begin(*request["arguments"])
        _code = 0
    except SystemExit as end:
        _code = int(end.code or 0)
        raise
