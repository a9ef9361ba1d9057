"""The indexer's selection, gradients and loss: kernels in Triton's interpreter against the reference and the policy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.indexer import (
    ScaledKeys,
    configs,
    gathered_scores,
    index_select,
    index_select_decode,
    reference,
    selected_kl,
)
from envsynth.policy import indexer as policy_indexer
from envsynth.policy.selection import exact_topk

BACKENDS = ("reference", "triton")


def inputs(generator, B=2, T=21, heads=3, width=8, S=None, dtype=torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and weights of either sign."""
    query = torch.randn(B, T, heads, width, generator=generator).to(dtype)
    key = torch.randn(B, S or T, width, generator=generator).to(dtype)
    return query, key, torch.randn(B, T, heads, generator=generator)


def check_selection(topk_BTK: Tensor, scores_BTK: Tensor, dense_BTS: Tensor, visible_BTS: Tensor, k: int) -> None:
    """Compare scores with the reference's, and the selection with what the kernel's own scores say."""
    kept = topk_BTK >= 0
    want = dense_BTS.gather(2, topk_BTK.clamp(min=0).long()).masked_fill(~kept, 0.0)
    torch.testing.assert_close(scores_BTK, want, rtol=1e-5, atol=1e-5)
    exact = exact_topk(dense_BTS, visible_BTS, k)
    # Rounding may exchange neighbours at the boundary alone: the scores of both selections agree.
    best = dense_BTS.gather(2, exact.clamp(min=0).long()).masked_fill(exact < 0, 0.0)
    assert torch.equal(exact >= 0, kept)
    torch.testing.assert_close(want.sort(-1).values, best.sort(-1).values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "width"), [(1, 16), (3, 8), (4, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_index_select_of_causal_rows(heads, width, dtype, backend, generator):
    query, key, weight = inputs(generator, B=1, T=41, heads=heads, width=width, dtype=dtype)
    topk, scores = index_select(query, key, weight, 7, backend=backend)
    visible = torch.ones(1, 41, 41, dtype=torch.bool).tril()
    check_selection(topk, scores, policy_indexer.index_scores(query, key, weight), visible, 7)
    assert topk[:, 0].tolist() == [[0, *[-1] * 6]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_index_select_within_packed_documents(backend, generator):
    query, key, weight = inputs(generator, B=1, T=40)
    lengths = torch.tensor([1, 5, 6, 1, 4, 23])
    starts = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)[None]
    topk, scores = index_select(query, key, weight, 5, starts_BT=starts, backend=backend)
    place = torch.arange(40)
    visible = (place <= place[:, None]) & (place >= starts[0][:, None])
    check_selection(topk, scores, policy_indexer.index_scores(query, key, weight), visible[None], 5)
    assert ((topk < 0) | (topk >= starts[..., None])).all()
    # What lies in other documents has no influence, whatever it is.
    poisoned = key.clone()
    poisoned[:, :17] = float("nan")
    assert torch.equal(
        index_select(query, poisoned, weight, 5, starts_BT=starts, backend=backend)[0][:, 17:], topk[:, 17:]
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_prefill_chunks_decoding_and_training_agree_bitwise(dtype, backend, generator):
    T, k = 25, 6
    query, key, weight = inputs(generator, B=3, T=T, heads=4, width=16, dtype=dtype)
    query[:, ::5], weight[:, ::7] = query[:, :1], 0.0
    topk, scores = index_select(query, key, weight, k, backend=backend)
    for rows in (8, 2 * T):
        again = index_select(query, key, weight, k, chunk_rows=rows, backend=backend)
        assert torch.equal(again[0], topk)
        assert torch.equal(again[1], scores)
    first = torch.tensor([16, 11, 3])
    part = torch.stack([query[b, f : f + 9] for b, f in enumerate(first)])
    part_weight = torch.stack([weight[b, f : f + 9] for b, f in enumerate(first)])
    later = index_select(part, key, part_weight, k, query_start_B=first, backend=backend)
    for b, f in enumerate(first):
        assert torch.equal(later[0][b], topk[b, f : f + 9])
        assert torch.equal(later[1][b], scores[b, f : f + 9])
    cache = torch.full((5, T + 11, 16), float("nan"), dtype=dtype)
    rows, places = torch.tensor([4, 0, 2]), torch.tensor([T - 1, 5, 15])
    for b, (row, place) in enumerate(zip(rows, places, strict=True)):
        cache[row, : place + 1] = key[b, : place + 1]
    batch = torch.arange(3)
    decoded = index_select_decode(
        query[batch, places], cache, weight[batch, places], rows, places + 1, k, backend=backend
    )
    assert torch.equal(decoded[0], topk[batch, places])
    assert torch.equal(decoded[1], scores[batch, places])
    if backend == "triton":
        assert torch.equal(gathered_scores(query, key, weight, topk, backend=backend), scores)
    order = torch.tensor([2, 0, 1])
    permuted = index_select(query[order], key[order], weight[order], k, backend=backend)
    assert torch.equal(permuted[0], topk[order])
    assert torch.equal(permuted[1], scores[order])


@pytest.mark.parametrize("backend", BACKENDS)
def test_index_select_in_eight_bits(backend, generator):
    query, key, weight = inputs(generator, B=2, T=20, heads=4, width=32)
    scales = torch.rand(2, 20, generator=generator) + 0.5
    query, key = query.to(torch.float8_e4m3fn), key.to(torch.float8_e4m3fn)
    topk, scores = index_select(query, ScaledKeys(key, scales), weight, 5, backend=backend)
    dense = policy_indexer.index_scores(query.float(), key.float() * scales[..., None], weight)
    check_selection(topk, scores, dense, torch.ones(20, 20, dtype=torch.bool).tril().expand(2, -1, -1), 5)
    rows = torch.tensor([1, 0])
    decoded = index_select_decode(
        query[[1, 0], -1], ScaledKeys(key, scales), weight[[1, 0], -1], rows, torch.tensor([20, 20]), 5, backend=backend
    )
    assert torch.equal(decoded[0], topk[rows, -1])
    assert torch.equal(decoded[1], scores[rows, -1])


def test_the_plateau_of_zeros_is_broken_by_index(generator):
    query, key, weight = inputs(generator, B=1, T=70, heads=2, width=8)
    key[:, 10:50] = -query[:, :1, 0]
    query = query[:, :1, :1].expand(-1, 70, 2, -1).contiguous()
    weight[:] = torch.tensor([1.0, -0.75])
    for backend in BACKENDS:
        topk, scores = index_select(query, key, weight, 30, backend=backend)
        assert (scores[0, -1] == 0).sum() > 1, "the boundary is inside of the plateau"
        zeros = topk[0, -1][scores[0, -1] == 0].tolist()
        every = policy_indexer.index_scores(query, key, weight)[0, -1]
        assert zeros == (every == 0).nonzero().flatten()[: len(zeros)].tolist()


@pytest.mark.slow
def test_kernels_write_all_that_is_read(generator, monkeypatch):
    query, key, weight = inputs(generator, B=2, T=18, heads=2, width=8)
    selected = index_select(query, key, weight, 30, backend="triton")
    empty = torch.empty
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *size, **options: empty(*size, **options).fill_(
            float("nan") if options["dtype"].is_floating_point else -77
        ),
    )
    for got, want in zip(index_select(query, key, weight, 30, backend="triton"), selected, strict=True):
        assert torch.equal(got, want)
    leaves = [item.requires_grad_() for item in (query, key, weight)]
    results = []
    for _ in range(2):
        scores = gathered_scores(*leaves, selected[0], backend="triton")
        kl = selected_kl(scores, torch.ones_like(scores), selected[0], backend="triton")
        results.append([scores, kl, *torch.autograd.grad(kl.sum(), leaves)])
    assert all(item.isfinite().all() for item in results[0])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def some_selection(B: int, T: int, S: int, K: int, generator: torch.Generator) -> Tensor:
    """Selected keys without order of importance: the best of noise, some rows short, one empty."""
    ends = torch.randint(0, S + 1, (B, T, 1), generator=generator)
    ends[:, 0] = 0
    return exact_topk(torch.rand(B, T, S, generator=generator), torch.arange(S) < ends, K)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize(("heads", "width", "K"), [(1, 16, 5), (3, 8, 70), (20, 24, 9)])
def test_gradients_of_gathered_scores_are_those_of_the_reference(heads, width, K, dtype, generator, monkeypatch):
    query, key, weight = inputs(generator, B=2, T=9, S=67, heads=heads, width=width, dtype=dtype)
    topk = some_selection(2, 9, 67, K, generator)
    grad = torch.randn(topk.shape, generator=generator)
    wide = [item.double().requires_grad_() for item in (query, key, weight)]
    want = reference.gathered_scores(*wide, topk)
    want_grads = torch.autograd.grad(want, wide, grad.double())
    leaves = [item.clone().requires_grad_() for item in (query, key, weight)]
    got = gathered_scores(*leaves, topk, backend="triton")
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    loose = 2e-3 if dtype == torch.float16 else 1e-5
    got_grads = torch.autograd.grad(got, leaves, grad, retain_graph=True)
    for mine, theirs in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=loose, atol=10 * loose)
    # In chunks of four queries the keys' sums are cut, and no bit depends on the sequence's place in the batch.
    monkeypatch.setattr(configs, "GRADIENT_WORKSPACE_BYTES", 4 * K * width * 4)
    chunked = torch.autograd.grad(got, leaves, grad)
    for mine, theirs in zip(chunked, want_grads, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=loose, atol=10 * loose)
    swapped = [item.flip(0).detach().requires_grad_() for item in leaves]
    got = gathered_scores(*swapped, topk.flip(0), backend="triton")
    for mine, theirs in zip(torch.autograd.grad(got, swapped, grad.flip(0)), chunked, strict=True):
        assert torch.equal(mine, theirs.flip(0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_and_unselected_keys_have_no_influence(backend, generator):
    query, key, weight = inputs(generator, B=1, T=6, S=30)
    topk = some_selection(1, 6, 30, 8, generator)
    topk[topk == 0] = -1
    topk = topk.where(topk >= 0, 99).sort(-1).values.where(topk.where(topk >= 0, 99).sort(-1).values < 99, -1)
    unread = torch.ones(30, dtype=torch.bool)
    unread[topk[topk >= 0].long()] = False
    assert unread[0]
    key[:, unread] = float("nan")
    leaves = [item.requires_grad_() for item in (query, key, weight)]
    scores = gathered_scores(*leaves, topk, backend=backend)
    assert scores.isfinite().all()
    assert (scores[topk < 0] == 0).all()
    grad_query, grad_key, grad_weight = torch.autograd.grad(scores.sum(), leaves)
    assert grad_query.isfinite().all()
    assert grad_weight.isfinite().all()
    assert (grad_key[:, unread] == 0).all()
    assert (grad_query[:, 0] == 0).all()


def test_known_scores_are_given_back_with_gradients(generator):
    query, key, weight = inputs(generator, B=1, T=12)
    topk, known = index_select(query, key, weight, 4, backend="triton")
    leaves = [item.requires_grad_() for item in (query, key, weight)]
    spared = gathered_scores(*leaves, topk, known_BTK=known, backend="triton")
    scored = gathered_scores(*leaves, topk, backend="triton")
    assert torch.equal(spared, scored)
    both = [torch.autograd.grad(item.square().sum(), leaves) for item in (spared, scored)]
    assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))


def test_references_pass_gradcheck(generator):
    query, key, weight = (item.double().requires_grad_() for item in inputs(generator, B=1, T=4, S=9))
    topk = some_selection(1, 4, 9, 5, generator)
    assert torch.autograd.gradcheck(lambda *args: reference.gathered_scores(*args, topk), (query, key, weight))
    scores = torch.randn(1, 4, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.rand(1, 4, 5, dtype=torch.float64, generator=generator)
    target[:, :, 1] = 0.0
    assert torch.autograd.gradcheck(lambda item: reference.selected_kl(item, target, topk), (scores,))


@pytest.mark.parametrize("K", [1, 13, 600])
def test_selected_kl_is_that_of_the_policy(K, generator):
    topk = some_selection(2, 7, 2 * K, K, generator)
    target = torch.rand(topk.shape, generator=generator) * (torch.rand(topk.shape, generator=generator) < 0.6)
    target[0, 3] = 0.0
    scores = 20 * torch.randn(topk.shape, generator=generator)
    grad = torch.randn(2, 7, generator=generator)
    results = []
    for give in (
        lambda item: policy_indexer.indexer_kl(item, target, topk >= 0),
        lambda item: selected_kl(item, target, topk, backend="reference"),
        lambda item: selected_kl(item, target, topk, backend="triton"),
    ):
        leaf = scores.clone().requires_grad_()
        kl = give(leaf)
        results.append((kl, torch.autograd.grad(kl, leaf, grad)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[2][0], results[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(results[2][1], results[0][1], rtol=1e-5, atol=1e-6)
    assert (results[2][0][:, 0] == 0).all(), "rows without keys"
    assert results[2][0][0, 3] == 0, "a row without mass"
    assert (results[2][1][0, 3] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_inputs_give_padding(backend):
    topk, scores = index_select(torch.zeros(2, 0, 3, 8), torch.zeros(2, 5, 8), torch.zeros(2, 0, 3), 4, backend=backend)
    assert topk.shape == scores.shape == (2, 0, 4)
    topk, _ = index_select(torch.zeros(2, 3, 3, 8), torch.zeros(2, 0, 8), torch.zeros(2, 3, 3), 4, backend=backend)
    assert topk.tolist() == [[[-1] * 4] * 3] * 2


def test_indexer_refuses_what_it_cannot_do(generator):
    query, key, weight = inputs(generator, B=1, T=5)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        index_select(query, key, weight, 0)
    with pytest.raises(ValueError, match="queries are 8 wide, keys 7"):
        index_select(query, key[..., 1:], weight, 2)
    with pytest.raises(ValueError, match="have shapes"):
        index_select(query, key, weight[..., 1:], 2)
    with pytest.raises(ValueError, match="1 sequences of queries, 2 of keys"):
        index_select(query, key.repeat(2, 1, 1), weight, 2)
    with pytest.raises(UnsupportedError, match=r"keys torch\.float16.*the same for both"):
        index_select(query, key.half(), weight, 2, backend="triton")
    with pytest.raises(UnsupportedError, match=r"weights are torch\.float16"):
        index_select(query, key, weight.half(), 2, backend="triton")
    eight = [item.to(torch.float8_e4m3fn) for item in (query, key)]
    with pytest.raises(UnsupportedError, match="3 heads of 8 in float8_e4m3fn"):
        index_select(*eight, weight, 2, backend="triton")
    with pytest.raises(ValueError, match=r"rows and lengths must be \[5\]"):
        index_select_decode(query[0], key, weight[0], torch.zeros(4), torch.zeros(5), 2)
    with pytest.raises(ValueError, match="gathered_scores: 1 sequences of 5 queries"):
        gathered_scores(query, key, weight, torch.zeros(1, 4, 2, dtype=torch.int32))
    wide = [item.repeat(1, 1, 1, 4) if item.ndim == 4 else item.repeat(1, 1, 4) for item in eight]
    with pytest.raises(UnsupportedError, match="eight bits have no gradient"):
        gathered_scores(
            wide[0][:, :, :2], wide[1], weight[..., :2], torch.zeros(1, 5, 2, dtype=torch.int32), backend="triton"
        )
    with pytest.raises(ValueError, match=r"must have one shape"):
        selected_kl(weight, weight[..., 1:], weight.int())
    with pytest.raises(UnsupportedError, match="kernels work in float32, got float64; use backend='reference'"):
        selected_kl(weight.double(), weight, weight.int(), backend="triton")
