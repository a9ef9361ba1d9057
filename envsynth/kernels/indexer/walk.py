"""Selection in one walk over the keys: scores stay in registers, and only what may be selected is written.

Shape letters: B sequences, T queries, S keys, I indexer heads, J indexer head width, K selected keys.

`sampling.bars_kernel` gives each query a bar, a score that somewhat more than k of its keys should reach. `walk_kernel`
scores all visible keys of a tile of queries, and appends those that reach it to the query's candidates. They go to many
short lists, of which each is one thread's, so that no thread has to ask another where to write. `best_kernel` keeps
exactly k of them, in the order of their numbers.

Nothing about the result depends on the sample:
- When a list gets full, its query's candidates are cut to the k best, and their least score becomes the bar, strictly,
  because a later key of an equal score has a higher number and loses. From there on the bar only excludes what k better
  ones precede.
- A query that found fewer than it needs, because its bar was too high, is walked again without any bar; whoever found
  enough passes nothing the second time. There is no third time.
So a misleading sample costs at most a second walk and the cuts.

The tile of scores is that of `forward`, so that the bits are those of decoding and of the loss.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.dispatch import interpreting
from envsynth.kernels.indexer import configs
from envsynth.kernels.indexer.candidates import best_kernel, cut, packed, score_of
from envsynth.kernels.indexer.configs import score_tile, walk_sizes
from envsynth.kernels.indexer.forward import _load_keys, _load_queries, _tile_scores
from envsynth.kernels.indexer.sampling import bars_kernel, load_bounds
from envsynth.kernels.indexer.selecting import Chunk, Problem

LARGEST_NARROW = 2**31
"""Products of keys and places up to which both fit into one int32."""


@triton.jit
def _store_where(pointers, values, mask, IN_PLACE: tl.constexpr):
    """Store int64 values where the mask holds.

    Triton moves what it stores into a layout that it takes for the best, here through shared memory, though any two
    neighbours go to different lists. With IN_PLACE each thread stores what it has.
    """
    if IN_PLACE:
        tl.inline_asm_elementwise(
            """
            {
                .reg .pred stored;
                setp.ne.s32 stored, $3, 0;
                @stored st.global.b64 [$1], $2;
                mov.u32 $0, 0;
            }
            """,
            "=r,l,l,r",
            [pointers.to(tl.int64, bitcast=True), values, mask.to(tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    else:
        tl.store(pointers, values, mask=mask)


@triton.jit
def _append(  # noqa: PLR0913
    tile_ptr,
    offsets,
    scores,
    places,
    starts,
    ends,
    bar,
    MASKED: tl.constexpr,
    HAS_STARTS: tl.constexpr,
    IN_PLACE: tl.constexpr,
    LISTS: tl.constexpr,
):
    """Append what enters of scores [LISTS, QUERIES] to the lists, whose next places are `offsets`; give the new ones."""
    # A NaN counts as minus infinity.
    enters = tl.where(scores == scores, scores, float("-inf")) >= bar[None, :]
    if MASKED:
        enters = enters & (places[:, None] < ends[None, :])
        if HAS_STARTS:
            enters = enters & (places[:, None] >= starts[None, :])
    candidates = packed(scores, tl.broadcast_to(places[:, None], scores.shape))
    _store_where(tile_ptr + offsets, candidates, enters, IN_PLACE)
    return offsets + tl.where(enters, LISTS, 0)


@triton.jit
def _walk(  # noqa: PLR0913
    key_ptr,
    scale_ptr,
    tile_ptr,
    query,
    weight,
    offsets,
    base,
    until,
    starts,
    ends,
    bar,
    n_keys,
    stride_ks,
    MASKED: tl.constexpr,
    HAS_STARTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    IN_PLACE: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Walk from one key to another, without a look at room; give the lists' next places."""
    LISTS: tl.constexpr = KEYS // 2
    lists = tl.arange(0, LISTS)
    # Two loops with loads in flight would need twice the shared memory; masks are few.
    for place in tl.range(base, until, KEYS, num_stages=1 if MASKED else STAGES):
        existing = tl.minimum(place + tl.arange(0, KEYS), n_keys - 1)
        key = _load_keys(key_ptr, existing, stride_ks, N_WIDTH, WIDTH)
        scores = _tile_scores(key, query, weight, KEYS, QUERIES, HEADS)
        if HAS_SCALE:
            scores = scores * tl.load(scale_ptr + existing)[:, None]
        # Rows r and r + 8 of each sixteen are a thread's.
        upper, lower = tl.split(tl.permute(tl.reshape(scores, (KEYS // 16, 2, 8, QUERIES)), (0, 2, 3, 1)))
        upper, lower = tl.reshape(upper, (LISTS, QUERIES)), tl.reshape(lower, (LISTS, QUERIES))
        places = place + lists // 8 * 16 + lists % 8
        offsets = _append(tile_ptr, offsets, upper, places, starts, ends, bar, MASKED, HAS_STARTS, IN_PLACE, LISTS)
        offsets = _append(tile_ptr, offsets, lower, places + 8, starts, ends, bar, MASKED, HAS_STARTS, IN_PLACE, LISTS)
    return offsets


@triton.jit
def _cut_full(tile_ptr, counts, bar, k, QUERIES: tl.constexpr, LISTS: tl.constexpr, CAPACITY: tl.constexpr):
    """Cut the candidates of queries with a nearly full list; give counts and bars."""
    # What other threads appended must have arrived.
    tl.debug_barrier()
    number = tl.arange(0, QUERIES)
    ENTRIES: tl.constexpr = CAPACITY // LISTS
    for turn in range(QUERIES):
        mine = number == turn
        have = tl.sum(tl.where(mine[None, :], counts, 0), axis=1)
        if tl.max(have, axis=0) > ENTRIES - ENTRIES // 4:
            count = tl.sum(have, axis=0)
            of_each = tl.reshape(tl.broadcast_to(have[None, :], (ENTRIES, LISTS)), (CAPACITY,))
            least = cut(tile_ptr + turn * CAPACITY, of_each, count, k, LISTS, CAPACITY)
            rest = (tl.minimum(count, k) - tl.arange(0, LISTS) + LISTS - 1) // LISTS
            counts = tl.where(mine[None, :], rest[:, None], counts)
            # The next score above; above infinity it is NaN, which nothing reaches. NaN stays: whoever found enough
            # takes nothing in a second walk.
            bar = tl.where(mine & (count > k) & (bar == bar), score_of(least + 1), bar)
    tl.debug_barrier()
    return counts, bar


@triton.jit
def _collect(  # noqa: PLR0913
    key_ptr,
    scale_ptr,
    tile_ptr,
    query,
    weight,
    counts,
    base,
    starts,
    ends,
    bar,
    n_keys,
    k,
    stride_ks,
    HAS_STARTS: tl.constexpr,
    HAS_SCALE: tl.constexpr,
    IN_PLACE: tl.constexpr,
    CAPACITY: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Walk over all visible keys, and cut lists that get full; give the lists' counts."""
    # A list takes the keys of two rows of the product, which one thread holds. After a cut it has room for a tile.
    LISTS: tl.constexpr = KEYS // 2
    ENTRIES: tl.constexpr = CAPACITY // LISTS
    tl.static_assert(ENTRIES >= 8)
    empty = tl.arange(0, QUERIES)[None, :] * CAPACITY + tl.arange(0, LISTS)[:, None]
    stop = tl.max(ends, axis=0)
    all_from = tl.cdiv(tl.max(starts, axis=0), KEYS) * KEYS
    all_until = tl.min(ends, axis=0) // KEYS * KEYS
    while base < stop:
        if tl.max(tl.max(counts, axis=0), axis=0) > ENTRIES - ENTRIES // 4:
            counts, bar = _cut_full(tile_ptr, counts, bar, k, QUERIES, LISTS, CAPACITY)
        # As many tiles as fit whatever enters: their loop has nothing but scores in it, so loads run ahead.
        room = (ENTRIES - tl.max(tl.max(counts, axis=0), axis=0)) // 2 * KEYS
        until = tl.minimum(stop, base + room)
        offsets = empty + counts * LISTS
        if (base >= all_from) & (base < all_until):
            # Every query sees every key here: nothing to mask.
            until = tl.minimum(until, all_until)
            offsets = _walk(
                key_ptr, scale_ptr, tile_ptr, query, weight, offsets, base, until, starts, ends, bar, n_keys,
                stride_ks, False, HAS_STARTS, HAS_SCALE, IN_PLACE, N_WIDTH, KEYS, QUERIES, HEADS, WIDTH, STAGES,
            )  # fmt: skip
        else:
            until = tl.where(base < all_from, tl.minimum(until, all_from), until)
            offsets = _walk(
                key_ptr, scale_ptr, tile_ptr, query, weight, offsets, base, until, starts, ends, bar, n_keys,
                stride_ks, True, HAS_STARTS, HAS_SCALE, IN_PLACE, N_WIDTH, KEYS, QUERIES, HEADS, WIDTH, STAGES,
            )  # fmt: skip
        counts = (offsets - empty) // LISTS
        base = until
    return counts


@triton.jit(do_not_specialize=["k"])
def walk_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    weight_ptr,
    scale_ptr,
    starts_ptr,
    ends_ptr,
    bars_ptr,
    buffer_ptr,
    counts_ptr,
    n_queries,
    n_keys,
    query_blocks,
    k,
    stride_qb,
    stride_qt,
    stride_qi,
    stride_kb,
    stride_ks,
    stride_wb,
    stride_wt,
    stride_sb,
    stride_start,
    stride_end,
    HAS_SCALE: tl.constexpr,
    HAS_STARTS: tl.constexpr,
    IN_PLACE: tl.constexpr,
    CAPACITY: tl.constexpr,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Collect the candidates of one tile of queries: buffers [B * query_blocks * QUERIES, CAPACITY], and counts."""
    batch = (tl.program_id(0) // query_blocks).to(tl.int64)
    # Backwards: in causal attention the last queries see most keys.
    block = query_blocks - 1 - tl.program_id(0) % query_blocks
    first = block * QUERIES
    rows = first + tl.arange(0, QUERIES)
    starts, ends = load_bounds(
        starts_ptr + batch * stride_start, ends_ptr + batch * stride_end, rows, n_queries, n_keys
    )
    needed = tl.minimum(ends - starts, k)
    columns = tl.minimum(first + tl.arange(0, HEADS * QUERIES) % QUERIES, n_queries - 1)
    query, weight = _load_queries(
        query_ptr + batch * stride_qb, weight_ptr + batch * stride_wb, columns, stride_qt, stride_qi, stride_wt,
        N_HEADS, N_WIDTH, QUERIES, HEADS, WIDTH,
    )  # fmt: skip
    key_ptr += batch * stride_kb
    scale_ptr += batch * stride_sb
    tile = batch * query_blocks + block
    tile_ptr = buffer_ptr + tile * QUERIES * CAPACITY
    bar = tl.load(bars_ptr + tile * QUERIES + tl.arange(0, QUERIES))
    counts = tl.zeros((KEYS // 2, QUERIES), tl.int32)
    begin = tl.min(tl.where(needed > 0, starts, n_keys), axis=0) // KEYS * KEYS
    turn = k * 0
    while turn < 2:
        counts = _collect(
            key_ptr, scale_ptr, tile_ptr, query, weight, counts, begin, starts, ends, bar, n_keys, k, stride_ks,
            HAS_STARTS, HAS_SCALE, IN_PLACE, CAPACITY, N_WIDTH, KEYS, QUERIES, HEADS, WIDTH, STAGES,
        )  # fmt: skip
        # Who found too little walks again and takes every key; nothing reaches NaN for the others.
        short = tl.sum(counts, axis=0) < needed
        bar = tl.where(short, float("-inf"), float("nan"))
        counts = tl.where(short[None, :], 0, counts)
        turn = tl.where(tl.max(short.to(tl.int32), axis=0) > 0, turn + 1, 2)
    lists = (tile * QUERIES + tl.arange(0, QUERIES))[None, :] * (KEYS // 2) + tl.arange(0, KEYS // 2)[:, None]
    tl.store(counts_ptr + lists, counts)


def select(problem: Problem, k: int, rows: int | None) -> tuple[Tensor, Tensor]:
    """Select the k best visible keys of each query; `configs.walks` says for which problems.

    Args:
        problem: What to score, and what is visible; keys have a batch of their own.
        k: Keys kept per query.
        rows: Queries whose candidates exist at once, at most, or one tile of queries; None for what the workspace holds.

    Returns:
        Keys, int32 [B, T, K], ascending, padded with -1, and their scores, float32 [B, T, K], 0 at padding.
    """
    B, T, heads, width = problem.query_BTIJ.shape
    tile = score_tile(heads, width, problem.query_BTIJ.dtype)
    size = problem.key_BSJ.shape[1]
    sizes = walk_sizes(min(k, size), size, tile)
    device = problem.query_BTIJ.device
    constants = {
        "HAS_SCALE": problem.scale_BS is not None,
        "N_HEADS": heads, "N_WIDTH": width, "KEYS": tile.keys, "QUERIES": tile.queries, "HEADS": tile.heads,
        "WIDTH": tile.width, "num_warps": tile.warps, "num_stages": tile.stages,
    }  # fmt: skip
    topk_BTK = torch.empty(B, T, k, dtype=torch.int32, device=device)
    scores_BTK = torch.empty(B, T, k, dtype=torch.float32, device=device)
    rows = rows or configs.WORKSPACE_BYTES // (8 * sizes.capacity + 2 * tile.keys + 4)
    parts = list(_chunks(B, T, tile.queries, rows, size))
    most = max(_padded_rows(part, tile.queries) for part in parts)
    buffers = torch.empty(most, sizes.capacity, dtype=torch.int64, device=device)
    counts = torch.empty(most, tile.keys // 2, dtype=torch.int32, device=device)
    bars = torch.empty(most, dtype=torch.float32, device=device)
    for part in parts:
        batches, queries = part.batch.stop - part.batch.start, part.rows.stop - part.rows.start
        blocks = triton.cdiv(queries, tile.queries)
        shape = (queries, size, blocks, k, *_strides(problem))
        # The samples lie where the candidates will.
        bars_kernel[(batches * blocks,)](
            *_tensors(problem, part), bars, buffers.view(torch.int32), *shape, 2 * tile.queries * sizes.capacity,
            TURNS=sizes.turns, **constants,
        )  # fmt: skip
        walk_kernel[(batches * blocks,)](
            *_tensors(problem, part), bars, buffers, counts, *shape, HAS_STARTS=problem.has_starts,
            IN_PLACE=not interpreting(), CAPACITY=sizes.capacity, STAGES=tile.stages, **constants,
        )  # fmt: skip
        best_kernel[(batches * queries,)](
            buffers, counts, topk_BTK[part.batch, part.rows], scores_BTK[part.batch, part.rows], queries,
            blocks * tile.queries, k, *topk_BTK.stride()[:2], LISTS=tile.keys // 2, CAPACITY=sizes.capacity,
            KEPT=sizes.kept, WIDE=size * sizes.kept > LARGEST_NARROW, num_warps=sizes.warps, maxnreg=128,
        )  # fmt: skip
    return topk_BTK, scores_BTK


def _chunks(B: int, T: int, tile_queries: int, rows: int, n_keys: int) -> Iterator[Chunk]:
    """Cut the queries at tiles: several sequences together where they fit, or about equal parts of a single one."""
    padded = triton.cdiv(T, tile_queries) * tile_queries
    batches = max(1, rows // padded)
    tiles = max(1, min(rows, padded) // tile_queries)
    parts = triton.cdiv(padded // tile_queries, tiles)
    queries = triton.cdiv(padded // tile_queries, parts) * tile_queries
    for batch in range(0, B, batches):
        for first in range(0, T, queries):
            yield Chunk(slice(batch, min(batch + batches, B)), slice(first, min(first + queries, T)), n_keys)


def _padded_rows(part: Chunk, tile_queries: int) -> int:
    """Count the queries of a chunk's tiles."""
    queries = triton.cdiv(part.rows.stop - part.rows.start, tile_queries) * tile_queries
    return (part.batch.stop - part.batch.start) * queries


def _tensors(problem: Problem, part: Chunk) -> tuple[Tensor, ...]:
    """Give what both walks read of a chunk."""
    scales = problem.weight_BTI if problem.scale_BS is None else problem.scale_BS[part.batch]
    rows = (problem.query_BTIJ, problem.weight_BTI, problem.starts_BT, problem.ends_BT)
    query, weight, starts, ends = (item[part.batch, part.rows] for item in rows)
    return query, problem.key_BSJ[part.batch], weight, scales, starts, ends


def _strides(problem: Problem) -> tuple[int, ...]:
    """Give the strides of `_tensors`."""
    return (
        *problem.query_BTIJ.stride()[:3],
        *problem.key_BSJ.stride()[:2],
        *problem.weight_BTI.stride()[:2],
        0 if problem.scale_BS is None else problem.scale_BS.stride(0),
        problem.starts_BT.stride(0),
        problem.ends_BT.stride(0),
    )
