"""Sizes of the kernels. Plain numbers; nothing here is decided by data."""

from __future__ import annotations

from typing import NamedTuple

import torch

WORKSPACE_BYTES = 1 << 28
"""Bound of the backward pass's workspace: the gradient at the logits of so many rows as fit."""
PROGRAMS = 264
"""Programs that fill a GPU twice over: few rows cut the vocabulary into pieces."""


class Tiles(NamedTuple):
    """Sizes of one program."""

    rows: int
    columns: int
    """Tokens of one step."""
    inner: int
    """Numbers of a hidden state in one product."""
    warps: int
    stages: int


def tiles_for(hidden: torch.dtype, weight: torch.dtype) -> Tiles:
    """Choose the tiles.

    Args:
        hidden: Type of the hidden states.
        weight: Type of the head.

    Returns:
        The tiles.
    """
    if hidden == weight and hidden.itemsize == 2:
        return Tiles(128, 128, 64, 8, 3)
    return Tiles(64, 64, 32, 4, 3)


def pieces_for(rows: int, vocabulary: int, tiles: Tiles) -> int:
    """Decide into how many pieces the vocabulary is cut.

    Args:
        rows: Rows N.
        vocabulary: Tokens V.
        tiles: The tiles.

    Returns:
        Pieces, at least 1.
    """
    blocks = -(-rows // tiles.rows)
    return max(1, min(PROGRAMS // blocks, -(-vocabulary // (4 * tiles.columns))))
