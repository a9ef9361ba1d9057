"""The lightning indexer: scores of keys, the selection by them, and the loss on selected keys (arXiv:2512.02556).

Shape letters: B sequences, T queries, S keys, N rows of a decode step, I indexer heads, J indexer head width, K selected
keys.

I[t, s] = sum over heads i of w[t, i] * relu(q[t, i] . k[s]) (section 2.1, eq. 1). Products are summed in float32, and
weights stay float32. For one backend, heads and widths, the score of a (query, key) pair has the same bits in
`index_select`, `index_select_decode` and `gathered_scores`, whatever the lengths, chunks and places in a batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dispatch import Backend, UnsupportedError, choose, load_kernels
from envsynth.kernels.indexer import compiled, reference, selecting

__all__ = ["ScaledKeys", "gathered_scores", "index_select", "index_select_decode", "selected_kl"]

_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_EIGHT_BITS = torch.float8_e4m3fn


class ScaledKeys(NamedTuple):
    """Keys in eight bits with a scale each."""

    values: Tensor
    """Keys, float8_e4m3fn [B, S, J] or a cache [slots, max length, J]."""
    scales: Tensor
    """Positive factor of each key, float32 [B, S] or [slots, max length]."""


@torch.no_grad()
def index_select(
    query_BTIJ: Tensor,
    key_BSJ: Tensor | ScaledKeys,
    weight_BTI: Tensor,
    k: int,
    *,
    starts_BT: Tensor | None = None,
    query_start_B: Tensor | None = None,
    chunk_rows: int | None = None,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    """Score the visible keys of each query, and keep the k best: score descending, then index ascending.

    Query t stands at position p = query_start + t, and sees keys start <= s <= p. Scores of a chunk of rows exist at a
    time, or, where there are many queries (`configs.walks`), only the scores that may be selected: at most
    `configs.WORKSPACE_BYTES`, or one row or tile of queries. No gradient: that of the selected keys is
    `gathered_scores`'.

    Args:
        query_BTIJ: Queries, float32, float16, bfloat16 or float8_e4m3fn [B, T, I, J]; scales of eight-bit queries
            belong into the weights.
        key_BSJ: Keys of the queries' type, [B, S, J].
        weight_BTI: Head weights, float32 [B, T, I].
        k: Keys kept per query (count, >= 1).
        starts_BT: First visible key of each query (the first token of its document), integer [B, T]; None for 0.
        query_start_B: Position of each sequence's first query, integer [B]; None for 0.
        chunk_rows: Rows that are scored at once, at most, or one tile of queries; None for what the workspace holds.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Keys, int32 [B, T, K], ascending, padded with -1, and their scores, float32 [B, T, K], 0 at padding (float64
        where a reference is given float64).

    Raises:
        ValueError: k < 1, or shapes disagree.
        UnsupportedError: the kernels cannot work on these types or sizes, or devices differ.
    """
    keys, scales = _unpacked(key_BSJ)
    B, _ = _check("index_select", k, query_BTIJ, keys, weight_BTI)
    if len(keys) != B:
        raise ValueError(f"index_select: {B} sequences of queries, {len(keys)} of keys")
    extras = [item for item in (scales, starts_BT, query_start_B) if item is not None]
    where = choose("index_select", query_BTIJ, keys, weight_BTI, *extras, backend=backend)
    if where == "triton" and torch.compiler.is_compiling():
        _check_types("index_select", query_BTIJ, keys, weight_BTI)
        return compiled.selection_operator(
            query_BTIJ, keys, weight_BTI, scales, k, starts_BT, query_start_B, chunk_rows
        )
    problem = selecting.problem_of(query_BTIJ, keys, weight_BTI, scales, starts_BT, query_start_B)
    return _select("index_select", problem, k, chunk_rows, where)


@torch.no_grad()
def index_select_decode(
    query_NIJ: Tensor,
    key_cache: Tensor | ScaledKeys,
    weight_NI: Tensor,
    rows_N: Tensor,
    lengths_N: Tensor,
    k: int,
    *,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor]:
    """Score the cached keys of one new token per row, and keep the k best, as `index_select` does, bit for bit.

    Args:
        query_NIJ: Queries, [N, I, J].
        key_cache: Cached keys of the queries' type, [slots, max length, J].
        weight_NI: Head weights, float32 [N, I].
        rows_N: Slot of each row, integer [N].
        lengths_N: Keys that each row sees, its own included, integer [N].
        k: Keys kept per row (count, >= 1).
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Keys, int32 [N, K], ascending, padded with -1, and their scores, float32 [N, K], 0 at padding.

    Raises:
        ValueError: k < 1, or shapes disagree.
        UnsupportedError: the kernels cannot work on these types or sizes, or devices differ.
    """
    keys, scales = _unpacked(key_cache)
    query_BTIJ, weight_BTI = query_NIJ[:, None], weight_NI[:, None]
    B, _ = _check("index_select_decode", k, query_BTIJ, keys, weight_BTI)
    if rows_N.shape != (B,) or lengths_N.shape != (B,):
        raise ValueError(
            f"index_select_decode: rows and lengths must be [{B}], got {[*rows_N.shape]}, {[*lengths_N.shape]}"
        )
    extras = [] if scales is None else [scales]
    where = choose("index_select_decode", query_NIJ, keys, weight_NI, rows_N, lengths_N, *extras, backend=backend)
    ends_BT = lengths_N.to(torch.int32)[:, None].clamp(max=keys.shape[1])
    starts_BT = torch.zeros_like(ends_BT)
    problem = selecting.Problem(query_BTIJ, keys, weight_BTI, scales, rows_N, starts_BT, ends_BT, False)
    topk_BTK, scores_BTK = _select("index_select_decode", problem, k, None, where)
    return topk_BTK.squeeze(1), scores_BTK.squeeze(1)


def gathered_scores(
    query_BTIJ: Tensor,
    key_BSJ: Tensor,
    weight_BTI: Tensor,
    topk_BTK: Tensor,
    *,
    known_BTK: Tensor | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Score the selected keys of each query, with gradients for queries, keys and weights.

    The sums of the kernels' gradients have a fixed order, so they repeat bitwise; those of the reference may not, because
    torch adds up what several queries give to one key in any order. The kernels keep what queries give to their keys for
    a chunk of queries, at most `configs.GRADIENT_WORKSPACE_BYTES`, or one row.

    Args:
        query_BTIJ: Queries, float32, float16 or bfloat16 [B, T, I, J].
        key_BSJ: Keys of the queries' type, [B, S, J].
        weight_BTI: Head weights, float32 [B, T, I].
        topk_BTK: Selected keys, integer [B, T, K], padded with -1; none twice in a row.
        known_BTK: What `index_select` gave for the same inputs, float32 [B, T, K]: the kernels need not score again.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Scores, float32 [B, T, K]; 0 and without gradient at padding.

    Raises:
        ValueError: shapes disagree.
        UnsupportedError: the kernels cannot work on these types, or devices differ.
    """
    B, T = _check("gathered_scores", 1, query_BTIJ, key_BSJ, weight_BTI)
    if len(key_BSJ) != B or topk_BTK.shape[:2] != (B, T) or topk_BTK.ndim != 3:
        raise ValueError(
            f"gathered_scores: {B} sequences of {T} queries, keys {[*key_BSJ.shape]}, selected {[*topk_BTK.shape]}"
        )
    if choose("gathered_scores", query_BTIJ, key_BSJ, weight_BTI, topk_BTK, backend=backend) == "reference":
        return reference.gathered_scores(query_BTIJ, key_BSJ, weight_BTI, topk_BTK)
    _check_types("gathered_scores", query_BTIJ, key_BSJ, weight_BTI)
    if query_BTIJ.dtype == _EIGHT_BITS:
        raise UnsupportedError(
            "gathered_scores: eight bits have no gradient; pass what they hold as bfloat16, or use index_select"
        )
    topk_BTK = topk_BTK.to(torch.int32).contiguous()
    tensors = (query_BTIJ, key_BSJ, weight_BTI)
    if topk_BTK.numel() == 0 or 0 in query_BTIJ.shape:
        return topk_BTK.to(torch.float32) * sum(item.to(torch.float32).sum() for item in tensors)
    if torch.compiler.is_compiling():
        return compiled.scores_operator(*tensors, topk_BTK, known_BTK)
    return _GatheredScores.apply(*map(selecting.rows_contiguous, tensors), topk_BTK, known_BTK)


def selected_kl(scores_BTK: Tensor, target_BTK: Tensor, topk_BTK: Tensor, *, backend: Backend | None = None) -> Tensor:
    """Measure how far index scores are from what attention looked at: KL(p || softmax(scores)) over selected keys.

    p is the target scaled to sum one, without gradient (section 2.1, eq. 4). The gradient at the scores is exactly
    softmax(scores) - p; forms that divide by softmax + eps suppress it where it matters.

    Args:
        scores_BTK: Index scores, [B, T, K].
        target_BTK: Attention probabilities of the same keys, summed over heads, [B, T, K].
        topk_BTK: Selected keys, integer [B, T, K], padded with -1.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Divergences in nats, float32 or wider [B, T]; 0, and without gradient, for a query without any mass or key.

    Raises:
        ValueError: shapes disagree.
        UnsupportedError: the kernels are given float64, or devices differ.
    """
    if scores_BTK.shape != target_BTK.shape or scores_BTK.shape != topk_BTK.shape:
        shapes = [tuple(item.shape) for item in (scores_BTK, target_BTK, topk_BTK)]
        raise ValueError(f"selected_kl: scores, target and selection must have one shape; shapes are {shapes}")
    where = choose("selected_kl", scores_BTK, target_BTK, topk_BTK, backend=backend)
    if where == "triton" and torch.float64 in (scores_BTK.dtype, target_BTK.dtype):
        raise UnsupportedError("selected_kl: kernels work in float32, got float64; use backend='reference'")
    if where == "reference" or scores_BTK.numel() == 0:
        return reference.selected_kl(scores_BTK, target_BTK, topk_BTK)
    rows = [item.detach().flatten(0, -2).contiguous() for item in (target_BTK, topk_BTK)]
    if torch.compiler.is_compiling():
        found_R = compiled.divergence_operator(scores_BTK.flatten(0, -2), *rows)
        return found_R.unflatten(0, scores_BTK.shape[:-1])
    return _SelectedKl.apply(scores_BTK.flatten(0, -2).contiguous(), *rows).unflatten(0, scores_BTK.shape[:-1])


class _GatheredScores(torch.autograd.Function):
    """Scores of selected keys; the kernels of both directions."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, weight: Tensor, topk: Tensor, known: Tensor | None) -> Tensor:
        ctx.save_for_backward(query, key, weight, topk)
        if known is not None:
            return known.detach().clone()
        return load_kernels("indexer.forward").gathered_scores(query, key, weight, topk)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, weight, topk = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1]
        kernels = load_kernels("indexer.backward")
        found = kernels.gradients(query, key, weight, topk, grads[0].contiguous(), with_key=wanted)
        grad_key = found.key_BSJ.to(key.dtype) if wanted else None
        return found.query_BTIJ.to(query.dtype), grad_key, found.weight_BTI, None, None


class _SelectedKl(torch.autograd.Function):
    """The loss on rows; the kernels of both directions."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, topk: Tensor) -> Tensor:
        ctx.save_for_backward(scores, target, topk)
        return load_kernels("indexer.divergence").divergence(scores, target, topk)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scores, target, topk = ctx.saved_tensors
        kernels = load_kernels("indexer.divergence")
        grad = kernels.divergence_gradient(scores, target, topk, grads[0].contiguous())
        return grad.to(scores.dtype), None, None


def _select(
    operator: str, problem: selecting.Problem, k: int, rows: int | None, where: Backend
) -> tuple[Tensor, Tensor]:
    """Select by kernels or by the reference."""
    if where == "reference":
        return selecting.select(problem, k, rows, with_kernels=False)
    _check_types(operator, problem.query_BTIJ, problem.key_BSJ, problem.weight_BTI)
    return selecting.select(selecting.whole(problem), k, rows, with_kernels=True)


def _unpacked(keys: Tensor | ScaledKeys) -> tuple[Tensor, Tensor | None]:
    """Give keys and scales."""
    return (keys, None) if isinstance(keys, Tensor) else (keys.values, keys.scales)


def _check(operator: str, k: int, query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor) -> tuple[int, int]:
    """Refuse shapes that disagree; give the numbers of sequences and queries.

    Raises:
        ValueError: they disagree, or k < 1.
    """
    if k < 1:
        raise ValueError(f"{operator}: k must be >= 1, got {k}")
    if query_BTIJ.ndim != 4 or key_BSJ.ndim != 3 or weight_BTI.shape != query_BTIJ.shape[:3]:
        shapes = [tuple(item.shape) for item in (query_BTIJ, key_BSJ, weight_BTI)]
        raise ValueError(f"{operator}: queries [B, T, I, J], keys [B, S, J] and weights [B, T, I] have shapes {shapes}")
    if key_BSJ.shape[2] != query_BTIJ.shape[3]:
        raise ValueError(f"{operator}: queries are {query_BTIJ.shape[3]} wide, keys {key_BSJ.shape[2]}")
    return query_BTIJ.shape[0], query_BTIJ.shape[1]


def _check_types(operator: str, query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor) -> None:
    """Refuse types and sizes that the kernels cannot work on.

    Raises:
        UnsupportedError: they cannot.
    """
    kind, (heads, width) = query_BTIJ.dtype, query_BTIJ.shape[2:]
    if kind not in (*_TYPES, _EIGHT_BITS) or key_BSJ.dtype != kind:
        raise UnsupportedError(
            f"{operator}: queries are {kind}, keys {key_BSJ.dtype}; kernels take float32, float16, bfloat16 or"
            " float8_e4m3fn, the same for both; convert them, or use backend='reference'"
        )
    if weight_BTI.dtype != torch.float32:
        raise UnsupportedError(f"{operator}: weights are {weight_BTI.dtype}; convert them to float32")
    if kind == _EIGHT_BITS and (heads & (heads - 1) or width & (width - 1) or width < 32):
        raise UnsupportedError(
            f"{operator}: {heads} heads of {width} in float8_e4m3fn; kernels need powers of two, and a width of at"
            " least 32: convert to bfloat16, which is exact"
        )
