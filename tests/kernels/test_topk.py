"""Top-k: the kernel in Triton's interpreter and the reference, against the policy's selection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.topk import topk
from envsynth.kernels.topk.configs import Sizes, sizes_for
from envsynth.policy.selection import exact_topk

INFINITY = float("inf")
SMALL = Sizes(capacity=64, chunk=32, warps=1, sample=16)
"""A small capacity, so that short rows stream."""


def selected(scores_RS: Tensor, ends_R: Tensor, k: int, starts_R: Tensor | None = None) -> Tensor:
    """What the policy selects."""
    place_S = torch.arange(scores_RS.shape[1])
    starts_R1 = 0 if starts_R is None else starts_R[:, None]
    return exact_topk(scores_RS, (place_S < ends_R[:, None]) & (place_S >= starts_R1), k)


def agree(
    scores_RS: Tensor, ends_R: Tensor, k: int, starts_R: Tensor | None = None, sizes: Sizes | None = None
) -> None:
    """Compare reference, kernel and policy, bit for bit."""
    from envsynth.kernels.topk.forward import launch  # noqa: PLC0415

    want_RK = selected(scores_RS, ends_R, k, starts_R)
    assert torch.equal(topk(scores_RS, ends_R, k, starts_R=starts_R), want_RK)
    got_RK = launch(scores_RS, ends_R, k, starts_R, sizes)
    assert got_RK.dtype == torch.int32
    assert torch.equal(got_RK, want_RK)


def whole(scores_RS: Tensor) -> Tensor:
    return torch.full((len(scores_RS),), scores_RS.shape[1], dtype=torch.int32)


def plateau(rows: int, size: int, generator: torch.Generator) -> Tensor:
    """Scores like an indexer's: half of them an exact zero of either sign, others on both sides."""
    scores = torch.randn(rows, size, generator=generator)
    zero = torch.where(torch.rand(rows, size, generator=generator) < 0.5, 0.0, -0.0)
    return torch.where(torch.rand(rows, size, generator=generator) < 0.6, zero, scores)


@pytest.mark.parametrize("sizes", [None, SMALL], ids=["held", "streamed"])
@pytest.mark.parametrize(("size", "k"), [(203, 17), (256, 1), (100, 32)])
def test_topk_of_causal_rows(size, k, sizes, generator):
    scores = torch.randn(9, size, generator=generator)
    ends = torch.tensor([0, 1, k - 1, k, k + 1, 2 * k + 3, size - 1, size, size + 50])
    agree(scores, ends.clamp(max=size), k, sizes=sizes)
    agree(plateau(9, size, generator), ends.clamp(max=size).to(torch.int32), k, sizes=sizes)
    agree(scores[7:8] - 10.0, ends[7:8], k, sizes=sizes)


@pytest.mark.parametrize("sizes", [None, SMALL], ids=["held", "streamed"])
def test_topk_within_packed_documents(sizes, generator):
    starts = torch.tensor([0, 0, 5, 6, 7, 31, 31, 60, 60, 199, 150], dtype=torch.int32)
    ends = torch.tensor([1, 5, 6, 15, 29, 60, 131, 199, 160, 200, 100], dtype=torch.int32)
    for scores in (torch.randn(11, 200, generator=generator), plateau(11, 200, generator)):
        agree(scores, ends, 9, starts, sizes)


@pytest.mark.parametrize("sizes", [None, SMALL], ids=["held", "streamed"])
def test_topk_breaks_ties_at_the_boundary_by_index(sizes, generator):
    scores = plateau(6, 300, generator)
    positive = int((scores > 0).sum(1).max())
    at_least_zero = int((scores >= 0).sum(1).min())
    assert positive < 100 < at_least_zero, "the boundary is inside of the plateau"
    streamed = sizes and Sizes(256, 128, 1, 64)
    agree(scores, whole(scores), 100, sizes=streamed)
    agree(-scores, whole(scores), 100, sizes=streamed)


@pytest.mark.parametrize("value", [0.0, -0.0, -3.5, INFINITY, -INFINITY, float("nan")])
def test_topk_of_equal_scores_takes_the_first(value):
    scores = torch.full((1, 4113), value)
    agree(scores, whole(scores), 513)
    agree(scores[:, :331], torch.tensor([331]), 20, torch.tensor([7]), SMALL)


@pytest.mark.parametrize("sizes", [None, SMALL], ids=["held", "streamed"])
def test_topk_of_extreme_scores(sizes, generator):
    extremes = [INFINITY, -INFINITY, float("nan"), -float("nan"), 65505.0, 70000.0, -70000.0, 3.4e38, -3.4e38]
    extremes += [1e-45, -1e-45, 2e-39, 1.1e-38, 0.0, -0.0, 1.0, -1.0]
    pick = torch.randint(len(extremes), (8, 190), generator=generator)
    scores = torch.tensor(extremes)[pick]
    for k in (1, 12, 31):
        agree(scores, torch.tensor([190, 190, 189, 64, 65, 63, 13, 12]), k, sizes=sizes)


@pytest.mark.slow
def test_topk_of_rising_and_falling_scores_cuts_its_buffer_again_and_again():
    rising = torch.arange(700.0).repeat(2, 1)
    scores = torch.cat((rising, -rising, rising // 50, -(rising // 50)))
    agree(scores, whole(scores), 32, sizes=SMALL)
    agree(scores, whole(scores), 5, torch.full((8,), 3), SMALL)


def test_topk_never_reads_meaning_into_what_is_invisible(generator):
    scores = torch.randn(4, 150, generator=generator)
    starts, ends = torch.tensor([0, 10, 40, 100]), torch.tensor([90, 140, 41, 100])
    place = torch.arange(150)
    visible = (place >= starts[:, None]) & (place < ends[:, None])
    for filler in (float("nan"), INFINITY, 1e30):
        agree(torch.where(visible, scores, filler), ends, 21, starts, SMALL)


def test_topk_keeps_all_of_rows_shorter_than_k(generator):
    scores = torch.randn(3, 10, generator=generator)
    agree(scores, torch.tensor([10, 4, 0]), 300)
    for backend in ("reference", "triton"):
        got = topk(scores, torch.tensor([10, 4, 0]), 300, backend=backend)
        assert got[1, :6].tolist() == [0, 1, 2, 3, -1, -1]
        assert topk(scores[:0], torch.tensor([], dtype=torch.int32), 4, backend=backend).shape == (0, 4)
        assert topk(scores[:, :0], torch.tensor([3, 0, 0]), 2, backend=backend).tolist() == [[-1, -1]] * 3


def test_topk_reads_other_layouts_and_types(generator):
    scores = torch.randn(5, 400, generator=generator)
    ends = torch.tensor([400, 399, 50, 3, 222])
    agree(scores[:, ::3], ends.clamp(max=134), 10, sizes=SMALL)
    agree(scores[::2, 8:], ends[::2].clamp(max=392), 10, sizes=SMALL)
    agree(scores.to(torch.float16), ends, 10, sizes=SMALL)
    agree(scores.double(), ends, 10, sizes=SMALL)


@pytest.mark.parametrize("sizes", [None, SMALL], ids=["held", "streamed"])
def test_topk_writes_every_entry_and_repeats_bitwise(sizes, generator, monkeypatch):
    from envsynth.kernels.topk.forward import launch  # noqa: PLC0415

    scores = plateau(7, 180, generator)
    ends = torch.tensor([180, 100, 33, 8, 7, 1, 0])
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(-77))
    first, second = (launch(scores, ends, 8, None, sizes) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, selected(scores, ends, 8))
    order = torch.randperm(7, generator=generator)
    assert torch.equal(launch(scores[order], ends[order], 8, None, sizes), first[order])


LYING = Sizes(capacity=128, chunk=64, warps=1, sample=32)


def sampled(size: int, sizes: Sizes) -> Tensor:
    """Tell which places of a whole row its sample holds, by the kernel's rule."""
    offset = torch.arange(sizes.sample)
    places = (offset // 4 * size // (sizes.sample // 4)) // 4 * 4 + offset % 4
    return torch.zeros(size + 4, dtype=torch.bool).index_fill_(0, places, True)[:size]


@pytest.mark.parametrize("ahead", [True, False])
def test_topk_when_the_sample_lies(ahead, generator, monkeypatch):
    from envsynth.kernels.topk import forward  # noqa: PLC0415

    sizes = LYING._replace(ahead=ahead)
    noise = torch.randn(2, 600, generator=generator)
    inside = sampled(600, sizes)
    assert int(inside.sum()) == 32
    # Too few reach a bar that only the sample's own reach: the row is read again.
    high = torch.where(inside, noise + 50.0, noise)
    # All but the sample reach the bar: the buffer overflows again and again.
    low = torch.where(inside, noise - 50.0, noise)
    ties = torch.where(inside, 1.0, torch.where(noise > 0.8, 2.0, 0.0))
    scores = torch.cat((high, low, ties, -ties, low.sort(-1).values))
    append, calls = forward._append, []

    def counted(*rest):
        calls.append(rest)
        return append(*rest)

    monkeypatch.setattr(forward, "_append", counted)
    agree(scores[:2], whole(scores[:2]), 40, sizes=sizes)
    assert len(calls) > 2, "no row was read again"
    calls.clear()
    agree(scores[2:4], whole(scores[2:4]), 40, sizes=sizes)
    assert len(calls) > 2, "no buffer was cut"
    agree(scores, whole(scores), 40, sizes=sizes)
    agree(scores, whole(scores) - 3, 33, torch.full((len(scores),), 5), sizes)


def test_sizes_leave_room_for_a_chunk_beside_the_kept():
    for k in (1, 64, 512, 513, 1000, 2047, 2048, 5000, 8192):
        for size in (k + 1, 4096, 32768, 131072):
            for rows in (1, 132, 133, 40000):
                sizes = sizes_for(min(k, size), size, rows, 132)
                assert sizes.capacity >= size or sizes.capacity >= sizes.chunk + k
                assert sizes.sample <= sizes.capacity
                assert sizes.registers * 32 * sizes.warps * sizes.programs <= 65536
                assert not any(item & (item - 1) for item in sizes[:4]), sizes


def test_topk_refuses_what_it_cannot_do():
    scores, ends = torch.zeros(2, 9000), torch.tensor([9000, 9000])
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        topk(scores, ends, 0)
    with pytest.raises(ValueError, match=r"shapes are \[\(2, 9000\), \(1,\)\]"):
        topk(scores, ends[:1], 3)
    with pytest.raises(ValueError, match="must be floating"):
        topk(scores.to(torch.int32), ends, 3)
    with pytest.raises(UnsupportedError, match="keep at most 8192 of 9000 scores, got k=8193; use backend='reference'"):
        topk(scores, ends, 8193, backend="triton")
