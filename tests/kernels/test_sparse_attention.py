"""Attention over selected keys: the reference against dense attention, the kernels against the reference."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from envsynth.kernels import sparse_attention as operator
from envsynth.kernels.sparse_attention import configs, reference, sparse_attention, sparse_attention_decode

SCALE = 0.17


class Case(NamedTuple):
    """Inputs of one call, and the gradient that comes back."""

    query: Tensor
    latent: Tensor
    topk: Tensor
    gradient: Tensor
    rank: int


class Found(NamedTuple):
    """What a call gives, with gradients."""

    out: Tensor
    lse: Tensor
    sums: Tensor
    query: Tensor
    latent: Tensor


def selection(generator: torch.Generator, B: int, T: int, S: int, K: int) -> Tensor:
    """Ascending keys without repetition, with padding in front, within and behind."""
    order = torch.rand(B, T, max(S, K), generator=generator).argsort(-1)[..., :K]
    order = order.masked_fill(order >= S, -1).sort(-1).values
    return order.masked_fill(torch.rand(B, T, K, generator=generator) < 0.2, -1).to(torch.int32)


def case(generator: torch.Generator, sizes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Case:
    B, T, S, H, rank, rope, K = sizes
    query = torch.randn(B, T, H, rank + rope, generator=generator).to(dtype)
    latent = torch.randn(B, S, rank + rope, generator=generator).to(dtype)
    gradient = torch.randn(B, T, H, rank, generator=generator).to(dtype)
    return Case(query, latent, selection(generator, B, T, S, K), gradient, rank)


def run(given: Case, backend: str, *, deterministic: bool = True) -> Found:
    query, latent = given.query.clone().requires_grad_(), given.latent.clone().requires_grad_()
    found = sparse_attention(
        query,
        latent,
        given.topk,
        rank=given.rank,
        scale=SCALE,
        with_sum=True,
        deterministic=deterministic,
        backend=backend,
    )
    assert not found.lse_BTH.requires_grad
    assert not found.sum_BTK.requires_grad
    found.out_BTHR.backward(given.gradient)
    return Found(found.out_BTHR.detach(), found.lse_BTH, found.sum_BTK, query.grad, latent.grad)


def assert_close(found: Found, truth: Found, tolerance: float = 1e-5) -> None:
    """Results within an absolute tolerance, gradients within one relative to the largest number."""
    for name, ours, theirs in zip(Found._fields, found, truth, strict=True):
        assert ours.shape == theirs.shape, name
        assert ours.dtype == theirs.dtype, name
        size = max(1.0, float(theirs.abs().nan_to_num(0, 0, 0).max())) if theirs.numel() else 1.0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * size, msg=lambda text, name=name: name + text)


def assert_same_bits(found: Found, again: Found) -> None:
    for name, ours, theirs in zip(Found._fields, found, again, strict=True):
        assert torch.equal(ours, theirs), name


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that nobody wrote is NaN, or an absurd number."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(x: Tensor) -> Tensor:
        return x.fill_(float("nan") if x.is_floating_point() else -(2**30))

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(empty(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(empty_like(*args, **kwargs)))


def test_the_reference_is_dense_attention_where_every_key_is_selected(generator):
    given = case(generator, (2, 3, 5, 4, 6, 2, 5))
    every = torch.arange(5, dtype=torch.int32).expand(2, 3, 5)
    found = sparse_attention(given.query, given.latent, every, rank=6, scale=SCALE, with_sum=True)
    logits = torch.einsum("bthc,bsc->bths", given.query, given.latent) * SCALE
    attention = logits.softmax(-1)
    torch.testing.assert_close(found.out_BTHR, torch.einsum("bths,bsr->bthr", attention, given.latent[..., :6]))
    torch.testing.assert_close(found.lse_BTH, logits.logsumexp(-1))
    torch.testing.assert_close(found.sum_BTK, attention.sum(2))


def test_the_reference_has_the_gradient_of_its_result():
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(1, 4, 2, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    latent = torch.randn(1, 6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    topk = torch.tensor([[[-1, -1, -1], [0, 0, 5], [-1, 3, 6], [1, 2, 4]]], dtype=torch.int32)

    def attend(query: Tensor, latent: Tensor) -> Tensor:
        return reference.attend(query, latent, topk, rank=3, scale=0.7)[0]

    assert torch.autograd.gradcheck(attend, (query, latent))


SIZES = {
    "one-head": (1, 5, 9, 1, 16, 16, 4),
    "three-heads": (2, 23, 11, 3, 24, 8, 5),
    "four-heads": (1, 17, 19, 4, 16, 16, 17),
    "eight-heads": (2, 9, 20, 8, 32, 16, 7),
    "twelve-heads-rank-192": (1, 6, 12, 12, 192, 32, 6),
    "sixteen-heads": (1, 5, 36, 16, 32, 16, 33),
    "twenty-four-heads": (1, 3, 9, 24, 20, 12, 4),
    "sixty-four-heads": (1, 2, 40, 64, 16, 16, 33),
    "no-rotary-part": (1, 4, 9, 16, 16, 0, 4),
    "one-query-one-key": (1, 1, 1, 2, 16, 4, 1),
    "more-room-than-keys": (2, 3, 4, 4, 16, 16, 9),
}


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_kernels_equal_the_reference(generator, sizes):
    given = case(generator, sizes)
    assert_close(run(given, "triton"), run(given, "reference"))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("queries", [1, 2, 3, 7])
def test_any_packing_gives_the_same(generator, monkeypatch, queries):
    given = case(generator, (1, 8, 40, 4, 20, 16, 33))
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: queries)
    truth = run(given, "reference")
    assert_close(run(given, "triton"), truth)
    assert_close(run(given, "triton", deterministic=False), truth)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("queries", [1, 4])
def test_float16_equals_the_reference_to_its_rounding(generator, monkeypatch, queries):
    given = case(generator, (1, 5, 80, 16, 128, 32, 66), torch.float16)
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: queries)
    assert_close(run(given, "triton"), run(given, "reference"), 4e-3)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("queries", [1, 4])
def test_rows_with_few_or_many_visible_keys(generator, monkeypatch, queries):
    given = case(generator, (1, 5, 8, 16, 16, 16, 4))
    counts = torch.tensor([0, 1, 3, 4, 4])  # 0, 1, k-1, k, and k of k+1
    topk = torch.arange(4).expand(1, 5, 4).masked_fill(torch.arange(4) >= counts[:, None], -1).to(torch.int32)
    topk[0, 4] = torch.tensor([0, 2, 3, 4], dtype=torch.int32)
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: queries)
    found = run(given._replace(topk=topk), "triton")
    assert_close(found, run(given._replace(topk=topk), "reference"))
    assert not found.out[:, 0].any()
    assert not found.query[:, 0].any()
    assert (found.lse[:, 0] == float("inf")).all()


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("invalid", [-(2**31), -1, 10, 2**31 - 1])
def test_invalid_keys_are_skipped_wherever_they_stand(generator, backend, invalid):
    given = case(generator, (2, 3, 10, 16, 16, 16, 3))
    topk = torch.tensor([1, 4, 7], dtype=torch.int32).repeat(2, 3, 1)
    for place in range(3):
        topk[0, place, place] = invalid
    topk[1, 0] = invalid
    found = run(given._replace(topk=topk), backend)
    assert torch.isfinite(torch.cat([x.flatten() for x in (found.out, found.sums, found.query, found.latent)])).all()
    assert (found.sums[topk == invalid] == 0).all()
    without = given._replace(topk=torch.where(topk == invalid, -1, topk))
    assert_close(found, run(without, "reference"))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("queries", [1, 4])
def test_a_nan_in_a_latent_that_nobody_selects_reaches_nothing(generator, monkeypatch, backend, queries):
    given = case(generator, (1, 6, 12, 16, 16, 16, 5))
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: queries)
    topk = torch.where(given.topk % 3 == 0, -1, given.topk)
    topk[0, 2] = -1
    clean = run(given._replace(topk=topk), backend)
    latent = given.latent.clone()
    latent[:, ::3] = float("nan")
    assert_same_bits(run(given._replace(topk=topk, latent=latent), backend), clean)


@pytest.mark.parametrize("queries", [1, 4])
def test_a_key_named_twice_counts_twice(generator, monkeypatch, queries):
    given = case(generator, (1, 4, 6, 16, 16, 16, 4))
    topk = torch.tensor([[1, 1, 1, 2], [1, 1, 2, 3], [0, 1, 2, 3], [-1, 2, -1, 2]], dtype=torch.int32)[None]
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: queries)
    truth = run(given._replace(topk=topk), "reference")
    assert_close(run(given._replace(topk=topk), "triton"), truth)
    torch.testing.assert_close(truth.sums[0, 0, 0], truth.sums[0, 0, 2])
    once = run(given._replace(topk=torch.where(topk == topk.roll(1, -1), -1, topk)), "reference")
    assert not torch.allclose(truth.out[0, 0], once.out[0, 0])


def test_the_same_bits_come_again_and_in_any_order_of_sequences(generator, monkeypatch):
    given = case(generator, (3, 5, 12, 4, 16, 16, 5))
    # Rounds of one tile of each sequence, so that gradients are added up over several rounds.
    monkeypatch.setattr(configs, "WORKSPACE_BYTES", 1)
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: 2)
    found = run(given, "triton")
    assert_same_bits(run(given, "triton"), found)
    order = torch.tensor([2, 0, 1])
    turned = Case(*(x[order] for x in given[:4]), given.rank)
    assert_same_bits(run(turned, "triton"), Found(*(x[order] for x in found)))
    assert_close(found, run(given, "reference"))


def test_without_any_query_or_key_the_result_is_zero(generator):
    for sizes in ((0, 2, 3, 2, 16, 16, 2), (1, 0, 3, 2, 16, 16, 2), (1, 2, 0, 2, 16, 16, 2), (1, 2, 3, 2, 16, 16, 0)):
        given = case(generator, sizes)
        found, truth = run(given, "triton"), run(given, "reference")
        assert_close(found, truth)
        assert not found.out.any()
        assert (found.lse == float("inf")).all()
        assert not found.latent.any()


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_inputs_need_not_be_contiguous(generator, backend):
    given = case(generator, (2, 4, 6, 4, 16, 16, 3))
    spread = Case(*(x.repeat_interleave(2, -1)[..., ::2] for x in given[:4]), given.rank)
    assert not spread.query.is_contiguous()
    assert_same_bits(run(spread, backend), run(given, backend))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_decode_gives_the_last_row_of_a_whole_sequence(generator, dtype):
    given = case(generator, (3, 5, 9, 8, 24, 8, 6))
    whole = run(given, "triton").out[:, -1]
    cache = torch.full((5, 9, 32), float("nan"))
    slots = torch.tensor([4, 0, 2], dtype=dtype)
    cache[slots.long()] = given.latent
    arguments = (given.query[:, -1], cache, slots, given.topk[:, -1])
    found = sparse_attention_decode(*arguments, rank=24, scale=SCALE, backend="triton")
    assert torch.equal(found, whole)
    truth = sparse_attention_decode(*arguments, rank=24, scale=SCALE)
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-5)
    turned = [x.flip(0) if x is not cache else x for x in arguments]
    assert torch.equal(sparse_attention_decode(*turned, rank=24, scale=SCALE, backend="triton").flip(0), found)
    nobody = sparse_attention_decode(*(x[:0] if x is not cache else x for x in arguments), rank=24, scale=SCALE)
    assert nobody.shape == (0, 8, 24)


def test_decode_refuses_a_cache_that_it_would_have_to_copy(generator):
    given = case(generator, (2, 1, 6, 4, 16, 16, 3))
    cache = given.latent.transpose(0, 1).contiguous().transpose(0, 1)
    with pytest.raises(operator.UnsupportedError, match="make it contiguous"):
        sparse_attention_decode(
            given.query[:, 0], cache, torch.arange(2), given.topk[:, 0], rank=16, scale=SCALE, backend="triton"
        )
    with pytest.raises(ValueError, match=r"\[N, H, C\], \[N\] and \[N, K\]"):
        sparse_attention_decode(given.query[:, 0], cache, torch.arange(3), given.topk[:, 0], rank=16, scale=SCALE)


def test_what_cannot_be_handled_is_refused(generator):
    given = case(generator, (1, 2, 3, 4, 16, 16, 2))

    def attend(**changes: object) -> None:
        found = given._replace(**{name: value for name, value in changes.items() if name in Case._fields})
        sparse_attention(found.query, found.latent, found.topk, rank=found.rank, scale=SCALE, backend="triton")

    with pytest.raises(ValueError, match="rank must be 1 to 32"):
        attend(rank=33)
    with pytest.raises(ValueError, match=r"\[B, S, C\] and \[B, T, K\], got"):
        attend(topk=given.topk[:, :1])
    with pytest.raises(operator.UnsupportedError, match="make both float32"):
        attend(query=given.query.double(), latent=given.latent.double())
    with pytest.raises(operator.UnsupportedError, match="make both float32"):
        attend(query=given.query.half())
    with pytest.raises(operator.UnsupportedError, match=r"topk is torch\.int64"):
        attend(topk=given.topk.long())
    with pytest.raises(operator.UnsupportedError, match="129 heads, at most 128"):
        attend(query=given.query[:, :, :1].expand(-1, -1, 129, -1))
    with pytest.raises(operator.UnsupportedError, match="split the batch"):
        attend(latent=given.latent[:, :1].expand(-1, 2**26, -1))
    with pytest.raises(operator.UnsupportedError, match="rank 520, at most 512"):
        attend(query=given.query.repeat(1, 1, 1, 20), latent=given.latent.repeat(1, 1, 20), rank=520)


def test_the_workspace_is_bounded_and_its_chunks_change_rounding_alone(generator, monkeypatch):
    given = case(generator, (2, 40, 40, 4, 16, 8, 16))
    whole = run(given, "triton")
    limit, largest, empty = 70_000, [], torch.empty

    def watched(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        largest.append(made.numel() * made.element_size())
        return made

    monkeypatch.setattr(configs, "WORKSPACE_BYTES", limit)
    monkeypatch.setattr(torch, "empty", watched)
    assert_close(run(given, "triton"), whole, 1e-6)
    assert limit / 3 < max(largest) <= limit
