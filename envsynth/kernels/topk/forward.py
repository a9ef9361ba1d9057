"""Top-k as one kernel: a bar estimated from a sample lets few scores pass, and bisection decides among them exactly.

Shape letters: R rows, S scores of a row, K kept entries, C candidates held at once.

Each score becomes an int32 key of the same order. The k-th largest of C keys is found by counting keys above a middle
value, at most 32 times, usually half as often, because the search ends when exactly k are above. Prefix sums then place
what is kept in the order of its index, so nothing depends on which thread comes first.

A row of at most C scores is decided so in registers. A longer one is read once: its sample tells a bar that somewhat
more than k scores should reach, and what reaches it is appended to a buffer in the order of its index. As soon as the
buffer has k entries, later scores have to pass the bar strictly, because an equal one of a higher index would lose to
those k. A buffer that would overflow is cut to its k best, and their least key is the new bar.

The sample only decides the time: if fewer than k scores reach its bar, the row is read again with the lowest bar of
all. So whoever is excluded is preceded by k better ones, and the result is exact whatever the order of the scores.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.topk.configs import Sizes, sizes_for

INVISIBLE = tl.constexpr(-(2**31))
"""Key of what is not visible, below that of minus infinity."""
_HIGHEST = tl.constexpr(2**31 - 1)
_INFINITY = tl.constexpr(0x7F800000)
_MINUS_INFINITY = tl.constexpr(-0x7F800001)
"""Keys of the infinities."""
_TOGETHER = tl.constexpr(4)
"""Neighbours that a sample takes, of one sector of memory."""


@triton.jit
def _ordered_keys(scores):
    """Turn scores into int32 keys of the same order; by integers alone, so that denormals keep their value."""
    bits = scores.to(tl.float32).to(tl.int32, bitcast=True)
    # Negative floats order backwards by their bits.
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    # -0.0 alone has the key -1. NaNs lie beyond the infinities on both sides.
    keys = tl.where(keys == -1, 0, keys)
    keys = tl.where(keys > _INFINITY, _MINUS_INFINITY, keys)
    return tl.maximum(keys, _MINUS_INFINITY)


@triton.jit
def _score_of(key):
    """Give a float32 of the key's place in the order; a NaN, which nothing reaches, above that of infinity."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _load_scores(row_ptr, places, start, end, VECTOR: tl.constexpr):
    """Load scores of a row; the mask is one for each vector, so that the load can be a vector's."""
    first = places // VECTOR * VECTOR
    mask = (first + (VECTOR - 1) >= start) & (first < end)
    # Rows pass through the caches once; the buffers should stay there.
    return tl.load(row_ptr + places, mask=mask, other=0.0, eviction_policy="evict_first")


@triton.jit
def _visible(places, start, end):
    """Tell which places are visible, start <= place < end, by one comparison."""
    return (places - start).to(tl.uint32, bitcast=True) < (end - start).to(tl.uint32, bitcast=True)


@triton.jit
def _visible_keys(scores, places, start, end):
    """Give keys of scores, and the lowest to what is not visible."""
    return tl.where(_visible(places, start, end), _ordered_keys(scores), INVISIBLE)


@triton.jit
def _boundary(keys, low, count, k, slack):
    """Find low < high with fewer than k keys >= high and at least k keys >= low, as close as needed.

    Either k to k + slack keys are >= low, or low + 1 == high, and low is the key of ties at the boundary.

    Returns:
        low, high, and how many keys are >= high.
    """
    high = tl.max(keys, axis=0) + 1
    above = count * 0
    while (low + 1 < high) & (count > k + slack):
        middle = (low & high) + ((low ^ high) >> 1)
        reached = tl.sum((keys >= middle).to(tl.int32), axis=0)
        enough = reached >= k
        low = tl.where(enough, middle, low)
        count = tl.where(enough, reached, count)
        high = tl.where(enough, high, middle)
        above = tl.where(enough, above, reached)
    return low, high, above


@triton.jit
def _places_of_kept(keys, low, high, ties):
    """Tell which keys are kept, all >= high and the first `ties` of [low, high), and the place of each."""
    better = keys >= high
    tied = (keys >= low) & (keys < high)
    # Two counts in one scan: the tied ones in the upper half.
    counts = tl.cumsum(better.to(tl.int32) + tied.to(tl.int32) * 65536, axis=0)
    n_better, n_tied = counts & 0xFFFF, (counts >> 16) & 0xFFFF
    return better | (tied & (n_tied <= ties)), n_better + tl.minimum(n_tied, ties) - 1


@triton.jit
def _write_all(out_ptr, start, end, k, BLOCK: tl.constexpr):
    """Write every visible index, where there are at most k, and the padding."""
    for base in range(0, k, BLOCK):
        offsets = base + tl.arange(0, BLOCK)
        places = start + offsets
        tl.store(out_ptr + offsets, tl.where(places < end, places, -1), mask=offsets < k)


@triton.jit
def _slot_pointers(base_ptr, slots):
    """Point at slots for a store under a mask that is no vector's.

    The hints only keep four neighbours in one thread: without them the compiler would move everything to another
    layout before a store that it cannot make a vector's. Such a mask keeps it from making one here.
    """
    return tl.max_contiguous(tl.multiple_of(base_ptr + slots, 16), 4)


@triton.jit
def _select_short(row_ptr, out_ptr, begin, start, end, k, CAPACITY: tl.constexpr, VECTOR: tl.constexpr):
    """Write the k best of a row that registers hold."""
    places = begin + tl.arange(0, CAPACITY)
    keys = _visible_keys(_load_scores(row_ptr, places, start, end, VECTOR), places, start, end)
    low = tl.min(tl.where(keys == INVISIBLE, _HIGHEST, keys), axis=0)
    low, high, above = _boundary(keys, low, end - start, k, 0)
    kept, slots = _places_of_kept(keys, low, high, k - above)
    tl.store(_slot_pointers(out_ptr, slots), places, mask=kept)


@triton.jit
def _estimated_bar(row_ptr, begin, start, end, k, SAMPLE: tl.constexpr, VECTOR: tl.constexpr):
    """Estimate a key that somewhat more than k visible keys reach, from a sample spread evenly over the row."""
    offsets = tl.arange(0, SAMPLE)
    groups = (offsets // _TOGETHER).to(tl.int64)
    firsts = (groups * (end - begin) // (SAMPLE // _TOGETHER)).to(tl.int32)
    places = begin + firsts // _TOGETHER * _TOGETHER + offsets % _TOGETHER
    keys = _visible_keys(_load_scores(row_ptr, places, start, end, VECTOR), places, start, end)
    seen = tl.sum((keys != INVISIBLE).to(tl.int32), axis=0)
    low = tl.min(tl.where(keys == INVISIBLE, _HIGHEST, keys), axis=0)
    # As many of the sample as stand for k, and three standard deviations more.
    share = (k * SAMPLE).to(tl.float32) / (end - start).to(tl.float32)
    rank = (share + 3.0 * tl.sqrt(share)).to(tl.int32) + 1
    low, _, _ = _boundary(keys, low, seen, rank, rank // 16)
    return low


@triton.jit
def _cut(buffer_ptr, out_ptr, low, count, k, last, CAPACITY: tl.constexpr):
    """Cut the buffer, `count` >= k entries of keys >= low, to its k best; the last time, write their indices instead.

    Returns:
        The least key that was kept.
    """
    # What other threads appended must have arrived.
    tl.debug_barrier()
    offsets = tl.arange(0, CAPACITY)
    bits = tl.load(buffer_ptr + offsets, mask=offsets < count, other=0)
    keys = tl.where(offsets < count, _ordered_keys(bits.to(tl.float32, bitcast=True)), INVISIBLE)
    low, high, above = _boundary(keys, low, count, k, 0)
    kept, places = _places_of_kept(keys, low, high, k - above)
    indices = tl.load(buffer_ptr + CAPACITY + offsets, mask=kept, other=0)
    # All have read before anything is overwritten, by this row or by the next.
    tl.debug_barrier()
    if last:
        tl.store(_slot_pointers(out_ptr, places), indices, mask=kept)
    else:
        pointers = _slot_pointers(buffer_ptr, places)
        tl.store(pointers, _score_of(keys).to(tl.int32, bitcast=True), mask=kept)
        tl.store(pointers + CAPACITY, indices, mask=kept)
        low = tl.min(tl.where(kept, keys, _HIGHEST), axis=0)
    return low


@triton.jit
def _append(  # noqa: PLR0913
    row_ptr,
    buffer_ptr,
    base,
    start,
    end,
    bar,
    count,
    k,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """Append what reaches the bar to the `count` entries of the buffer, up to the end or as long as it has room.

    Cutting is no part of this loop, so that the registers of both need not be held at once.

    Returns:
        Where the first chunk begins that was not appended, and the new count.
    """
    offsets = tl.arange(0, CHUNK)
    scores = _load_scores(row_ptr, base + offsets, start, end, VECTOR)
    full = base * 0
    while (base < end) & (full == 0):
        places = base + offsets
        # Scores are compared as floats, which order -0.0 and denormals rightly and need no key of each.
        values = scores.to(tl.float32)
        values = tl.where(values == values, values, float("-inf"))
        if (base < start) | (base + CHUNK > end):
            values = tl.where(_visible(places, start, end), values, float("nan"))
        if AHEAD:
            scores = _load_scores(row_ptr, places + CHUNK, start, end, VECTOR)
        # An equal score of a higher index loses to k entries.
        enters = values >= _score_of(tl.where(count >= k, bar + 1, bar))
        entering = tl.sum(enters.to(tl.int32), axis=0)
        # Only from k on, because k and a chunk have room.
        full = (count + entering > CAPACITY).to(tl.int32)
        if (entering > 0) & (full == 0):
            slots = count + tl.cumsum(enters.to(tl.int32), axis=0) - 1
            pointers = _slot_pointers(buffer_ptr, slots)
            tl.store(pointers, values.to(tl.int32, bitcast=True), mask=enters)
            tl.store(pointers + CAPACITY, places, mask=enters)
        count = tl.where(full == 0, count + entering, count)
        base = tl.where(full == 0, base + CHUNK, base)
        if not AHEAD:
            scores = _load_scores(row_ptr, base + offsets, start, end, VECTOR)
    return base, count


@triton.jit
def _select_long(  # noqa: PLR0913
    row_ptr,
    out_ptr,
    buffer_ptr,
    begin,
    start,
    end,
    k,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
    SAMPLE: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """Write the k best of a row that registers do not hold."""
    bar = _estimated_bar(row_ptr, begin, start, end, k, SAMPLE, VECTOR)
    base, count = begin, begin * 0
    while base < end:
        base, count = _append(row_ptr, buffer_ptr, base, start, end, bar, count, k, CAPACITY, CHUNK, VECTOR, AHEAD)
        if count >= k:
            bar = _cut(buffer_ptr, out_ptr, bar, count, k, base >= end, CAPACITY)
            count = begin * 0 + k
        else:
            # The sample misled. Every visible score reaches the lowest bar, and more than k are visible.
            base, count = begin, begin * 0
            bar = begin * 0 + _MINUS_INFINITY


# A k of 1 as a constant could not be a counter.
@triton.jit(do_not_specialize=["rows", "k"])
def topk_kernel(  # noqa: PLR0913
    scores_ptr,
    starts_ptr,
    ends_ptr,
    out_ptr,
    buffer_ptr,
    rows,
    size,
    stride,
    k,
    HAS_STARTS: tl.constexpr,
    STREAMS: tl.constexpr,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
    SAMPLE: tl.constexpr,
    VECTOR: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """Select the k best of rows; each program takes every n-th row, and has one buffer of CAPACITY candidates."""
    program = tl.program_id(0).to(tl.int64)
    # The bits of scores, then indices.
    buffer_ptr += program * (2 * CAPACITY)
    for turn in range(tl.program_id(0), rows, tl.num_programs(0)):
        # Backwards: in causal attention the last rows are the longest, and a long row at the end would run alone.
        row = (rows - 1 - turn).to(tl.int64)
        end = tl.minimum(tl.load(ends_ptr + row).to(tl.int32), size)
        start = end * 0
        if HAS_STARTS:
            start = tl.maximum(tl.load(starts_ptr + row).to(tl.int32), 0)
        row_ptr, row_out = scores_ptr + row * stride, out_ptr + row * k
        # Loads begin at a multiple, so that they can be vectors.
        begin = start // VECTOR * VECTOR
        if end - start <= k:
            _write_all(row_out, start, end, k, 256)
        else:
            if STREAMS:
                if end - begin > CAPACITY:
                    _select_long(
                        row_ptr, row_out, buffer_ptr, begin, start, end, k,
                        CAPACITY, CHUNK, SAMPLE, VECTOR, AHEAD,
                    )  # fmt: skip
                else:
                    _select_short(row_ptr, row_out, begin, start, end, k, CAPACITY, VECTOR)
            else:
                _select_short(row_ptr, row_out, begin, start, end, k, CAPACITY, VECTOR)


def launch(
    scores_RS: Tensor, ends_R: Tensor, k: int, starts_R: Tensor | None = None, sizes: Sizes | None = None
) -> Tensor:
    """Select the k best visible scores of each row.

    Args:
        scores_RS: Scores, floating [R, S], neither of them 0.
        ends_R: End of the visible part, exclusive, integer [R].
        k: Entries kept per row.
        starts_R: First visible entry, integer [R]; None for 0.
        sizes: How a program works; None for the choice by k and S.

    Returns:
        Indices, int32 [R, K], ascending, padded with -1.
    """
    if scores_RS.dtype == torch.float64:
        scores_RS = scores_RS.to(torch.float32)
    if scores_RS.stride(1) != 1:
        scores_RS = scores_RS.contiguous()
    rows, size = scores_RS.shape
    device = scores_RS.device
    processors = _processors(device)
    sizes = sizes or sizes_for(min(k, size), size, rows, processors)
    out_RK = torch.empty(rows, k, dtype=torch.int32, device=device)
    streams = size > sizes.capacity
    # Programs beyond those that run at once would only need more buffers.
    programs = min(rows, processors * sizes.programs) if streams else rows
    # The bits of scores, and indices.
    buffers = torch.empty(programs * 2 * sizes.capacity if streams else 0, dtype=torch.int32, device=device)
    aligned = size % 4 == 0 and scores_RS.stride(0) % 4 == 0 and scores_RS.data_ptr() % 16 == 0
    topk_kernel[(programs,)](
        scores_RS,
        ends_R if starts_R is None else starts_R.contiguous(),
        ends_R.contiguous(),
        out_RK,
        buffers,
        rows,
        size,
        scores_RS.stride(0),
        k,
        HAS_STARTS=starts_R is not None,
        STREAMS=streams,
        CAPACITY=sizes.capacity,
        CHUNK=sizes.chunk,
        SAMPLE=sizes.sample,
        VECTOR=4 if aligned else 1,
        AHEAD=sizes.ahead,
        num_warps=sizes.warps,
        maxnreg=sizes.registers,
    )
    return out_RK


def _processors(device: torch.device) -> int:
    """Count the multiprocessors of a GPU; the interpreter has one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
