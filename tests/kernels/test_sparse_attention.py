"""Attention over selected keys: the reference against a definition, and kernels against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.sparse_attention import backward, configs, forward, sparse_attention, sparse_attention_decode
from envsynth.kernels.sparse_attention.reference import attend

SCALE = 0.3


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def causal_keys(batch: int, length: int, k: int, seed: int = 0) -> Tensor:
    """Random ascending keys up to each query, as many as there are up to k, then -1."""
    keys = torch.full((batch, length, k), -1, dtype=torch.int32)
    generator = torch.Generator().manual_seed(seed)
    for row in range(batch):
        for t in range(length):
            found = torch.randperm(t + 1, generator=generator)[:k].sort().values
            keys[row, t, : len(found)] = found.to(torch.int32)
    return keys


def pulled(query: Tensor, latent: Tensor, keys: Tensor, rank: int, **options: object) -> list[Tensor]:
    """Result, log-sum-exp, sum over heads, and the gradients of query and latent."""
    leaves = [item.clone().requires_grad_() for item in (query, latent)]
    found = sparse_attention(leaves[0], leaves[1], keys, rank=rank, scale=SCALE, with_sum=True, **options)  # pyright: ignore[reportArgumentType]
    gradient = drawn(*found.out_BTHR.shape, seed=9).to(query.dtype)
    total = found.sum_BTK
    assert total is not None
    gradients = torch.autograd.grad((found.out_BTHR * gradient).sum(), leaves, materialize_grads=True)
    return [found.out_BTHR.detach(), found.lse_BTH, total, *gradients]


def same(mine: list[Tensor], wanted: list[Tensor], atol: float = 1e-5) -> None:
    for left, right in zip(mine, wanted, strict=True):
        assert left.dtype == right.dtype
        finite = right[right.isfinite()].float()
        scale = max([1.0, *finite.abs().flatten().tolist()])
        torch.testing.assert_close(left, right, rtol=0, atol=atol * scale)


def test_the_reference_is_the_definition():
    query, latent, keys = drawn(1, 4, 2, 5).double(), drawn(1, 4, 5, seed=1).double(), causal_keys(1, 4, 3)
    keys[0, 3] = torch.tensor([-1, 1, 3])
    out, lse, total = attend(query, latent, keys, rank=3, scale=SCALE)
    for t in range(4):
        read = latent[0, [key for key in keys[0, t].tolist() if key >= 0]]
        for head in range(2):
            logits = SCALE * read @ query[0, t, head]
            torch.testing.assert_close(out[0, t, head], logits.softmax(0) @ read[:, :3])
            torch.testing.assert_close(lse[0, t, head], logits.logsumexp(0))
        assert float(total[0, t].sum()) == pytest.approx(2)
        assert not total[0, t][keys[0, t] < 0].any()


def test_gradients_of_the_reference_in_float64():
    keys = causal_keys(2, 5, 3)
    keys[1, 2] = -1
    query, latent = drawn(2, 5, 2, 6).double().requires_grad_(), drawn(2, 5, 6, seed=1).double().requires_grad_()

    def function(query: Tensor, latent: Tensor) -> Tensor:
        return sparse_attention(query, latent, keys, rank=4, scale=SCALE).out_BTHR

    assert torch.autograd.gradcheck(function, (query, latent))


@pytest.mark.parametrize(
    ("batch", "length", "heads", "k", "rank", "rope"),
    [(2, 11, 4, 5, 16, 8), (1, 1, 1, 1, 16, 16), (1, 9, 3, 4, 24, 8), (1, 7, 24, 3, 16, 4), (1, 5, 64, 4, 16, 0),
     pytest.param(3, 6, 16, 70, 40, 8, marks=pytest.mark.slow), pytest.param(1, 37, 8, 33, 32, 16, marks=pytest.mark.slow)],
)  # fmt: skip
@pytest.mark.parametrize("deterministic", [True, False])
def test_kernels_are_the_reference(batch, length, heads, k, rank, rope, deterministic):
    query, latent = drawn(batch, length, heads, rank + rope), drawn(batch, length, rank + rope, seed=1)
    keys = causal_keys(batch, length, k)
    options = {"deterministic": deterministic}
    mine = pulled(query, latent, keys, rank, backend="triton", **options)
    same(mine, pulled(query, latent, keys, rank, backend="reference", **options))


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_packing_changes_rounding_alone(monkeypatch, queries):
    query, latent, keys = drawn(2, 13, 4, 24), drawn(2, 13, 24, seed=1), causal_keys(2, 13, 6)
    monkeypatch.setattr(configs, "queries_per_tile", lambda heads, topk: queries)
    same(pulled(query, latent, keys, 16, backend="triton"), pulled(query, latent, keys, 16, backend="reference"))


def test_float16():
    query, latent, keys = drawn(1, 12, 4, 24).half(), drawn(1, 12, 24, seed=1).half(), causal_keys(1, 12, 6)
    mine = pulled(query, latent, keys, 16, backend="triton")
    same(mine, pulled(query, latent, keys, 16, backend="reference"), 3e-3)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_skipped_entries_and_queries_without_keys(backend):
    query, latent, keys = drawn(1, 6, 2, 24), drawn(1, 6, 24, seed=1), causal_keys(1, 6, 4)
    noisy = keys.clone()
    noisy[noisy < 0] = torch.tensor([-(2**31), -123456, 6, 2**31 - 1], dtype=torch.int32).repeat(6)[
        : int((keys < 0).sum())
    ]
    keys[0, 3] = noisy[0, 3] = -1
    plain = pulled(query, latent, keys, 16, backend=backend)
    same(pulled(query, latent, noisy, 16, backend=backend), plain)
    out, lse, total, to_query, _ = plain
    assert not out[0, 3].any()
    assert not to_query[0, 3].any()
    assert (lse[0, 3] == math.inf).all()
    assert not total[0, 3].any()


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_what_nobody_selected_is_not_read(backend):
    query, latent = drawn(1, 9, 2, 24), drawn(1, 9, 24, seed=1)
    keys = causal_keys(1, 9, 3)
    keys[keys == 4] = -1
    wanted = pulled(query, latent, keys, 16, backend=backend)
    poisoned = latent.clone()
    poisoned[0, 4] = math.nan
    found = pulled(query, poisoned, keys, 16, backend=backend)
    assert all(torch.equal(left, right) for left, right in zip(found, wanted, strict=True))
    assert not found[-1][0, 4].any()


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_a_key_named_twice_counts_twice(backend):
    query, latent = drawn(1, 2, 2, 24), drawn(1, 2, 24, seed=1)
    keys = torch.tensor([[[0, 0, -1], [0, 1, 1]]], dtype=torch.int32)
    out, lse, total, *_ = pulled(query, latent, keys, 16, backend=backend)
    logits = SCALE * torch.einsum("hc,sc->hs", query[0, 1], latent[0, [0, 1, 1]])
    torch.testing.assert_close(out[0, 1], logits.softmax(-1) @ latent[0, [0, 1, 1], :16], rtol=0, atol=1e-5)
    torch.testing.assert_close(lse[0, 1], logits.logsumexp(-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(total[0, 1], logits.softmax(-1).sum(0), rtol=0, atol=1e-5)


def test_bits_are_the_same_again_and_in_another_order(monkeypatch):
    query, latent, keys = drawn(3, 10, 4, 24), drawn(3, 10, 24, seed=1), causal_keys(3, 10, 5)
    first = pulled(query, latent, keys, 16, backend="triton")
    empty = torch.empty

    def poisoned(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        return made.fill_(math.nan) if made.is_floating_point() else made.fill_(2**30)

    for module in (forward.torch, backward.torch):
        monkeypatch.setattr(module, "empty", poisoned)
    again = pulled(query, latent, keys, 16, backend="triton")
    monkeypatch.undo()
    assert all(torch.equal(left, right) for left, right in zip(first, again, strict=True))
    order = torch.tensor([2, 0, 1])
    gradient = drawn(3, 10, 4, 16, seed=9)
    leaves = [item[order].clone().requires_grad_() for item in (query, latent)]
    turned = sparse_attention(leaves[0], leaves[1], keys[order], rank=16, scale=SCALE, with_sum=True, backend="triton")
    gradients = torch.autograd.grad((turned.out_BTHR * gradient[order]).sum(), leaves)
    found = [turned.out_BTHR.detach(), turned.lse_BTH, turned.sum_BTK, *gradients]
    assert all(torch.equal(left[order], right) for left, right in zip(first, found, strict=True))


def test_the_workspace_is_bounded_and_chunks_change_rounding_alone(monkeypatch):
    query, latent, keys = drawn(2, 40, 4, 24), drawn(2, 40, 24, seed=1), causal_keys(2, 40, 5)
    whole = pulled(query, latent, keys, 16, backend="triton")
    gradients, limit, largest, empty = backward.gradients, 60_000, [], torch.empty

    def watched(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        largest.append(made.numel() * made.element_size())
        return made

    monkeypatch.setattr(backward, "gradients", lambda *a, **k: gradients(*a, **k, workspace_bytes=limit))
    monkeypatch.setattr(backward.torch, "empty", watched)
    same(pulled(query, latent, keys, 16, backend="triton"), whole, 1e-6)
    assert limit / 3 < max(largest) <= limit


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_decoding_is_the_last_row_of_the_whole(backend):
    query, latent, keys = drawn(3, 12, 4, 24), drawn(3, 12, 24, seed=1), causal_keys(3, 12, 5)
    whole = sparse_attention(query, latent, keys, rank=16, scale=SCALE, backend=backend).out_BTHR
    cache = torch.full((5, 20, 24), math.nan)
    rows = torch.tensor([4, 0, 2])
    cache[rows, :12] = latent
    step = sparse_attention_decode(query[:, -1], cache, rows, keys[:, -1], rank=16, scale=SCALE, backend=backend)
    torch.testing.assert_close(step, whole[:, -1], rtol=0, atol=1e-5)
    alone = sparse_attention_decode(
        query[1:2, -1], cache, rows[1:2], keys[1:2, -1], rank=16, scale=SCALE, backend=backend
    )
    assert torch.equal(alone, step[1:2])


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_nothing_to_do(backend):
    none = torch.zeros(1, 3, 0, dtype=torch.int32)
    out, lse, *_, to_query, to_latent = pulled(drawn(1, 3, 2, 24), drawn(1, 3, 24), none, 16, backend=backend)
    assert not (out.any())
    assert not (to_query.any())
    assert not (to_latent.any())
    assert (lse == math.inf).all()


def test_what_is_refused():
    query, latent, keys = drawn(1, 3, 2, 24), drawn(1, 3, 24), causal_keys(1, 3, 2)
    with pytest.raises(ValueError, match="must be"):
        sparse_attention(query, latent[..., :20], keys, rank=16, scale=SCALE)
    with pytest.raises(ValueError, match="rank must be 1 to 24"):
        sparse_attention(query, latent, keys, rank=25, scale=SCALE)
    with pytest.raises(UnsupportedError, match="float64"):
        sparse_attention(query.double(), latent.double(), keys, rank=16, scale=SCALE, backend="triton")
    with pytest.raises(UnsupportedError, match=r"topk is torch\.int64; make it int32"):
        sparse_attention(query, latent, keys.long(), rank=16, scale=SCALE, backend="triton")
    with pytest.raises(UnsupportedError, match="129 heads, at most 128"):
        sparse_attention(drawn(1, 3, 129, 24), latent, keys, rank=16, scale=SCALE, backend="triton")
    with pytest.raises(UnsupportedError, match="rank 2048"):
        sparse_attention(drawn(1, 3, 1, 2048), drawn(1, 3, 2048), keys, rank=2048, scale=SCALE, backend="triton")
