"""Top-k as one kernel: a row's candidates stay in registers, and its threshold is found by bisection.

Shape letters: R rows, S scores of a row, K kept entries, C candidates held at once.

Each score becomes an int32 key of the same order. The k-th largest of C keys is found by counting keys above a middle
value, at most 32 times, usually half as often, because the search ends when exactly k are above. Prefix sums then place
what is kept in the order of its index, so nothing depends on which thread comes first.

A row longer than C is read once. The k best of its first C scores go to a buffer; their least key is a bar that each
later score has to pass, strictly, because an equal one of a higher index would lose anyway. What passes is appended.
When the buffer would overflow, it is cut to its k best and the bar rises. The bar only ever excludes scores that k
better ones precede, so the result is exact whatever the order of the scores; their order only decides the time.
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
_MINUS_INFINITY = tl.constexpr(-0x800000)
"""Bits of the float32."""
WARPS_PER_PROCESSOR = 16
"""Warps that share a multiprocessor: programs beyond them would only need more buffers."""


@triton.jit
def _ordered_keys(scores):
    """Turn scores into int32 keys of the same order; by integers alone, so that denormals keep their value."""
    bits = scores.to(tl.float32).to(tl.int32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    bits = tl.where(magnitude == 0, 0, bits)
    bits = tl.where(magnitude > 0x7F800000, _MINUS_INFINITY, bits)
    # Negative floats order backwards by their bits.
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _load_scores(row_ptr, places, start, end, VECTOR: tl.constexpr):
    """Load scores of a row; the mask is one for each vector, so that the load can be a vector's."""
    first = places // VECTOR * VECTOR
    return tl.load(row_ptr + places, mask=(first + (VECTOR - 1) >= start) & (first < end), other=0.0)


@triton.jit
def _visible_keys(scores, places, start, end):
    """Give keys of scores, and the lowest to what is not visible."""
    return tl.where((places >= start) & (places < end), _ordered_keys(scores), INVISIBLE)


@triton.jit
def _boundary(keys, low, count, k):
    """Find low < high with fewer than k keys >= high and at least k keys >= low, as close as needed.

    Either exactly k keys are >= low, or low + 1 == high, and low is the key of ties at the boundary.

    Returns:
        low, high, and how many keys are >= high.
    """
    high = tl.max(keys, axis=0) + 1
    above = count * 0
    while (low + 1 < high) & (count > k):
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
def _packed(keys, indices):
    """Put key and index of a candidate into one int64, so that it is stored at once."""
    return (keys.to(tl.int64) << 32) | indices.to(tl.int64)


@triton.jit
def _cut(buffer_ptr, out_ptr, low, count, k, CAPACITY: tl.constexpr, TO_BUFFER: tl.constexpr):
    """Cut the buffer to its k best, in place, or write their indices as the result.

    Returns:
        The least key that was kept.
    """
    # What other threads appended must have arrived.
    tl.debug_barrier()
    offsets = tl.arange(0, CAPACITY)
    candidates = tl.load(buffer_ptr + offsets, mask=offsets < count, other=0)
    keys = tl.where(offsets < count, (candidates >> 32).to(tl.int32), INVISIBLE)
    low, high, above = _boundary(keys, low, count, k)
    kept, places = _places_of_kept(keys, low, high, k - above)
    # Read again rather than held in registers during the search.
    candidates = tl.load(buffer_ptr + offsets, mask=kept, other=0)
    # All have read before anything is overwritten, by this row or by the next.
    tl.debug_barrier()
    if TO_BUFFER:
        tl.store(buffer_ptr + places, candidates, mask=kept)
    else:
        tl.store(out_ptr + places, candidates.to(tl.int32), mask=kept)
    return tl.min(tl.where(kept, keys, _HIGHEST), axis=0)


@triton.jit
def _stream(  # noqa: PLR0913
    row_ptr,
    out_ptr,
    buffer_ptr,
    begin,
    start,
    end,
    bar,
    k,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Read the rest of a row, whose k best so far are in the buffer, and write the result."""
    count = k
    offsets = tl.arange(0, CHUNK)
    # Read one chunk ahead.
    ahead = _load_scores(row_ptr, begin + offsets, start, end, VECTOR)
    for base in range(begin, end, CHUNK):
        places = base + offsets
        keys = _visible_keys(ahead, places, start, end)
        ahead = _load_scores(row_ptr, places + CHUNK, start, end, VECTOR)
        enters = keys > bar
        entering = tl.sum(enters.to(tl.int32), axis=0)
        if count + entering > CAPACITY:
            bar = _cut(buffer_ptr, out_ptr, bar, count, k, CAPACITY, True)
            count = k
            enters = keys > bar
            entering = tl.sum(enters.to(tl.int32), axis=0)
        if entering > 0:
            slots = count + tl.cumsum(enters.to(tl.int32), axis=0) - 1
            tl.store(buffer_ptr + slots, _packed(keys, places), mask=enters)
            count += entering
    _cut(buffer_ptr, out_ptr, bar, count, k, CAPACITY, False)


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
    VECTOR: tl.constexpr,
):
    """Select the k best of rows; each program takes every n-th row, and has one buffer of CAPACITY candidates."""
    program = tl.program_id(0).to(tl.int64)
    buffer_ptr += program * CAPACITY
    offsets = tl.arange(0, CAPACITY)
    for turn in range(tl.program_id(0), rows, tl.num_programs(0)):
        # Backwards: in causal attention the last rows are the longest, and a long row at the end would run alone.
        row = (rows - 1 - turn).to(tl.int64)
        end = tl.minimum(tl.load(ends_ptr + row).to(tl.int32), size)
        start = end * 0
        if HAS_STARTS:
            start = tl.maximum(tl.load(starts_ptr + row).to(tl.int32), 0)
        row_ptr, row_out = scores_ptr + row * stride, out_ptr + row * k
        if end - start <= k:
            _write_all(row_out, start, end, k, 256)
        else:
            # Loads begin at a multiple, so that they can be vectors.
            begin = start // VECTOR * VECTOR
            places = begin + offsets
            keys = _visible_keys(_load_scores(row_ptr, places, start, end, VECTOR), places, start, end)
            count = tl.minimum(end, begin + CAPACITY) - start
            low = tl.min(tl.where(keys == INVISIBLE, _HIGHEST, keys), axis=0)
            low, high, above = _boundary(keys, low, count, k)
            kept, slots = _places_of_kept(keys, low, high, k - above)
            if STREAMS:
                if end - begin <= CAPACITY:
                    tl.store(row_out + slots, places, mask=kept)
                else:
                    tl.store(buffer_ptr + slots, _packed(keys, places), mask=kept)
                    bar = tl.min(tl.where(kept, keys, _HIGHEST), axis=0)
                    _stream(
                        row_ptr, row_out, buffer_ptr, begin + CAPACITY, start, end, bar, k,
                        CAPACITY, CHUNK, VECTOR,
                    )  # fmt: skip
            else:
                tl.store(row_out + slots, places, mask=kept)


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
    sizes = sizes or sizes_for(min(k, size), size)
    out_RK = torch.empty(rows, k, dtype=torch.int32, device=device)
    streams = size > sizes.capacity
    programs = rows
    if streams:
        programs = min(rows, _processors(device) * max(1, WARPS_PER_PROCESSOR // sizes.warps))
    candidates = programs * sizes.capacity if streams else 0
    buffers = torch.empty(candidates, dtype=torch.int64, device=device)
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
        VECTOR=4 if aligned else 1,
        num_warps=sizes.warps,
        **({} if sizes.registers is None else {"maxnreg": sizes.registers}),
    )
    return out_RK


def _processors(device: torch.device) -> int:
    """Count the multiprocessors of a GPU; the interpreter has one."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
