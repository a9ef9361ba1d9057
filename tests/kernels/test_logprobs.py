"""Log-probabilities without logits: against the policy's own functions, and kernels against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from envsynth.kernels.dispatch import UnsupportedError
from envsynth.kernels.logprobs import LogProbs, backward, configs, forward, linear_log_probs, pack_kept
from envsynth.kernels.logprobs.reference import unpack
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


def test_bits_are_the_same_again_and_in_another_order(monkeypatch):
    hidden, weight, targets = drawn(70, 32), drawn(130, 32, seed=1), torch.arange(70)
    first = pulled(hidden, weight, targets, backend="triton")
    empty = torch.empty

    def poisoned(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        return made.fill_(math.nan) if made.is_floating_point() else made

    for module in (forward.torch, backward.torch):
        monkeypatch.setattr(module, "empty", poisoned)
    again = pulled(hidden, weight, targets, backend="triton")
    monkeypatch.undo()
    for left, right in zip((*first[0], *first[1:]), (*again[0], *again[1:]), strict=True):
        assert torch.equal(left, right)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(1))
    turned = linear_log_probs(hidden[order], weight, targets[order], backend="triton")
    assert all(torch.equal(left[order], right) for left, right in zip(first[0], turned, strict=True))


def test_the_workspace_is_bounded_and_does_not_change_the_result(monkeypatch):
    hidden, weight, targets = drawn(50, 16), drawn(70, 16, seed=1), torch.arange(50)
    whole = pulled(hidden, weight, targets, backend="triton")
    largest = []
    empty = torch.empty

    def watched(*shape: object, **options: object) -> Tensor:
        made = empty(*shape, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]
        largest.append(made.numel() * made.element_size())
        return made

    monkeypatch.setattr(backward.torch, "empty", watched)
    gradients, limit = backward.gradients, 8 * 70 * 4
    monkeypatch.setattr(backward, "gradients", lambda *a, **k: gradients(*a, **k, workspace_bytes=limit))
    parts = pulled(hidden, weight, targets, backend="triton")
    assert max(largest) <= limit
    same(parts, whole, 1e-6)


def test_many_pieces_of_the_vocabulary_give_the_same(monkeypatch):
    hidden, weight, targets = drawn(3, 16), drawn(700, 16, seed=1), torch.tensor([0, 699, 400])
    assert configs.pieces_for(3, 700, configs.tiles_for(torch.float32, torch.float32)) > 1
    several = pulled(hidden, weight, targets, backend="triton")
    monkeypatch.setattr(configs, "pieces_for", lambda *sizes: 1)
    same(several, pulled(hidden, weight, targets, backend="triton"), 1e-6)


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
