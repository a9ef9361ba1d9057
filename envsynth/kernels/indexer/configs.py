"""Tiles of the indexer's kernels; they depend on heads and widths alone, never on lengths or on who calls.

A score is a sum in the order of its tile. Prefill, training and decode share one tile, so they share every bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

WORKSPACE_BYTES = 1088 * 2**20
"""Scores or candidates that exist at once, unless one row is more, or one tile of queries.

It holds the candidates of 32,768 queries with k up to 512: parts of them would be small launches, whose longest programs
end alone.
"""
GRADIENT_WORKSPACE_BYTES = 512 * 2**20
"""Gradients of single (query, key) pairs that exist at once, unless one row is more."""


class Tile(NamedTuple):
    """A block of scores: some keys times all heads of some queries."""

    keys: int
    """Keys, rows of the product."""
    queries: int
    """Queries; times `heads` they are the columns of the product."""
    heads: int
    """Heads, rounded up to a power of two."""
    width: int
    """Head width, rounded up to a power of two."""
    warps: int
    """Warps of a program."""
    stages: int
    """Blocks of keys in flight."""


def score_tile(heads: int, width: int, dtype: torch.dtype) -> Tile:
    """Choose the tile of scores.

    Args:
        heads: Indexer heads.
        width: Indexer head width.
        dtype: Type of queries and keys.

    Returns:
        The tile.
    """
    padded_heads, padded_width = power_of_two(heads), max(16, power_of_two(width))
    if dtype == torch.float32:
        # Products of float32 run without tensor cores, from registers.
        return Tile(64, max(1, 32 // padded_heads), padded_heads, padded_width, 4, 2)
    # Small programs: several share a multiprocessor, each with all the registers that it likes (measured).
    # More than 32 queries would need more pointers than a thread of a walk has registers.
    stages = 3 if padded_width * dtype.itemsize <= 512 else 2
    return Tile(64, min(32, max(1, 128 // padded_heads)), padded_heads, padded_width, 4, stages)


WALK_PROGRAMS = 96
"""Tiles of queries from which a selection walks: fewer leave processors idle, and splitting the keys is faster."""
WALK_LARGEST_K = 2048
"""Keys that a walk keeps at most: its buffers are at least four times as long."""
SMALLEST_BUFFER = 2048
"""Candidates of a query at least."""
SAMPLES = 512
"""Keys whose scores say where a query's bar is. Searching the bar among twice as many takes several times as long, and half
of them put it so low that lists of candidates get full (measured)."""
_LONG = 16384
"""Keys from which a query has many more candidates than k: the fewer of the k best are in the sample, the looser the
bar. A list that gets full is cut, and a walk that must look out for full lists stops its loads again and again."""


class WalkSizes(NamedTuple):
    """How queries collect candidates."""

    capacity: int
    """Candidates of a query, a power of two, at least 4 k and 4 tiles of keys."""
    kept: int
    """At least k, a power of two."""
    turns: int
    """Tiles of sampled keys; they fit into the buffers."""
    warps: int
    """Warps that choose the best of a query's candidates."""


def walk_sizes(k: int, size: int, tile: Tile) -> WalkSizes:
    """Choose the sizes of a walk.

    Args:
        k: Keys kept per query.
        size: Keys.
        tile: Tile of scores.

    Returns:
        The sizes.
    """
    kept = max(16, power_of_two(k))
    # Lists are filled unevenly, by half as much again and more; only where k is large is that a small part.
    smallest = SMALLEST_BUFFER * (2 if size >= _LONG else 1)
    capacity = max(smallest, min(8 * kept, 4 * max(kept, 1024)), 4 * tile.keys)
    return WalkSizes(capacity, kept, max(1, min(SAMPLES, capacity) // tile.keys), max(1, capacity // 1024))


def walks(tiles: int, k: int) -> bool:
    """Tell whether a selection walks; else scores of a chunk are written, and read by `topk`.

    Args:
        tiles: Tiles of queries.
        k: Keys kept per query, at most as many as there are.
    """
    return tiles >= WALK_PROGRAMS and k <= WALK_LARGEST_K


def power_of_two(count: int) -> int:
    """Round up to a power of two."""
    return 1 << (count - 1).bit_length()
