"""Log-probabilities without logits: against the policy's own functions, and kernels against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.logprobs import LogProbs, backward, configs, linear_log_probs, pack_kept
from envsynth.kernels.logprobs.reference import unpack
from envsynth.kernels.logprobs.tiles import parts_of
from envsynth.policy.precision import float32_linear
from envsynth.policy.sampling import KeptSets, entropy, kept_log_probs, kept_mass


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def record(rows: int, vocabulary: int, targets: Tensor, seed: int = 0) -> KeptSets:
    """Kept sets of about half of the tokens, every third row everything."""
    keep = drawn(rows, vocabulary, seed=seed) > 0
    keep[torch.arange(rows), targets.clamp(min=0)] = True
    lengths = torch.where(torch.arange(rows) % 3 == 0, 0, keep.sum(-1))
    keep[::3] = False
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
    return KeptSets(ids=keep.nonzero()[:, 1].int(), offsets=offsets)


def pulled(hidden: Tensor, weight: Tensor, targets: Tensor, **options: object) -> tuple[LogProbs, Tensor, Tensor]:
    """Results, and the gradients of hidden states and head."""
    leaves = [item.clone().requires_grad_() for item in (hidden, weight)]
    found = linear_log_probs(leaves[0], leaves[1], targets, **options)  # pyright: ignore[reportArgumentType]
    finite = found.log_probs_N.masked_fill(found.log_probs_N.isinf(), 0.0)
    to_hidden, to_weight = torch.autograd.grad((finite * drawn(len(targets), seed=9)).sum(), leaves)
    return found, to_hidden, to_weight


def same(mine: tuple[LogProbs, Tensor, Tensor], wanted: tuple[LogProbs, Tensor, Tensor], atol: float = 1e-5) -> None:
    for left, right in zip((*mine[0], *mine[1:]), (*wanted[0], *wanted[1:]), strict=True):
        finite = right.detach()[right.isfinite()].float()
        scale = max([1.0, *finite.abs().flatten().tolist()])
        torch.testing.assert_close(
            left.detach(), right.detach(), rtol=0, atol=0 if left.dtype == torch.bool else atol * scale
        )


@pytest.mark.parametrize("vocabulary", [1, 31, 33, 588])
def test_reference_is_what_the_policy_computes(vocabulary):
    hidden, weight = drawn(17, 32), drawn(vocabulary, 32, seed=1)
    targets = torch.arange(17) * 5 % vocabulary
    kept = record(17, vocabulary, targets)
    logits = float32_linear(hidden, weight)
    found = linear_log_probs(
        hidden, weight, targets, temperature=0.7, keep_words_NW=pack_kept(kept.ids, kept.offsets, vocabulary)
    )
    assert torch.equal(found.log_probs_N, kept_log_probs(logits, targets, kept, 0.7))
    torch.testing.assert_close(found.entropy_N, entropy(logits, 0.7), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.mass_N, kept_mass(logits, kept, 0.7), rtol=0, atol=1e-5)
    assert torch.equal(found.is_best_N, logits.argmax(-1) == targets)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(1, 16, 1), (3, 48, 33), (70, 32, 130), (5, 24, 588)])
def test_kernels_are_the_reference(rows, width, vocabulary, masked):
    hidden, weight = drawn(rows, width), drawn(vocabulary, width, seed=1)
    targets = torch.arange(rows) * 7 % vocabulary
    targets[2::4] = -1
    kept = record(rows, vocabulary, targets)
    words = pack_kept(kept.ids, kept.offsets, vocabulary) if masked else None
    options = {"temperature": 2.0, "keep_words_NW": words}
    same(
        pulled(hidden, weight, targets, backend="triton", **options),
        pulled(hidden, weight, targets, backend="reference", **options),
    )


def test_half_precision_and_mixed_types():
    hidden, weight, targets = drawn(9, 32), drawn(70, 32, seed=1), torch.arange(9)
    for kinds in ((torch.float16, torch.float16), (torch.float16, torch.float32)):
        halves = (hidden.to(kinds[0]), weight.to(kinds[1]))
        mine, wanted = (pulled(*halves, targets, backend=backend) for backend in ("triton", "reference"))
        assert (mine[1].dtype, mine[2].dtype) == kinds
        same((mine[0], mine[1].float(), mine[2].float()), (wanted[0], wanted[1].float(), wanted[2].float()), 2e-3)


def test_gradients_of_the_reference_in_float64():
    hidden, weight = drawn(5, 6).double().requires_grad_(), drawn(7, 6, seed=1).double().requires_grad_()
    targets = torch.tensor([0, 3, -1, 6, 2])
    kept = record(5, 7, targets)
    words = pack_kept(kept.ids, kept.offsets, 7)

    def function(hidden: Tensor, weight: Tensor) -> Tensor:
        return linear_log_probs(hidden, weight, targets, temperature=0.5, keep_words_NW=words).log_probs_N

    assert torch.autograd.gradcheck(function, (hidden, weight))


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_tokens_outside_the_kept_set(backend):
    hidden, weight = drawn(3, 16), drawn(64, 16, seed=1)
    words = pack_kept(torch.tensor([31, 32, 5, 63]), torch.tensor([0, 2, 3, 4]), 64)
    targets = torch.tensor([32, 6, 63])
    found, to_hidden, to_weight = pulled(hidden, weight, targets, keep_words_NW=words, backend=backend)
    assert found.log_probs_N[1] == -math.inf
    assert found.log_probs_N[2] == 0, "the only token of its set"
    assert not to_hidden[1].any()
    assert not to_weight[[5, 6]].any(), "a row whose token is outside gives no gradient"
    outside = [token for token in range(64) if token not in (31, 32, 63)]
    assert not to_weight[outside].any()
    assert to_weight[31].any()


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_huge_logits_and_no_rows(backend):
    weight = drawn(40, 16)
    hidden = torch.stack((1e4 * weight[3], -1e4 * weight[3], torch.zeros(16)))
    found, *gradients = pulled(hidden, weight, torch.tensor([3, 3, 3]), backend=backend)
    assert all(item.isfinite().all() for item in (*found[:3], *gradients))
    assert found.log_probs_N[2].item() == pytest.approx(-math.log(40), abs=1e-6)
    nothing, *gradients = pulled(torch.zeros(0, 16), weight, torch.zeros(0, dtype=torch.int64), backend=backend)
    assert nothing.log_probs_N.shape == (0,)
    assert [item.shape for item in gradients] == [(0, 16), (40, 16)]
    assert not gradients[1].any()


@pytest.fixture(params=["formed", "kept", "parts", "parts, kept"])
def way(request, monkeypatch):
    """How the backward pass gets its logits, and whether the head is cut into parts as bfloat16 needs it."""
    monkeypatch.setattr(configs, "keeps_logits", lambda *sizes: request.param.endswith("kept"))
    monkeypatch.setattr(configs, "PIECE", 128)
    if request.param.startswith("parts"):
        # The interpreter cannot multiply bfloat16: float32 holds the same numbers.
        monkeypatch.setattr(configs, "part_type", lambda *kinds: torch.float32)
    return request.param


def equal(left: tuple[LogProbs, Tensor, Tensor], right: tuple[LogProbs, Tensor, Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip((*left[0], *left[1:]), (*right[0], *right[1:]), strict=True))


def case(rows: int, width: int, vocabulary: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states of eight bits, a head, targets of which some are ignored, and packed kept sets."""
    targets = torch.arange(rows) * 7 % vocabulary
    kept = record(rows, vocabulary, targets)
    targets[2::5] = -1
    words = pack_kept(kept.ids, kept.offsets, vocabulary)
    return drawn(rows, width).bfloat16().float(), drawn(vocabulary, width, seed=1), targets, words


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("rows", "width", "vocabulary"), [(1, 16, 1), (70, 48, 130), (5, 24, 300)])
def test_every_way_is_the_reference(way, rows, width, vocabulary, masked):
    hidden, weight, targets, words = case(rows, width, vocabulary)
    options = {"temperature": 0.7, "keep_words_NW": words if masked else None}
    mine = pulled(hidden, weight, targets, backend="triton", **options)
    # Of parts, the upper sixteen bits make the gradient of hidden states, which is bfloat16 then.
    wanted = pulled(hidden, weight, targets, backend="reference", **options)
    same((mine[0], mine[2], mine[2]), (wanted[0], wanted[2], wanted[2]))
    same((mine[0], mine[1], mine[2]), (wanted[0], wanted[1], wanted[2]), 1e-4 if way.startswith("parts") else 1e-5)


@pytest.mark.parametrize("parts", [False, True])
def test_kept_logits_and_logits_formed_again_give_the_same_bits(monkeypatch, parts):
    if parts:
        monkeypatch.setattr(configs, "part_type", lambda *kinds: torch.float32)
    hidden, weight, targets, words = case(70, 32, 130)
    for keep in (None, words):
        found = []
        for kept in (False, True):
            monkeypatch.setattr(configs, "keeps_logits", lambda *sizes, kept=kept: kept)
            found.append(pulled(hidden, weight, targets, keep_words_NW=keep, backend="triton"))
        assert equal(*found)
        without = linear_log_probs(hidden, weight, targets, keep_words_NW=keep, backend="triton")
        assert all(torch.equal(*pair) for pair in zip(without, found[0][0], strict=True)), "no gradient wanted"


def test_scratch_of_nan_and_another_order_give_the_same_bits(way, monkeypatch):
    hidden, weight, targets, words = case(70, 32, 300)
    options = {"keep_words_NW": words, "backend": "triton"}
    first = pulled(hidden, weight, targets, **options)
    empty = torch.empty

    def poisoned(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        return made.fill_(math.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)
    again = pulled(hidden, weight, targets, **options)
    monkeypatch.setattr(torch, "empty", empty)
    assert equal(first, again)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    turned = linear_log_probs(hidden[order], weight, targets[order], keep_words_NW=words[order], backend="triton")
    assert all(torch.equal(left[order], right) for left, right in zip(first[0], turned, strict=True))


@pytest.mark.parametrize("vocabulary", [100, 200])
def test_bits_of_a_row_do_not_depend_on_the_batch(way, vocabulary):
    hidden, weight, targets, words = case(70, 16, vocabulary)
    for keep in (None, words):
        whole = linear_log_probs(hidden, weight, targets, keep_words_NW=keep, backend="triton")
        for rows in (slice(0, 1), slice(3, 69), slice(69, 70)):
            some = None if keep is None else keep[rows]
            part = linear_log_probs(hidden[rows], weight, targets[rows], keep_words_NW=some, backend="triton")
            assert all(torch.equal(left[rows], right) for left, right in zip(whole, part, strict=True))


def test_a_retained_graph_gives_the_same_gradients_twice(way):
    hidden, weight, targets, words = case(70, 32, 130)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    found = linear_log_probs(hidden, weight, targets, keep_words_NW=words, backend="triton")
    total = (found.log_probs_N * drawn(70, seed=3)).sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert all(item.any() for item in first)
    assert all(torch.equal(*pair) for pair in zip(first, torch.autograd.grad(total, leaves), strict=True))
    with pytest.raises(RuntimeError, match="a second time"):
        torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_the_gradient_that_is_wanted(way, wanted):
    hidden, weight, targets, words = case(9, 16, 70)
    both = pulled(hidden, weight, targets, keep_words_NW=words, backend="triton")[1:]
    leaves = [hidden, weight]
    leaves[wanted].requires_grad_()
    found = linear_log_probs(hidden, weight, targets, keep_words_NW=words, backend="triton")
    (found.log_probs_N * drawn(9, seed=9)).sum().backward()
    assert torch.equal(leaves[wanted].grad, both[wanted])
    assert leaves[1 - wanted].grad is None


def test_the_workspace_is_bounded_and_does_not_change_the_result(way, monkeypatch):
    hidden, weight, targets, words = case(50, 16, 70)
    whole = pulled(hidden, weight, targets, keep_words_NW=words, backend="triton")
    largest = []
    empty = torch.empty

    def watched(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        if made.dim() == 1:
            largest.append(made.numel() * made.element_size())
        return made

    # Three rows of 80 float32 numbers in three parts, or nine.
    limit = 3 * 3 * 80 * 4
    monkeypatch.setattr(configs, "WORKSPACE_BYTES", limit)
    monkeypatch.setattr(torch, "empty", watched)
    parts = pulled(hidden, weight, targets, keep_words_NW=words, backend="triton")
    assert max(largest) == limit
    same(parts, whole, 1e-6)


def test_the_budget_decides_whether_logits_are_kept(monkeypatch):
    half, mixed = (torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32)
    assert not configs.keeps_logits(65536, 256, 588, half, "ieee"), "forming them again is quicker"
    assert configs.keeps_logits(65536, 512, 8192, mixed, "ieee")
    assert configs.keeps_logits(65536, 1024, 8192, half, "ieee")
    assert not configs.keeps_logits(16384, 1024, 129280, mixed, "ieee"), "8.5 GB"
    assert configs.rows_at_once(65536, 8192, 3 * 8192 * 2) == 21846, "half of the logits: a third of the rows"
    assert configs.rows_at_once(65536, 592, 592 * 2) == 65536, "in half precision that is all rows"
    assert configs.rows_at_once(10, 10**9, 10**10) == 1
    hidden, weight, targets, _ = case(70, 64, 130)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda item: saved.append(item.numel()) or item, lambda item: item):
        pulled(hidden, weight, targets, backend="triton")
        assert max(saved) == 70 * 144
        monkeypatch.setattr(configs, "KEEP_BYTES", 70 * 144 * 4 - 1)
        saved.clear()
        pulled(hidden, weight, targets, backend="triton")
        assert max(saved) == 130 * 64


def test_results_may_be_changed_before_the_backward_pass():
    hidden, weight, targets, _ = case(9, 16, 70)
    hidden.requires_grad_()
    wanted = torch.autograd.grad(linear_log_probs(hidden, weight, targets, backend="triton").log_probs_N.sum(), hidden)
    found = linear_log_probs(hidden, weight, targets, backend="triton")
    found.log_probs_N.mul_(1.0)
    found.entropy_N.zero_()
    assert torch.equal(torch.autograd.grad(found.log_probs_N.sum(), hidden)[0], wanted[0])


def test_a_gradient_that_is_not_a_number_does_not_leave_rows_without_one(way):
    hidden, weight, targets, words = case(9, 16, 70)
    hidden.requires_grad_()
    found = linear_log_probs(hidden, weight, targets, keep_words_NW=words, backend="triton")
    coming = torch.where(targets < 0, math.nan, 1.0)
    (to_hidden,) = torch.autograd.grad(found.log_probs_N, hidden, coming)
    assert to_hidden.isfinite().all()
    assert not to_hidden[targets < 0].any()
    assert to_hidden[targets >= 0].any()


def test_kept_logits_far_below_the_highest(way):
    hidden, weight = torch.full((2, 16), 8.0), torch.zeros(70, 16)
    weight[3], weight[40], weight[41] = 40.0, -40.0, -40.0
    words = pack_kept(torch.tensor([40, 41, 40]), torch.tensor([0, 2, 3]), 70)
    found, to_hidden, _ = pulled(hidden, weight, torch.tensor([41, 40]), keep_words_NW=words, backend="triton")
    assert found.log_probs_N.tolist() == [pytest.approx(-math.log(2), abs=1e-6), 0.0]
    assert not found.mass_N.any()
    assert not to_hidden[1].any(), "the only token of its set"


def test_three_parts_sum_to_the_number():
    weight = torch.cat((drawn(40, 24), drawn(40, 24, seed=1) * 1e-20, drawn(1, 24, seed=2) * 1e30))
    kind, configs_kind = torch.bfloat16, configs.part_type(torch.bfloat16, torch.float32)
    assert configs_kind == kind
    parts = parts_of(torch.zeros(1, 24, dtype=kind), weight)
    assert (parts.dtype, parts.shape) == (kind, (81, 3, 24))
    assert torch.equal(parts.double().sum(1), weight.double())
    assert (parts[:, 0].abs() <= parts[:, 2].abs()).all()


@pytest.mark.parametrize("older", [False, True])
def test_shorter_products_that_a_caller_allowed_are_put_back(older):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        if older:
            matmul.allow_tf32 = True
        else:
            matmul.fp32_precision = "tf32"
        with backward._exact_products(torch.float32):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
        with backward._exact_products(torch.bfloat16):
            assert matmul.fp32_precision == "tf32", "it does not matter there"
    finally:
        if older:
            matmul.allow_tf32 = False
        matmul.fp32_precision = before


def test_many_pieces_of_the_vocabulary_give_the_same(monkeypatch):
    hidden, weight, targets, words = case(3, 16, 700)
    whole = pulled(hidden, weight, targets, keep_words_NW=words, backend="triton")
    monkeypatch.setattr(configs, "PIECE", 128)
    assert configs.pieces_for(700) == 6
    same(pulled(hidden, weight, targets, keep_words_NW=words, backend="triton"), whole, 1e-6)


def test_a_small_head_sums_rows_in_pieces(monkeypatch):
    assert configs.head_pieces(65536, 588, 256) == 16
    assert configs.head_pieces(65536, 129280, 1024) == 1
    assert configs.head_pieces(1500, 588, 256) == 1
    slopes, hidden = drawn(37, 20), drawn(37, 8, seed=1)
    whole = backward._to_head(slopes, hidden)
    monkeypatch.setattr(configs, "head_pieces", lambda rows, vocabulary, width: 5)
    torch.testing.assert_close(backward._to_head(slopes, hidden), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(whole, slopes.t() @ hidden)


def test_packed_bits_are_the_record():
    kept = record(11, 77, torch.arange(11), seed=3)
    keep = unpack(pack_kept(kept.ids, kept.offsets, 77), 77)
    for row in range(11):
        ids = kept.ids[kept.offsets[row] : kept.offsets[row + 1]].tolist()
        assert keep[row].nonzero()[:, 0].tolist() == (ids or list(range(77)))


def test_what_is_refused():
    hidden, weight, targets = drawn(2, 16), drawn(40, 16), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"must be \[N, D\], \[V, D\] and \[N\], got \[\[2, 16\], \[40, 16\], \[1\]\]"):
        linear_log_probs(hidden, weight, targets[:1])
    with pytest.raises(ValueError, match="above 0, got 0"):
        linear_log_probs(hidden, weight, targets, temperature=0)
    with pytest.raises(ValueError, match=r"int32 \[2, 2\], got torch.int64 \[2, 2\]"):
        linear_log_probs(hidden, weight, targets, keep_words_NW=torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(UnsupportedError, match="float64"):
        linear_log_probs(hidden.double(), weight.double(), targets, backend="triton")
