"""Which tiles the kernels use, by shape. Plain numbers, measured on an H200; nothing here is decided by data.

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
PACKED_ROWS = 16
"""Rows that packing aims at: the fewest that a matrix instruction multiplies."""
PACKED_QUERIES = 4
"""Most queries that are packed: finding the union of more takes longer than it saves."""
LONGEST_SORT = 4096
"""Entries that one program sorts to find a tile's union."""
WORKSPACE_BYTES = 1 << 30
"""Bound of the deterministic backward pass's workspace; a single tile per sequence may exceed it."""
SUMMED_ROWS, SUMMING_WARPS = 16, 1
"""Rows of a key's gradient that are added up at a time, and the warps that do it."""


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
    registers: int | None = None
    """Most registers of a thread, so that more programs share a multiprocessor; None: what the compiler takes."""

    @property
    def launch(self) -> dict[str, int]:
        """How Triton shall launch it."""
        limit = {} if self.registers is None else {"maxnreg": self.registers}
        return {"num_warps": self.warps, "num_stages": self.stages, **limit}

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
Table = dict[int, tuple[tuple[int, int, Tiles], ...]]
"""Tiles by the bytes of a number: most rows, most columns of a padded value, tiles; the first that fits is taken."""
FORWARD: Table = {
    2: (
        (16, 128, Tiles(16, 64, 1, 2, 32)),
        (16, 256, Tiles(16, 32, 1, 2, 32)),
        (32, 256, Tiles(32, 64, 2, 2, 64)),
        (128, 128, Tiles(64, 64, 4, 3, 128)),
        (128, 256, Tiles(64, 64, 4, 2, 64)),
        (128, 512, Tiles(64, 64, 8, 2, 512)),
    ),
    4: ((128, 512, _FLOAT32),),
}
BACKWARD: Table = {
    2: (
        (16, 128, Tiles(16, 32, 1, 3, 32)),
        (16, 256, Tiles(16, 16, 1, 3, 64)),
        (128, 256, Tiles(64, 64, 4, 3, 64)),
        (128, 512, Tiles(16, 32, 8, 1, 64)),
    ),
    4: ((128, 128, _FLOAT32), (128, 512, _FLOAT32._replace(keys=16))),
}


def padded(width: int) -> int:
    """Give the power of two, at least 16, that a matrix instruction needs for a width.

    Args:
        width: Width (numbers, >= 0).

    Returns:
        The padded width.
    """
    return max(16, 1 << (width - 1).bit_length()) if width > 0 else 16


def queries_per_tile(heads: int, topk: int) -> int:
    """Decide how many neighbouring queries share one gather in the backward pass.

    Sharing pays where neighbours select mostly the same keys, as indexers do, and costs about a tenth where they do not.
    The forward pass shares nothing: it is so short that finding the union costs more than it saves (measured).

    Args:
        heads: Heads of a query.
        topk: Selected keys of a query.

    Returns:
        Queries of a tile; 1 means that nothing is packed.
    """
    return max(1, min(PACKED_ROWS // heads, LONGEST_SORT // max(topk, 1), PACKED_QUERIES))


def tiles(table: Table, *, rows: int, rank: int, item_bytes: int) -> Tiles:
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
    for most_rows, most_columns, found in table[item_bytes]:
        if rows <= most_rows and padded(rank) <= most_columns:
            return found._replace(rows=min(found.rows, padded(rows)))
    widest = max(columns for _, columns, _ in table[item_bytes])
    raise UnsupportedError(
        f"sparse_attention: values of rank {rank}, at most {widest} fit; use a lower rank or backend='reference'"
    )
