"""Pieces of kernels: what is visible, rows of the teacher in pieces, and one block of its probabilities or of scores.

Columns are (head, query) pairs with the queries as the fast axis. What does not exist reads as zero, and so does a query
that sees nothing: zero times NaN would be NaN in a sum over queries.
"""

# ruff: noqa: ANN001, ANN201 - Triton types the parameters of its kernels itself
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1.0e38)
"""Finite, so that no minus infinity is taken from another, also times log2 e."""
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.constexpr_function
def pieces(width):
    """Cut a row into powers of two, the widest first: 224 columns are 128, 64 and 32.

    Args:
        width: Columns of a row (count, >= 1).

    Returns:
        First column and width of each piece; the last one may be padded, since no piece is narrower than 16.
    """
    found, first = [], 0
    while first < width:
        piece = 128
        while piece > max(16, width - first):
            piece //= 2
        found.append((first, piece))
        first += piece
    return found


@triton.constexpr_function
def piece_count(width):
    """Count the pieces of a row."""
    return len(pieces(width))


@triton.constexpr_function
def piece_first(width, index):
    """Give a piece's first column."""
    return pieces(width)[index][0]


@triton.constexpr_function
def piece_width(width, index):
    """Give a piece's width."""
    return pieces(width)[index][1]


@triton.jit
def read_pieces(pointer, offset, there, N_WIDTH: tl.constexpr):
    """Read rows as a tuple of pieces."""
    found = ()
    for index in tl.static_range(piece_count(N_WIDTH)):
        column = piece_first(N_WIDTH, index) + tl.arange(0, piece_width(N_WIDTH, index))
        mask = there[:, None] & (column < N_WIDTH)[None, :]
        found = found + (tl.load(pointer + offset[:, None] + column[None, :], mask=mask, other=0.0),)  # noqa: RUF005
    return found


@triton.jit
def read_rows(pointer, offset, there, N_WIDTH: tl.constexpr, WIDTH: tl.constexpr):
    """Read rows [rows, WIDTH], padded with zeros."""
    column = tl.arange(0, WIDTH)
    mask = there[:, None] & (column < N_WIDTH)[None, :]
    return tl.load(pointer + offset[:, None] + column[None, :], mask=mask, other=0.0)


@triton.jit
def read_bounds(starts_ptr, ends_ptr, batch, row, n_queries):
    """Give the first visible key, the end, and whether there is any, of queries counted in their sequence."""
    place = tl.minimum(row, n_queries - 1)
    start = tl.load(starts_ptr + batch * n_queries + place)
    end = tl.load(ends_ptr + batch * n_queries + place)
    return start, end, (end > start) & (row < n_queries)


@triton.jit
def read_teacher(  # noqa: PLR0913
    query_ptr,
    lse_ptr,
    starts_ptr,
    ends_ptr,
    batch,
    first,
    n_queries,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Read the queries of a block as tuples: pieces of each chunk of heads, and the log-sum-exps in powers of two."""
    query, level = (), ()
    column = tl.arange(0, HEADS * QUERIES)
    member = column % QUERIES
    _, _, live = read_bounds(starts_ptr, ends_ptr, batch, first + member, n_queries)
    # Places in a block need few bits, those of blocks many.
    block = (batch * n_queries + first) * N_HEADS
    for chunk in tl.static_range(CHUNKS):
        head = chunk * HEADS + column // QUERIES
        place = member * N_HEADS + head
        there = live & (head < N_HEADS)
        query = query + read_pieces(query_ptr + block * N_WIDTH, place * N_WIDTH, there, N_WIDTH)
        # Powers of two of minus infinity are zero: a head that does not exist adds nothing.
        found = tl.load(lse_ptr + block + place, mask=there, other=float("inf")) * LOG2_E
        level = level + (found,)  # noqa: RUF005
    return query, level


@triton.jit
def teacher_block(  # noqa: PLR0913
    latent,
    query,
    level,
    scale_log2,
    N_HEADS: tl.constexpr,
    COUNT: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Give the mean of the teacher's probabilities over heads, [KEYS, QUERIES]; of no meaning where not visible."""
    total = tl.zeros((KEYS, QUERIES), tl.float32)
    for chunk in tl.static_range(CHUNKS):
        logits = tl.broadcast_to(-level[chunk][None, :], (KEYS, HEADS * QUERIES))
        # Not one product that goes on: for those Triton wants all warps along the keys, where a thread has to hold the
        # log-sum-exps of every other pair of columns.
        for index in tl.static_range(COUNT):
            part = tl.trans(query[chunk * COUNT + index])
            logits += tl.dot(latent[index], part, input_precision="ieee") * scale_log2
        total += tl.sum(tl.reshape(tl.exp2(logits), (KEYS, HEADS, QUERIES)), axis=1)
    return total * (1.0 / N_HEADS)


@triton.jit
def read_student(  # noqa: PLR0913
    query_ptr,
    weight_ptr,
    starts_ptr,
    ends_ptr,
    batch,
    first,
    n_queries,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Read the indexer's queries [HEADS * QUERIES, WIDTH] of a block, and their weights."""
    column = tl.arange(0, HEADS * QUERIES)
    member, head = column % QUERIES, column // QUERIES
    _, _, live = read_bounds(starts_ptr, ends_ptr, batch, first + member, n_queries)
    there = live & (head < N_HEADS)
    place = member * N_HEADS + head
    block = (batch * n_queries + first) * N_HEADS
    query = read_rows(query_ptr + block * N_WIDTH, place * N_WIDTH, there, N_WIDTH, WIDTH)
    weight = tl.load(weight_ptr + block + place, mask=there, other=0.0)
    return query, weight


@triton.jit
def scores_of(dots, weight, KEYS: tl.constexpr, QUERIES: tl.constexpr, HEADS: tl.constexpr):
    """Add up heads: [KEYS, QUERIES], as the indexer's kernels do."""
    # A NaN stays one, as in torch.
    parts = tl.maximum(dots, 0.0, propagate_nan=tl.PropagateNan.ALL) * weight[None, :]
    return tl.sum(tl.reshape(parts, (KEYS, HEADS, QUERIES)), axis=1)


@triton.jit
def per_head(block, KEYS: tl.constexpr, QUERIES: tl.constexpr, HEADS: tl.constexpr):
    """Repeat a block [KEYS, QUERIES] for every head: [KEYS, HEADS * QUERIES]."""
    return tl.reshape(tl.broadcast_to(block[:, None, :], (KEYS, HEADS, QUERIES)), (KEYS, HEADS * QUERIES))


@triton.jit
def product(left, right, PRECISION: tl.constexpr, HALF: tl.constexpr):
    """Multiply a float32 gradient with inputs, either first, in the inputs' type `HALF`, or in tf32.

    Gradients of a mean over many tokens leave float16's range, but not tf32's.
    """
    if PRECISION == "tf32":
        found = tl.dot(left.to(tl.float32), right.to(tl.float32), input_precision="tf32")
    else:
        found = tl.dot(left.to(HALF), right.to(HALF), input_precision="ieee")
    return found
