"""The selection in one walk: equal, bit for bit, to that by written scores, whatever its sample makes of the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.indexer import ScaledKeys, configs, gathered_scores, index_select, index_select_decode
from envsynth.policy.selection import exact_topk

walk = load_kernels("indexer.walk")
Selected = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of eight candidates, which get full, and samples that are a small part of the keys."""
    monkeypatch.setattr(configs, "SMALLEST_BUFFER", 1)
    monkeypatch.setattr(configs, "SAMPLES", 128)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count cuts and walks."""
    counted = {"_cut_full": 0, "_collect": 0}
    for name in counted:
        monkeypatch.setattr(walk, name, counting(counted, name, getattr(walk, name)))
    return counted


def counting(counted: dict[str, int], name: str, given: Callable[..., Any]) -> Callable[..., Any]:
    """Count the calls of a function."""

    def call(*args: Any) -> Any:
        counted[name] += 1
        return given(*args)

    return call


def by_walk(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> Selected:
    """Select in one walk."""
    monkeypatch.setattr(configs, "WALK_PROGRAMS", 1)
    return index_select(*args, backend="triton", **options)


def by_scores(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> Selected:
    """Select by written scores."""
    monkeypatch.setattr(configs, "WALK_PROGRAMS", 10**9)
    return index_select(*args, backend="triton", **options)


def assert_same(got: Selected, want: Selected) -> None:
    """Compare numbers and the bits of scores."""
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1].view(torch.int32), want[1].view(torch.int32))


def with_scores(rows_RS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give queries, keys and weights whose scores are these, up to 32 rows: a head for either sign, a lane for each row."""
    rows, size = rows_RS.shape
    key = torch.zeros(1, size, 32)
    key[0, :, :rows] = rows_RS.T
    query = torch.zeros(1, rows, 2, 32)
    query[0, torch.arange(rows), 0, torch.arange(rows)] = 1.0
    query[0, torch.arange(rows), 1, torch.arange(rows)] = -1.0
    return query, key, torch.tensor([1.0, -1.0]).expand(1, rows, 2).contiguous()


def sampled(size: int) -> Tensor:
    """Give the keys that the sample of a walk over `size` keys holds, in tiles of float32."""
    parts, part = torch.arange(128), -(-size // 128)
    places = parts * part + (((parts * 40503) & 0xFFFF) * part >> 16)
    return places[places < size]


@pytest.mark.parametrize(("heads", "width"), [pytest.param(1, 16, marks=pytest.mark.slow), (3, 8), (40, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_causal_rows(heads, width, dtype, generator, monkeypatch):
    B, T = 2, 37 if heads == 1 else 9
    query = torch.randn(B, T, heads, width, generator=generator).to(dtype)
    key = torch.randn(B, T, width, generator=generator).to(dtype)
    weight = torch.randn(B, T, heads, generator=generator)
    for k in (1, T + 30):
        want = by_scores(monkeypatch, query, key, weight, k)
        assert_same(by_walk(monkeypatch, query, key, weight, k), want)
    # Chunks of one tile, and of one sequence.
    got = by_walk(monkeypatch, query, key, weight, T + 30, chunk_rows=1)
    assert_same(got, want)
    assert torch.equal(gathered_scores(query, key, weight, got[0], backend="triton"), got[1])


@pytest.mark.slow
def test_documents_caches_and_decoding(generator, monkeypatch):
    T, k = 80, 9
    query = torch.randn(1, T, 4, 16, generator=generator)
    key, weight = torch.randn(1, T, 16, generator=generator), torch.randn(1, T, 4, generator=generator)
    weight[:, ::7] = 0.0
    lengths = torch.tensor([1, 8, 9, 10, 1, 51])
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)[None]
    want = by_scores(monkeypatch, query, key, weight, k, starts_BT=starts)
    assert_same(by_walk(monkeypatch, query, key, weight, k, starts_BT=starts), want)
    key[:, :29] = float("nan")
    got = by_walk(monkeypatch, query, key, weight, k, starts_BT=starts)
    assert_same((got[0][:, 29:], got[1][:, 29:]), (want[0][:, 29:], want[1][:, 29:]))
    key = torch.randn(1, T, 16, generator=generator)
    whole = by_walk(monkeypatch, query, key, weight, k)
    later = by_walk(monkeypatch, query[:, 41:53], key, weight[:, 41:53], k, query_start_B=torch.tensor([41]))
    assert_same(later, (whole[0][:, 41:53], whole[1][:, 41:53]))
    rows = torch.zeros(T, dtype=torch.int64)
    decoded = index_select_decode(query[0], key, weight[0], rows, rows + 1 + torch.arange(T), k, backend="triton")
    assert_same(decoded, (whole[0][0], whole[1][0]))


@pytest.mark.slow
def test_eight_bits(generator, monkeypatch):
    query = torch.randn(2, 20, 4, 32, generator=generator).to(torch.float8_e4m3fn)
    key = torch.randn(2, 20, 32, generator=generator).to(torch.float8_e4m3fn)
    weight, scales = torch.randn(2, 20, 4, generator=generator), torch.rand(2, 20, generator=generator) + 0.5
    keys = ScaledKeys(key, scales)
    want = by_scores(monkeypatch, query, keys, weight, 9)
    assert_same(by_walk(monkeypatch, query, keys, weight, 9), want)


def adversaries(size: int, k: int, generator: torch.Generator) -> Tensor:
    """Give rows of scores that mislead a sample or fill lists, [10, S]."""
    some = torch.rand(size, generator=generator)
    high = torch.rand(size, generator=generator)
    high[sampled(size)] += 2.0
    plateau = torch.where(some < 0.5, 0.0, some - 0.8)
    plateau[some < 0.2] = -0.0
    extremes = torch.tensor([float("inf"), float("-inf"), float("nan"), 3e38, -3e38, 1e-45, -1e-45, 0.0])
    rows = [
        some.sort().values,
        some.sort(descending=True).values,
        high,  # its bar is too high: walked twice
        -high,  # its bar is too low: cut
        torch.full((size,), -1.5),
        plateau,
        (torch.arange(size) % 64 == 3) * (1.0 + some),  # all of them in one list
        torch.full((size,), float("-inf")),
        torch.full((size,), float("nan")),
        extremes[torch.randint(len(extremes), (size,), generator=generator)],
    ]
    return torch.stack(rows)


@pytest.mark.slow
def test_misleading_samples_and_full_lists(generator, monkeypatch, calls):
    size, k = 900, 60
    rows = adversaries(size, k, generator)
    finite = rows.isfinite().all(1)
    query, key, weight = with_scores(rows[finite])
    first = torch.tensor([size - 1], dtype=torch.int32)
    ends = {"query_start_B": first}
    # All of these rows see every key: later positions are clamped to the last.
    got = by_walk(monkeypatch, query, key, weight, k, **ends)
    assert calls["_cut_full"] > 0
    assert calls["_collect"] == 2, "one tile of queries, which was walked twice"
    assert_same(got, by_scores(monkeypatch, query, key, weight, k, **ends))
    want = exact_topk(rows[finite][None] + 0.0, torch.ones(1, 1, size, dtype=torch.bool), k)
    assert torch.equal(got[0], want)


@pytest.mark.slow
def test_infinities_and_nan_keep_their_order(generator, monkeypatch, calls):
    size, k = 700, 60
    rows = adversaries(size, k, generator)[-3:]
    # One lane for all rows, since infinity times zero is NaN: each row alone, with a head for either sign.
    for row in rows:
        query, weight = torch.tensor([1.0, -1.0])[None, None, :, None], torch.tensor([[[1.0, -1.0]]])
        key, first = row[None, :, None], torch.tensor([size - 1])
        got = by_walk(monkeypatch, query, key, weight, k, query_start_B=first)
        assert_same(got, by_scores(monkeypatch, query, key, weight, k, query_start_B=first))
    assert calls["_cut_full"] > 0


@pytest.mark.slow
def test_a_second_walk_adds_nothing_to_queries_that_found_enough(generator, monkeypatch, calls):
    size, k = 960, 30
    rows = torch.rand(16, size, generator=generator)
    rows[0, sampled(size)] += 2.0
    query, key, weight = with_scores(rows)
    first = torch.tensor([size - 1])
    full = []
    collect = walk._collect

    def collecting(*args: Any) -> Any:
        counts = args[5].handle.data
        full.append(int((counts[:, 1:].max(0) > 6).sum()))
        return collect(*args)

    monkeypatch.setattr(walk, "_collect", collecting)
    got = by_walk(monkeypatch, query, key, weight, k, query_start_B=first)
    assert calls["_collect"] == len(full) == 2
    assert full[1] > 0, "queries that found enough are cut at the start of the second walk, since a list is nearly full"
    assert_same(got, by_scores(monkeypatch, query, key, weight, k, query_start_B=first))


def test_good_samples_need_one_walk_without_cuts(generator, monkeypatch, calls):
    size, k = 700, 20
    query, key, weight = with_scores(torch.randn(3, size, generator=generator))
    first = torch.tensor([size - 1])
    got = by_walk(monkeypatch, query, key, weight, k, query_start_B=first)
    assert calls == {"_cut_full": 0, "_collect": 1}
    assert_same(got, by_scores(monkeypatch, query, key, weight, k, query_start_B=first))


def test_very_large_numbers_are_sorted_in_64_bits(generator, monkeypatch):
    query, key, weight = with_scores(torch.randn(3, 90, generator=generator))
    first = torch.tensor([87])
    want = by_walk(monkeypatch, query, key, weight, 7, query_start_B=first)
    monkeypatch.setattr(walk, "LARGEST_NARROW", 1)
    assert_same(by_walk(monkeypatch, query, key, weight, 7, query_start_B=first), want)


def test_a_walk_stays_within_its_workspace(generator, monkeypatch):
    sizes = []
    empty = torch.empty

    def measuring(*size: Any, **options: Any) -> Tensor:
        made = empty(*size, **options)
        sizes.append(made.numel() * made.element_size())
        return made

    query, key, weight = with_scores(torch.randn(32, 60, generator=generator))
    want = by_walk(monkeypatch, query, key, weight, 5)
    limit = 16 * (8 * 256 + 4 * 32 + 4)
    monkeypatch.setattr(configs, "WORKSPACE_BYTES", limit)
    monkeypatch.setattr(torch, "empty", measuring)
    got = by_walk(monkeypatch, query, key, weight, 5)
    results = 2 * 32 * 5 * 4
    assert sum(sizes) - results <= limit
    assert_same(got, want)
