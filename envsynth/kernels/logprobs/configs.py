"""Sizes of the kernels, and which logits are kept. Nothing here is decided by data, or by how much memory is free."""

from __future__ import annotations

from typing import NamedTuple

import torch

KEEP_BYTES = 1 << 32
"""Most memory that float32 logits may take from the forward pass to the backward pass; more are formed again."""
KEEP_WORK = 1024
"""Products of half precision per logit from which on forming it again takes longer than writing and reading it."""
WORKSPACE_BYTES = 1 << 30
"""Bound of the backward pass's workspace: the gradient at the logits of so many rows as fit."""
WORKSPACE_FLOOR = 1 << 26
"""A workspace of so many bytes is taken even where it is more than half of the float32 logits."""
PIECE = 2048
"""Tokens that one program reads. It is fixed, so that a row's bits do not depend on how many rows there are."""
PARTS = 3
"""Numbers of bfloat16 that sum to one of float32: three times eight bits."""


class Tiles(NamedTuple):
    """Sizes of one program."""

    rows: int
    columns: int
    """Tokens of one step, a multiple of 32 that divides `PIECE`."""
    inner: int
    """Numbers of a hidden state in one product."""
    warps: int
    stages: int


HALF = Tiles(128, 128, 64, 8, 3)
"""Where bfloat16 or float16 is multiplied."""
SINGLE = Tiles(64, 64, 32, 4, 3)
"""Where float32 is multiplied."""
READ = Tiles(16, 128, 0, 4, 1)
"""Where logits are read, not formed."""
JOIN_ROWS = 128
"""Rows of one program that joins pieces."""
HEAD_PROGRAMS = 256
"""Tiles of a product that fill a GPU."""
LEAST_PIECE = 1024
"""Rows that are worth a product of their own."""
CUT = 1024
"""Numbers of the head that one program cuts into parts."""


def part_type(hidden: torch.dtype, weight: torch.dtype) -> torch.dtype | None:
    """Decide whether the head is cut into parts that matrix units multiply exactly.

    A number of bfloat16 times each of a float32 number's three parts is exact, so only sums are rounded.

    Args:
        hidden: Type of the hidden states.
        weight: Type of the head.

    Returns:
        Type of the parts, or None where the head stays whole.
    """
    return torch.bfloat16 if (hidden, weight) == (torch.bfloat16, torch.float32) else None


def halved(hidden: torch.dtype, weight: torch.dtype) -> bool:
    """Tell whether products are of half precision, with the head whole or in parts."""
    return (hidden == weight and hidden.itemsize == 2) or part_type(hidden, weight) is not None


def fuses(hidden: torch.dtype, weight: torch.dtype) -> bool:
    """Tell whether the compiler may fuse products and sums, which it may do in one variant of a kernel and not in another.

    Only float32 products on scalar units need it; elsewhere it is off, so that all variants give the same bits.
    """
    return not halved(hidden, weight)


def tiles_for(hidden: torch.dtype, weight: torch.dtype) -> Tiles:
    """Choose the tiles.

    Args:
        hidden: Type of the hidden states.
        weight: Type of the head.

    Returns:
        The tiles.
    """
    return HALF if halved(hidden, weight) else SINGLE


def pieces_for(vocabulary: int) -> int:
    """Give the number of pieces of `PIECE` tokens into which a vocabulary of V tokens is cut, at least 1."""
    return -(-vocabulary // PIECE)


def stride_for(vocabulary: int) -> int:
    """Give the numbers from one row of logits to the next: V, up to a multiple of 16 so that loads are of full width."""
    return -(-vocabulary // 16) * 16


def keeps_logits(
    rows: int, width: int, vocabulary: int, kinds: tuple[torch.dtype, torch.dtype], precision: str
) -> bool:
    """Decide whether the forward pass leaves its float32 logits to the backward pass.

    Both ways use the same numbers; only time and memory differ.

    Args:
        rows: Rows N.
        width: Width D of a hidden state.
        vocabulary: Tokens V.
        kinds: Types of hidden states and head.
        precision: How float32 numbers are multiplied, `ieee` or `tf32x3`.

    Returns:
        True where they fit into `KEEP_BYTES` and forming them again takes longer.
    """
    if 4 * rows * stride_for(vocabulary) > KEEP_BYTES:
        return False
    if part_type(*kinds) is not None:
        work = PARTS
    elif halved(*kinds):
        work = 1
    else:
        # Three products of twice the cost, or scalar units.
        work = 6 if precision == "tf32x3" else 16
    return work * width >= KEEP_WORK


def head_pieces(rows: int, vocabulary: int, width: int) -> int:
    """Decide into how many pieces rows are cut for the head's gradient, whose tiles alone may not fill a GPU.

    Args:
        rows: Rows that are summed.
        vocabulary: Tokens V.
        width: Width D of a hidden state.

    Returns:
        Pieces (count), each of at least `LEAST_PIECE` rows.
    """
    tiles = -(-vocabulary // 128) * -(-width // 128)
    return max(1, min(HEAD_PROGRAMS // tiles, rows // LEAST_PIECE, 16))


def rows_at_once(rows: int, vocabulary: int, row_bytes: int) -> int:
    """Decide how many rows' gradients at the logits stand in the workspace.

    It takes at most half of what all float32 logits would, and up to one row more, so that the chunks are of equal size.
    With kept logits that is half of the memory of the plain way, which has three tensors of that size.

    Args:
        rows: Rows N.
        vocabulary: Tokens V.
        row_bytes: Bytes of one row of the workspace.

    Returns:
        Rows, at least 1.
    """
    limit = min(WORKSPACE_BYTES, max(WORKSPACE_FLOOR, 2 * rows * stride_for(vocabulary)))
    chunks = min(rows, -(-rows * row_bytes // limit))
    return -(-rows // chunks)
