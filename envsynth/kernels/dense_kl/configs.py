"""Which tiles the kernels use, by heads, widths and type. Plain numbers, from compiling for sm_90; no data decides.

A kernel looks at one block of queries and one block of keys at a time. Columns of a product are (head, query) pairs, with
the queries as the fast axis, so that a thread adds up heads by itself. All heads of the indexer are one product; those
of the teacher are several, each of `heads` heads, so that twelve heads are three products of four and not one of sixteen.
"""

from __future__ import annotations

from typing import NamedTuple

from envsynth.kernels.dispatch import UnsupportedError

MOST_HEADS = 128
"""Heads of the teacher that the kernels take."""
MOST_INDEX_HEADS = 64
"""Heads of the indexer that the kernels take."""
MOST_WIDTH = 576
"""Width of the teacher's keys that the kernels take."""
MOST_INDEX_WIDTH = 128
"""Width of the indexer's keys that the kernels take."""
WORKSPACE_BYTES = 32 * 2**20
"""Gradients at scores that exist at once, unless one row is more."""
PROGRAMS = 1024
"""Programs that a launch should have at least: where there are few queries, keys are split."""
KEY_PARTS = 4
"""Programs that share a block of keys in the backward pass, each with every fourth block of queries."""


class LseTile(NamedTuple):
    """A block of the teacher's logits."""

    rows: int
    """Rows of (query, head)."""
    keys: int
    """Keys of a step."""
    warps: int
    """Warps of a program."""
    stages: int
    """Steps whose loads are in flight."""


class Tile(NamedTuple):
    """A block of queries and keys."""

    keys: int
    """Keys."""
    queries: int
    """Queries, a power of two."""
    heads: int
    """Heads of the teacher in one product, a power of two."""
    chunks: int
    """Products that hold all heads of the teacher."""
    index_heads: int
    """Heads of the indexer, rounded up to a power of two."""
    index_width: int
    """Width of the indexer's keys, rounded up likewise."""
    warps: int
    """Warps of a program."""
    stages: int
    """Steps whose loads are in flight."""


class StudentTile(NamedTuple):
    """A block of queries and keys of the indexer alone."""

    keys: int
    """Keys."""
    queries: int
    """Queries, a power of two."""
    warps: int
    """Warps of a program."""
    stages: int
    """Steps whose loads are in flight."""


class Limits(NamedTuple):
    """Bounds of a tile, by which one is chosen."""

    keys: int
    """Keys."""
    queries: int
    """Most queries."""
    columns: int
    """Most columns of a product, unless a single query has more."""
    query_bytes: int
    """Most bytes of the teacher's queries of a block, unless a single query has more."""
    warps: int
    """Warps of a program."""
    stages: int
    """Steps whose loads are in flight."""


LSE = {2: LseTile(128, 64, 8, 3), 4: LseTile(32, 32, 4, 1)}
"""Tiles of the teacher's log-sum-exp by the bytes of a number."""
WIDE_LSE = {2: LseTile(64, 32, 4, 2), 4: LseTile(16, 16, 4, 1)}
"""The same for keys wider than `WIDE`."""
WIDE = 256
"""Width from which on rows are so wide that fewer fit."""
TEACHER = {2: Limits(64, 16, 128, 96 * 2**10, 8, 2), 4: Limits(32, 16, 32, 64 * 2**10, 4, 1)}
"""Bounds of tiles of teacher and indexer by the bytes of a number; their queries stay while keys pass."""
STUDENT_COLUMNS = 64
"""Most columns of a product where the indexer stands alone, unless a single query has more."""
MOST_QUERIES = 16
"""Most queries of such a tile."""
NARROW_KEYS = 32
"""Keys of a tile of halves wider than `WIDE`, at most."""


class Sizes(NamedTuple):
    """What decides a tile."""

    heads: int
    """Heads of the teacher."""
    width: int
    """Width of the teacher's keys."""
    index_heads: int
    """Heads of the indexer."""
    index_width: int
    """Width of the indexer's keys."""
    item_bytes: int
    """Bytes of a number, the larger of the teacher's and the indexer's."""


def tile(limits: dict[int, Limits], sizes: Sizes) -> Tile:
    """Choose a kernel's tile.

    Args:
        limits: Bounds by the bytes of a number.
        sizes: Heads, widths and type.

    Returns:
        The tile.
    """
    found = limits[sizes.item_bytes]
    index_heads, index_width = power_of_two(sizes.index_heads), max(16, power_of_two(sizes.index_width))
    row_bytes = sizes.heads * sizes.width * sizes.item_bytes
    queries = 1
    while (
        2 * queries <= found.queries
        and 2 * queries * index_heads <= found.columns
        and 2 * queries * row_bytes <= found.query_bytes
    ):
        queries *= 2
    # A matrix instruction has sixteen columns at least. Queries of many heads do not fit, so heads that do not exist do.
    index_heads = max(index_heads, -(-16 // queries))
    most = max(found.columns // queries, -(-16 // queries), 1)
    sizes_of_chunk = [1 << power for power in range(8) if queries << power >= 16 and 1 << power <= most]
    heads = min(sizes_of_chunk, key=lambda chunk: (-(-sizes.heads // chunk) * chunk, -chunk))
    keys = found.keys if sizes.width <= WIDE else min(found.keys, NARROW_KEYS)
    stages = found.stages if sizes.width <= WIDE else 1
    chunks = -(-sizes.heads // heads)
    return Tile(keys, queries, heads, chunks, index_heads, index_width, found.warps, stages)


def student_tile(sizes: Sizes) -> StudentTile:
    """Choose the tile of kernels that know the indexer alone.

    Args:
        sizes: Heads, widths and type.

    Returns:
        The tile.
    """
    heads = power_of_two(sizes.index_heads)
    if sizes.item_bytes == 4:
        return StudentTile(32, max(1, min(MOST_QUERIES, 32 // heads)), 4, 1)
    return StudentTile(64, max(1, min(MOST_QUERIES, STUDENT_COLUMNS // heads)), 4, 2)


def lse_tile(width: int, item_bytes: int) -> LseTile:
    """Choose the tile of the teacher's log-sum-exp.

    Args:
        width: Width of the teacher's keys.
        item_bytes: Bytes of a number.

    Returns:
        The tile.
    """
    return (LSE if width <= WIDE else WIDE_LSE)[item_bytes]


def check(sizes: Sizes) -> None:
    """Refuse what no tile holds.

    Args:
        sizes: Heads, widths and type.

    Raises:
        UnsupportedError: something is too large.
    """
    bounds = (
        ("heads of the teacher", sizes.heads, MOST_HEADS),
        ("columns of the teacher's keys", sizes.width, MOST_WIDTH),
        ("heads of the indexer", sizes.index_heads, MOST_INDEX_HEADS),
        ("columns of the indexer's keys", sizes.index_width, MOST_INDEX_WIDTH),
    )
    for name, size, most in bounds:
        if size > most:
            raise UnsupportedError(f"dense_kl: {size} {name}, kernels take at most {most}; use backend='reference'")


def power_of_two(count: int) -> int:
    """Round up to a power of two."""
    return 1 << (count - 1).bit_length()
