"""Peak memory of saving, restoring and digesting a state in pieces.   Usage: memory_process.py FOLDER RANKS LEAVES MB

Writes for each rank how many bytes the process grew by at most, and the seconds; the state has LEAVES leaves of MB.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from forked_ranks import import_what_runs_need, run_ranks

from functrain.checkpoint import Checkpointer, PieceWriter
from functrain.distributed import ProcessPeers, current_world
from functrain.distributed.pieces import rows_on_first
from functrain.foundation.pieces import Piece

COLUMNS = 1024


def memory(name: str) -> int:
    """Of this process: VmRSS, or VmHWM, the most since `reset`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def grown(work: Callable[[], object]) -> dict[str, float]:
    """The bytes that the process grew by at most while it worked, and the seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM is VmRSS again
    before, started = memory("VmRSS"), time.monotonic()
    held = work()
    found = {"bytes": memory("VmHWM") - before, "seconds": time.monotonic() - started}
    del held
    return found


def pieces(leaves: int, rows: int, rank: int, ranks: int) -> dict[str, dict[str, Piece]]:
    own = [torch.full((rows // ranks, COLUMNS), float(number)) for number in range(leaves)]
    return {"params": {f"w{number}": Piece(each, rows, rank, ranks) for number, each in enumerate(own)}}


def measure(folder: str, leaves: int, megabytes: int) -> None:
    world = current_world()
    peers, rows = ProcessPeers.of(world), megabytes * 2**20 // (4 * COLUMNS)
    tree = pieces(leaves, rows, world.rank, world.size)
    together = Path(folder, "together")

    def save() -> None:
        if world.rank:
            with PieceWriter(together, peers) as writer:
                writer.save(tree)
            return
        with Checkpointer(together, peers=peers) as checkpointer:
            checkpointer.save(tree, step=1)

    def restore(name: str) -> object:
        return Checkpointer(Path(folder, name), read_only=world.rank > 0, peers=peers).restore(tree).tree

    def stream() -> None:
        for piece in tree["params"].values():
            for _ in rows_on_first(piece, torch.device("cpu")):
                pass

    found = {
        "save": grown(save),
        "restore": grown(lambda: restore("together")),
        "restore of another's": grown(lambda: restore("alone")),
        "stream": grown(stream),
    }
    Path(folder, f"memory.{world.rank}").write_text(json.dumps(found))


def save_alone(folder: str, leaves: int, megabytes: int) -> None:
    """As one process does."""
    whole = pieces(leaves, megabytes * 2**20 // (4 * COLUMNS), 0, 1)["params"]
    with Checkpointer(Path(folder, "alone")) as checkpointer:
        checkpointer.save({"params": {name: piece.rows for name, piece in whole.items()}}, step=1)


if __name__ == "__main__":
    directory, number, *sizes = sys.argv[1:]
    torch.set_num_threads(1)
    import_what_runs_need()
    codes = run_ranks(1, lambda: save_alone(directory, *map(int, sizes)))
    codes += run_ranks(int(number), lambda: measure(directory, *map(int, sizes)))
    sys.exit(max(map(abs, codes)))
