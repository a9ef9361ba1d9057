"""Which tiles the kernels use, by shape. Plain numbers, from compiling for sm_90; nothing here is decided by data.

A tile is a group of consecutive queries of one sequence. Its rows are (query, head) pairs, which lie next to each other
in memory, and its keys are the union of what its queries selected.
"""

from __future__ import annotations

from typing import NamedTuple

from envsynth.kernels.dispatch import UnsupportedError

MOST_HEADS = 128
"""Heads that the kernels take."""
MOST_QUERIES = 32
"""Queries of a tile: each has a bit in an int32 of every key."""
PACKED_ROWS = 64
"""Rows that packing aims at: what one warpgroup multiplies at once."""
LONGEST_SORT = 4096
"""Entries that one program sorts to find a tile's union."""
WORKSPACE_BYTES = 1 << 30
"""Bound of the deterministic backward pass's workspace; a single tile per sequence may exceed it."""
SUMMED_ROWS = 32
"""Rows of a key's gradient that are added up at a time."""


class Tiles(NamedTuple):
    """Sizes of one kernel."""

    rows: int
    """Rows of (query, head) that one program holds; a tile with more is shared by several programs."""
    keys: int
    """Keys of one step."""
    warps: int
    """Warps of a program."""
    stages: int
    """Steps whose loads are in flight."""
    columns: int
    """Most columns of a piece of a value."""

    def piece(self, rank: int) -> int:
        """Give the columns of a piece.

        Args:
            rank: Width of a value.

        Returns:
            A power of two, at least 16.
        """
        return min(self.columns, padded(rank))


_FLOAT32 = Tiles(16, 32, 8, 1, 64)
"""Float32 has no matrix instruction of its own precision, so rows are few enough to stay in registers."""
FORWARD = {
    2: {128: Tiles(64, 64, 4, 3, 128), 256: Tiles(64, 64, 4, 2, 64), 512: Tiles(64, 64, 8, 2, 512)},
    4: {512: _FLOAT32},
}
"""Forward tiles by the bytes of a number, and by the most columns of a padded value."""
BACKWARD = {
    2: {256: Tiles(64, 64, 4, 2, 64), 512: Tiles(16, 32, 8, 1, 64)},
    4: {128: _FLOAT32, 512: _FLOAT32._replace(keys=16)},
}
"""Backward tiles, likewise."""


def padded(width: int) -> int:
    """Give the power of two, at least 16, that a matrix instruction needs for a width.

    Args:
        width: Width (numbers, >= 0).

    Returns:
        The padded width.
    """
    return max(16, 1 << (width - 1).bit_length()) if width > 0 else 16


def queries_per_tile(heads: int, topk: int) -> int:
    """Decide how many neighbouring queries share one gather.

    Args:
        heads: Heads of a query.
        topk: Selected keys of a query.

    Returns:
        Queries of a tile; 1 means that nothing is packed.
    """
    return max(1, min(PACKED_ROWS // heads, LONGEST_SORT // max(topk, 1), MOST_QUERIES))


def tiles(table: dict[int, dict[int, Tiles]], *, rows: int, rank: int, item_bytes: int) -> Tiles:
    """Choose a kernel's tiles.

    Args:
        table: `FORWARD` or `BACKWARD`.
        rows: Rows of (query, head) in a tile of queries.
        rank: Width of a value (numbers).
        item_bytes: Bytes of a number, 2 or 4.

    Returns:
        The tiles, with no more rows than are needed.

    Raises:
        UnsupportedError: a value is too wide.
    """
    sizes = table[item_bytes]
    for most, found in sizes.items():
        if padded(rank) <= most:
            return found._replace(rows=min(found.rows, padded(rows)))
    raise UnsupportedError(
        f"sparse_attention: values of rank {rank}, at most {max(sizes)} fit; use a lower rank or backend='reference'"
    )
