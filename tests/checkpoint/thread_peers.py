"""Processes that save and restore together, as threads of one."""

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from functrain.foundation.errors import CheckpointError
from functrain.foundation.pieces import Piece
from functrain.foundation.trees import tree_map

ENDED = object()


class ThreadPeers:
    """One of them; `ends` stands for the end of its process."""

    def __init__(self, rank: int, ranks: int, pipes: dict[tuple[int, int], queue.Queue]) -> None:
        self.rank, self.ranks, self.pipes = rank, ranks, pipes

    def send(self, value: Any, rank: int) -> None:
        self.pipes[self.rank, rank].put(value)

    def receive(self, rank: int) -> Any:
        value = self.pipes[rank, self.rank].get(timeout=60)
        if value is ENDED:
            self.pipes[rank, self.rank].put(ENDED)
            raise CheckpointError(f"process {rank} has ended, or does not answer (closed)")
        return value

    def ends(self) -> None:
        for rank in range(self.ranks):
            self.pipes[self.rank, rank].put(ENDED)


def thread_peers(ranks: int) -> list[ThreadPeers]:
    pipes = {(a, b): queue.Queue() for a in range(ranks) for b in range(ranks)}
    return [ThreadPeers(rank, ranks, pipes) for rank in range(ranks)]


def on_all(peers: list[ThreadPeers], work: Callable[[ThreadPeers], Any]) -> list[Any]:
    """What the work returns or raises on each, in their order."""

    def outcome(each: ThreadPeers) -> Any:
        try:
            return work(each)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(peers)) as pool:
        return list(pool.map(outcome, peers))


def in_pieces(tree: Any, rank: int, ranks: int) -> Any:
    """The tree with a piece for each tensor that has a row for each process."""

    def piece(leaf: Any) -> Any:
        if not hasattr(leaf, "ndim") or not leaf.ndim or len(leaf) < ranks:
            return leaf
        count = -(-len(leaf) // ranks)
        rows = leaf[rank * count : (rank + 1) * count]
        padded = leaf.new_zeros(count, *leaf.shape[1:])
        padded[: len(rows)] = rows
        return Piece(padded, len(leaf), rank, ranks)

    return tree_map(piece, tree)
