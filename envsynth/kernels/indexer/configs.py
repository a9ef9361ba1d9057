"""Tiles of the indexer's kernels; they depend on heads and widths alone, never on lengths or on who calls.

A score is a sum in the order of its tile. Prefill, training and decode share one tile, so they share every bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

WORKSPACE_BYTES = 256 * 2**20
"""Scores that exist at once, unless one row is more."""
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
    # Two programs shall share a multiprocessor, so that one adds up heads while the other multiplies.
    stages = 3 if padded_width * dtype.itemsize <= 128 else 2
    # More than 32 queries would need more pointers than a thread has registers.
    return Tile(128, min(32, max(1, 128 // padded_heads)), padded_heads, padded_width, 8, stages)


def power_of_two(count: int) -> int:
    """Round up to a power of two."""
    return 1 << (count - 1).bit_length()
