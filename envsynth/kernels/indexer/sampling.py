"""The bars of a walk: what a sample of a query's keys says about the scores of its k best.

Shape letters: B sequences, T queries, S keys.

One key of each of a few hundred equal parts of the visible keys is scored. As many of them as are among the k best, by
their share, and some deviations more, should reach the bar. What the sample misses costs time in `walk`, never a result.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

from envsynth.kernels.indexer.candidates import INVISIBLE, LOWEST, ordered, score_of
from envsynth.kernels.indexer.forward import _load_keys, _load_queries, _tile_scores


@triton.jit
def load_bounds(starts_ptr, ends_ptr, rows, n_queries, n_keys):
    """Load first and end of the visible keys of queries; those that do not exist repeat the last one, as its scores do."""
    existing = tl.minimum(rows, n_queries - 1)
    starts = tl.minimum(tl.maximum(tl.load(starts_ptr + existing), 0), n_keys)
    ends = tl.minimum(tl.load(ends_ptr + existing), n_keys)
    return starts, tl.maximum(ends, starts)


@triton.jit
def _bar(samples, visible, k):
    """Find a bar for each query: every key that reaches it is a candidate; minus infinity lets every key.

    Of the samples, k * samples / visible should be among the k best; four deviations more are asked for.
    """
    sampled = tl.sum((samples >= LOWEST).to(tl.int32), axis=0)
    share = sampled.to(tl.float32) / tl.maximum(visible, 1).to(tl.float32)
    mean, rest = share * k, tl.maximum(1.0 - share, 0.0)
    wanted = tl.ceil(mean + 4.0 * tl.sqrt(mean * rest) + 3.0 * rest).to(tl.int32)
    closed = (visible > k) & (wanted < sampled)
    low, count = tl.zeros_like(visible) + LOWEST, sampled
    high = tl.maximum(tl.max(samples, axis=0), LOWEST) + 1
    # A sixteenth more is as good as exactly what was wanted.
    searching = closed & (low + 1 < high) & (count > wanted + wanted // 16)
    while tl.max(searching.to(tl.int32), axis=0) > 0:
        middle = (low & high) + ((low ^ high) >> 1)
        reached = tl.sum((samples >= middle[None, :]).to(tl.int32), axis=0)
        enough = reached >= wanted
        low = tl.where(searching & enough, middle, low)
        count = tl.where(searching & enough, reached, count)
        high = tl.where(searching & ~enough, middle, high)
        searching = closed & (low + 1 < high) & (count > wanted + wanted // 16)
    return tl.where(closed, score_of(low), float("-inf"))


@triton.jit(do_not_specialize=["k"])
def bars_kernel(  # noqa: PLR0913
    query_ptr,
    key_ptr,
    weight_ptr,
    scale_ptr,
    starts_ptr,
    ends_ptr,
    bars_ptr,
    samples_ptr,
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
    stride_samples,
    HAS_SCALE: tl.constexpr,
    TURNS: tl.constexpr,
    N_HEADS: tl.constexpr,
    N_WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
    QUERIES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Write the bars of one tile of queries, [B * query_blocks * QUERIES], by way of TURNS * KEYS sampled keys."""
    batch = (tl.program_id(0) // query_blocks).to(tl.int64)
    first = tl.program_id(0) % query_blocks * QUERIES
    number = tl.arange(0, QUERIES)
    rows = first + number
    starts, ends = load_bounds(
        starts_ptr + batch * stride_start, ends_ptr + batch * stride_end, rows, n_queries, n_keys
    )
    visible = ends - starts
    tile = tl.program_id(0).to(tl.int64)
    bars_ptr += tile * QUERIES
    if tl.max(visible, axis=0) <= k:
        tl.store(bars_ptr + number, tl.zeros((QUERIES,), tl.float32) + float("-inf"))
    else:
        columns = tl.minimum(first + tl.arange(0, HEADS * QUERIES) % QUERIES, n_queries - 1)
        query, weight = _load_queries(
            query_ptr + batch * stride_qb, weight_ptr + batch * stride_wb, columns, stride_qt, stride_qi, stride_wt,
            N_HEADS, N_WIDTH, QUERIES, HEADS, WIDTH,
        )  # fmt: skip
        begin = tl.min(tl.where(visible > 0, starts, n_keys), axis=0)
        part = tl.cdiv(tl.max(ends, axis=0) - begin, TURNS * KEYS)
        samples_ptr += tile * stride_samples
        for turn in tl.range(0, TURNS):
            parts = turn * KEYS + tl.arange(0, KEYS)
            # The place within its part moves by the golden ratio, so that no period of the scores escapes the sample.
            shift = (((parts * 40503) & 0xFFFF).to(tl.int64) * part) >> 16
            places = begin + parts * part + shift.to(tl.int32)
            existing = tl.minimum(places, n_keys - 1)
            key = _load_keys(key_ptr + batch * stride_kb, existing, stride_ks, N_WIDTH, WIDTH)
            scores = _tile_scores(key, query, weight, KEYS, QUERIES, HEADS)
            if HAS_SCALE:
                scores = scores * tl.load(scale_ptr + batch * stride_sb + existing)[:, None]
            seen = (places[:, None] >= starts[None, :]) & (places[:, None] < ends[None, :])
            keys = tl.where(seen, ordered(scores.to(tl.int32, bitcast=True)), INVISIBLE)
            tl.store(samples_ptr + parts[:, None] * QUERIES + number[None, :], keys)
        # Other threads read what these wrote.
        tl.debug_barrier()
        every = tl.arange(0, TURNS * KEYS)[:, None] * QUERIES + number[None, :]
        tl.store(bars_ptr + number, _bar(tl.load(samples_ptr + every), visible, k))
