"""Pieces of kernels: entries of a step, and rows whose columns stand in pieces.

A value is held as a tuple of pieces of equal width, so that 192 columns are three pieces of 64 and not 256 columns, and
so that a result can leave piece by piece. The rotary columns are one piece of their own.
"""

# ruff: noqa: ANN001, ANN201 - Triton types the parameters of its kernels itself
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def read_entries(keys, bits, base, entry, count, S, PACKED: tl.constexpr):
    """Give places, presence and bits of a step's entries; skipped ones have no bit."""
    inside = entry < count
    key = tl.load(keys + base + entry, mask=inside, other=-1)
    if PACKED:
        member = tl.load(bits + base + entry, mask=inside, other=0)
    else:
        inside = (key >= 0) & (key < S)
        member = inside.to(tl.int32)
    return key, inside, member


@triton.jit
def read_selected(topk, entry, count, S):
    """Give places and presence of selected keys."""
    key = tl.load(topk + entry, mask=entry < count, other=-1)
    return key, (key >= 0) & (key < S)


@triton.jit
def read_rows(base, offset, there, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Read whole rows [rows, PADDED]; what is not there, and what pads the width, is zero and is not touched."""
    column = tl.arange(0, PADDED)
    mask = there[:, None]
    if WIDTH != PADDED:
        mask = mask & (column < WIDTH)[None, :]
    return tl.load(base + offset[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def write_rows(base, offset, there, rows, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Write whole rows of [rows, PADDED], without what pads them."""
    column = tl.arange(0, PADDED)
    mask = there[:, None]
    if WIDTH != PADDED:
        mask = mask & (column < WIDTH)[None, :]
    tl.store(base + offset[:, None] + column[None, :], rows.to(base.dtype.element_ty), mask=mask)


@triton.jit
def read_pieces(base, offset, there, WIDTH: tl.constexpr, PIECE: tl.constexpr):
    """Read whole rows as pieces [rows, PIECE]; the last one may be padded."""
    pieces = ()
    for first in tl.static_range(0, WIDTH, PIECE):
        pieces = pieces + (read_rows(base + first, offset, there, min(PIECE, WIDTH - first), PIECE),)  # noqa: RUF005
    return pieces


@triton.jit
def write_pieces(base, offset, there, pieces, WIDTH: tl.constexpr, PIECE: tl.constexpr):
    """Write whole rows of pieces."""
    for first in tl.static_range(0, WIDTH, PIECE):
        piece = pieces[first // PIECE]
        write_rows(base + first, offset, there, piece, min(PIECE, WIDTH - first), PIECE)


@triton.jit
def no_pieces(ROWS: tl.constexpr, WIDTH: tl.constexpr, PIECE: tl.constexpr):
    """Give zeros to add pieces to."""
    pieces = ()
    for _ in tl.static_range(0, WIDTH, PIECE):
        pieces = pieces + (tl.zeros([ROWS, PIECE], tl.float32),)  # noqa: RUF005
    return pieces


@triton.jit
def products(left, right, COUNT: tl.constexpr):
    """Multiply rows with rows, both in pieces: [rows, rows]."""
    result = tl.dot(left[0], tl.trans(right[0]), input_precision="ieee")
    for index in tl.static_range(1, COUNT):
        result = tl.dot(left[index], tl.trans(right[index]), result, input_precision="ieee")
    return result


@triton.jit
def add_products(left, right, total, shrink, COUNT: tl.constexpr):
    """Multiply a matrix with rows in pieces, and add that to a total, whose rows shrink before."""
    pieces = ()
    for index in tl.static_range(COUNT):
        before = total[index] * shrink[:, None]
        pieces = pieces + (tl.dot(left, right[index], before, input_precision="ieee"),)  # noqa: RUF005
    return pieces
