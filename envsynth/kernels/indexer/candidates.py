"""The k best of a query's candidates, exactly; `walk` collects them.

Shape letters: B sequences, T queries, K kept entries, C candidates held at once.

A candidate is one int64: the bits of its score above, its key's number below. A query has LISTS lists of candidates in
one buffer: entry e of list l lies at e * LISTS + l, and a count per list tells how many there are. What is kept depends
on scores and numbers alone, never on where a candidate lies.
"""

# ruff: noqa: ANN001, ANN201, ANN202 - Triton types the parameters of its kernels itself
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

INVISIBLE = tl.constexpr(-(2**31))
"""Key of what is not visible, below that of minus infinity."""
_HIGHEST = tl.constexpr(2**31 - 1)
MINUS_INFINITY = tl.constexpr(-0x800000)
"""Bits of the float32."""
LOWEST = tl.constexpr(-0x7F800001)
"""Key of minus infinity: these bits in the order of keys."""


@triton.jit
def ordered(bits):
    """Turn bits of float32 scores into int32 keys of the same order: -0.0 equals 0.0, NaN is minus infinity."""
    magnitude = bits & 0x7FFFFFFF
    bits = tl.where(magnitude == 0, 0, bits)
    bits = tl.where(magnitude > 0x7F800000, MINUS_INFINITY, bits)
    # Negative floats order backwards by their bits.
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def score_of(keys):
    """Give the float32 scores of keys, which `ordered` made."""
    return (keys ^ ((keys >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def packed(scores, numbers):
    """Put score and number of a candidate into one int64, so that it is stored at once."""
    return (scores.to(tl.int32, bitcast=True).to(tl.int64) << 32) | numbers.to(tl.int64)


@triton.jit
def _boundary(keys, low, count, k):
    """Find low < high with fewer than k keys >= high and at least k keys >= low, as close as needed.

    Either exactly k keys are >= low, or low + 1 == high, and low is the key of ties at the boundary. Where there are at
    most k keys, low stays, and all are kept.

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
def _last_tie(numbers, tied, ties):
    """Find the number of the `ties`-th of the tied candidates, of which there are more."""
    low, high = ties * 0 - 1, tl.max(tl.where(tied, numbers, 0), axis=0)
    # At most `high` always suffices, at most `low` never does.
    while low + 1 < high:
        middle = low + (high - low) // 2
        enough = tl.sum((tied & (numbers <= middle)).to(tl.int32), axis=0) >= ties
        low = tl.where(enough, low, middle)
        high = tl.where(enough, middle, high)
    return high


@triton.jit
def cut(row_ptr, counts, count, k, LISTS: tl.constexpr, SIZE: tl.constexpr):
    """Cut a query's candidates to the k best, or all if there are fewer, and spread them evenly over its lists.

    `counts` has the entries of each candidate's list [SIZE], `count` all of them, which lie in the first SIZE places.
    What other threads wrote must have arrived; what this writes has not, without a barrier.

    Returns:
        The least key that was kept.
    """
    offsets = tl.arange(0, SIZE)
    exists = offsets // LISTS < counts
    bits = (tl.load(row_ptr + offsets, mask=exists, other=0) >> 32).to(tl.int32)
    keys = tl.where(exists, ordered(bits), INVISIBLE)
    low = tl.min(tl.where(exists, keys, _HIGHEST), axis=0)
    low, high, above = _boundary(keys, low, count, k)
    kept = (keys >= low) & exists
    reached = tl.sum(kept.to(tl.int32), axis=0)
    # Read again rather than held in registers during the search.
    candidates = tl.load(row_ptr + offsets, mask=kept, other=0)
    if reached > k:
        numbers = candidates.to(tl.int32)
        tied = kept & (keys < high)
        kept = kept & ((keys >= high) | (numbers <= _last_tie(numbers, tied, k - above)))
    places = tl.cumsum(kept.to(tl.int32), axis=0) - 1
    # All have read before anything is overwritten.
    tl.debug_barrier()
    tl.store(row_ptr + places, candidates, mask=kept)
    return tl.min(tl.where(kept, keys, _HIGHEST), axis=0)


# A k of 1 as a constant could not be a counter.
@triton.jit(do_not_specialize=["k"])
def best_kernel(  # noqa: PLR0913
    buffer_ptr,
    counts_ptr,
    topk_ptr,
    scores_ptr,
    n_queries,
    padded_queries,
    k,
    stride_ob,
    stride_ot,
    LISTS: tl.constexpr,
    CAPACITY: tl.constexpr,
    KEPT: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Write the k best candidates of one query in the order of their numbers, and the padding; KEPT >= min(k, S)."""
    batch = (tl.program_id(0) // n_queries).to(tl.int64)
    place = tl.program_id(0) % n_queries
    row = batch * padded_queries + place
    row_ptr, counts_ptr = buffer_ptr + row * CAPACITY, counts_ptr + row * LISTS
    topk_ptr += batch * stride_ob + place.to(tl.int64) * stride_ot
    scores_ptr += batch * stride_ob + place.to(tl.int64) * stride_ot
    counts = tl.load(counts_ptr + tl.arange(0, LISTS))
    count = tl.sum(counts, axis=0)
    # Usually the sample's bar was good, and the first entries of each list are all that was written.
    longest = tl.max(counts, axis=0)
    if longest <= CAPACITY // LISTS // 4:
        few = tl.load(counts_ptr + tl.arange(0, CAPACITY // 4) % LISTS)
        cut(row_ptr, few, count, k, LISTS, CAPACITY // 4)
    elif longest <= CAPACITY // LISTS // 2:
        half = tl.load(counts_ptr + tl.arange(0, CAPACITY // 2) % LISTS)
        cut(row_ptr, half, count, k, LISTS, CAPACITY // 2)
    else:
        every = tl.load(counts_ptr + tl.arange(0, CAPACITY) % LISTS)
        cut(row_ptr, every, count, k, LISTS, CAPACITY)
    tl.debug_barrier()
    kept = tl.minimum(count, k)
    offsets = tl.arange(0, KEPT)
    numbers = tl.load(row_ptr + offsets, mask=offsets < kept, other=0).to(tl.int32)
    # Number and place in one integer: half as wide as a candidate, unless numbers are very large.
    if WIDE:
        order = tl.where(offsets < kept, numbers.to(tl.int64) * KEPT + offsets, 0x7FFFFFFFFFFFFFFF)
    else:
        order = tl.where(offsets < kept, numbers * KEPT + offsets, 0x7FFFFFFF)
    sources = (tl.sort(order) & (KEPT - 1)).to(tl.int32)
    candidates = tl.load(row_ptr + sources, mask=offsets < kept, other=0)
    numbers = tl.where(offsets < kept, candidates.to(tl.int32), -1)
    scores = tl.where(offsets < kept, (candidates >> 32).to(tl.int32), 0).to(tl.float32, bitcast=True)
    tl.store(topk_ptr + offsets, numbers, mask=offsets < k)
    tl.store(scores_ptr + offsets, scores, mask=offsets < k)
    for base in range(KEPT, k, KEPT):
        tl.store(topk_ptr + base + offsets, -1, mask=base + offsets < k)
        tl.store(scores_ptr + base + offsets, 0.0, mask=base + offsets < k)
