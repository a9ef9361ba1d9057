"""Attention over selected keys, all heads reading the same latents (DeepSeek-V3.2, arXiv:2512.02556, section 2.1).

Shape letters: B sequences, T queries, S keys, N rows of a decode step, H heads, K selected keys, R values (`rank`), C
keys: a latent's R numbers and its rotary part. A key is the whole latent, its value the first R numbers.

For query t, head h and the entries k of its row of selected keys: `logit_k = scale * query_th . latent_(topk_tk)`,
`p = softmax(logit)`, `out_th = sum_k p_k * latent_(topk_tk)[:R]`.

Few heads are too few rows for a matrix instruction. So the backward pass takes tiles of neighbouring queries, whose
selections overlap, and reads the union of their keys once; each query counts only its own keys. `configs` says how many
queries. One consequence: a NaN in a latent reaches the gradients of all queries of a tile in which any selects it; one
that no query of the tile selects is never read. The forward pass, and decoding, read each query's own keys alone.

A key that a row names twice counts twice. `rank` need not be a power of two: it is padded where it is multiplied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dispatch import Backend, UnsupportedError, choose, load_kernels
from envsynth.kernels.sparse_attention import configs, reference, running
from envsynth.kernels.sparse_attention.compiled import attention_operator

_NAME = running.NAME
_MOST_LATENTS = 2**31 // configs.MOST_QUERIES
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class SparseAttention(NamedTuple):
    """What attention over selected keys gives."""

    out_BTHR: Tensor
    """Result in the query's dtype, [B, T, H, R]; 0 where a query has no valid key."""
    lse_BTH: Tensor
    """Natural log-sum-exp of the logits, float32 [B, T, H], without gradient; +inf where a query has no valid key."""
    sum_BTK: Tensor | None
    """Probability of each entry summed over heads, float32 [B, T, K], without gradient; None unless asked for."""


def sparse_attention(
    query_BTHC: Tensor,
    latent_BSC: Tensor,
    topk_BTK: Tensor,
    *,
    rank: int,
    scale: float,
    with_sum: bool = False,
    deterministic: bool = True,
    backend: Backend | None = None,
) -> SparseAttention:
    """Attend to the selected latents of each query; differentiable in query and latent.

    Args:
        query_BTHC: Queries, float32, float16 or bfloat16 (the reference: float64 too), [B, T, H, C].
        latent_BSC: Latents of the same dtype, [B, S, C].
        topk_BTK: Selected keys, int32 [B, T, K]; entries below 0 or from S on are skipped, wherever they stand.
        rank: Width R of a value (1 to C).
        scale: Factor on the logits.
        with_sum: Also sum the probabilities over heads: the teacher of the indexer.
        deterministic: Add up the gradients of latents in a fixed order, in a workspace of at most
            `configs.WORKSPACE_BYTES`, or one tile of every sequence where that is more; else with atomics.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Result, log-sum-exp and, if asked for, the sum over heads.

    Raises:
        ValueError: shapes disagree, or rank is not within 1 to C.
        UnsupportedError: the kernels cannot take these dtypes, so many heads, or so wide a value.
    """
    _check_shapes(query_BTHC, latent_BSC, topk_BTK, rank)
    chosen = choose(_NAME, query_BTHC, latent_BSC, topk_BTK, backend=backend)
    if chosen == "reference":
        found = reference.attend(query_BTHC, latent_BSC, topk_BTK, rank=rank, scale=scale)
        return SparseAttention(found[0], found[1], found[2] if with_sum else None)
    _check_kernels(query_BTHC, latent_BSC, topk_BTK, rank)
    if torch.compiler.is_compiling():
        out, lse, sums = attention_operator(query_BTHC, latent_BSC, topk_BTK, rank, scale, with_sum, deterministic)
        return SparseAttention(out, lse, sums if with_sum else None)
    call = running.Call(rank, scale, with_sum, deterministic)
    return SparseAttention(*_Kernels.apply(query_BTHC, latent_BSC, topk_BTK, call))


def sparse_attention_decode(
    query_NHC: Tensor,
    latent_cache: Tensor,
    rows_N: Tensor,
    topk_NK: Tensor,
    *,
    rank: int,
    scale: float,
    backend: Backend | None = None,
) -> Tensor:
    """Attend from one token per row to the selected latents of its slot of a cache; without gradient.

    A row's bits depend on nothing but its own query, latents and keys, and equal those of `sparse_attention`.

    Args:
        query_NHC: Queries, float32, float16 or bfloat16, [N, H, C].
        latent_cache: Latents of the same dtype, [slots, max length, C].
        rows_N: Slot of each row, int32 or int64 [N].
        topk_NK: Selected keys, int32 [N, K]; entries below 0 or from the max length on are skipped.
        rank: Width R of a value (1 to C).
        scale: Factor on the logits.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Result in the query's dtype, [N, H, R]; 0 where a row has no valid key.

    Raises:
        ValueError: shapes disagree, or rank is not within 1 to C.
        UnsupportedError: the kernels cannot take these dtypes, so many heads, or so wide a value.
    """
    if query_NHC.ndim != 3 or topk_NK.ndim != 2 or rows_N.shape != query_NHC.shape[:1]:
        shapes = [list(x.shape) for x in (query_NHC, rows_N, topk_NK)]
        raise ValueError(f"{_NAME}_decode: query, rows and topk must be [N, H, C], [N] and [N, K], got {shapes}")
    _check_shapes(query_NHC[:, None], latent_cache, topk_NK[:, None], rank, slots=True)
    chosen = choose(_NAME, query_NHC, latent_cache, rows_N, topk_NK, backend=backend)
    with torch.no_grad():
        if chosen == "reference":
            return reference.attend_cached(query_NHC, latent_cache, rows_N, topk_NK, rank=rank, scale=scale)
        _check_kernels(query_NHC[:, None], latent_cache, topk_NK[:, None], rank)
        if query_NHC.numel() == 0 or topk_NK.numel() == 0:
            return query_NHC.new_zeros(*query_NHC.shape[:2], rank)
        if not latent_cache.is_contiguous():
            # A copy of the whole cache at every step would hide.
            raise UnsupportedError(f"{_NAME}: latent_cache has strides {latent_cache.stride()}; make it contiguous")
        kernels = load_kernels(f"{_NAME}.forward")
        return kernels.attend_cached(
            query_NHC.contiguous(), latent_cache, rows_N.contiguous(), topk_NK.contiguous(), rank=rank, scale=scale
        )


class _Kernels(torch.autograd.Function):
    """The kernels with their gradient."""

    @staticmethod
    def forward(
        ctx: Any, query_BTHC: Tensor, latent_BSC: Tensor, topk_BTK: Tensor, call: running.Call
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        kept, sums = running.run(query_BTHC, latent_BSC, topk_BTK, call)
        ctx.call = call
        ctx.save_for_backward(*kept)
        ctx.mark_non_differentiable(kept.lse_BTH, *(() if sums is None else (sums,)))
        return kept.out_BTHR, kept.lse_BTH, sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator hides the names
        ctx: Any, *gradients: Any
    ) -> tuple[Tensor, Tensor, None, None]:
        # The others have none.
        return *running.differentiate(running.Kept(*ctx.saved_tensors), gradients[0], ctx.call), None, None


def _check_shapes(query: Tensor, latent: Tensor, topk: Tensor, rank: int, *, slots: bool = False) -> None:
    """Refuse tensors that do not belong together.

    Raises:
        ValueError: They do not; the message has their shapes.
    """
    fits = query.ndim == 4 and latent.ndim == 3 and topk.ndim == 3
    fits = fits and query.shape[:2] == topk.shape[:2] and query.shape[3] == latent.shape[2] and query.shape[2] > 0
    if not fits or not (slots or len(latent) == len(query)):
        shapes = [list(x.shape) for x in (query, latent, topk)]
        raise ValueError(f"{_NAME}: query, latent and topk must be [B, T, H, C], [B, S, C] and [B, T, K], got {shapes}")
    if not 1 <= rank <= query.shape[3]:
        raise ValueError(f"{_NAME}: rank must be 1 to {query.shape[3]}, the width of a key, got {rank}")


def _check_kernels(query: Tensor, latent: Tensor, topk: Tensor, rank: int) -> None:
    """Refuse what the kernels cannot take.

    Raises:
        UnsupportedError: A dtype, a count of heads, a width or a length.
    """
    if query.dtype not in _DTYPES or latent.dtype != query.dtype:
        raise UnsupportedError(
            f"{_NAME}: query and latent are {query.dtype} and {latent.dtype};"
            " make both float32, float16 or bfloat16, or use backend='reference'"
        )
    if topk.dtype != torch.int32:
        raise UnsupportedError(f"{_NAME}: topk is {topk.dtype}; make it int32")
    if query.shape[2] > configs.MOST_HEADS:
        raise UnsupportedError(
            f"{_NAME}: {query.shape[2]} heads, at most {configs.MOST_HEADS}; call it for groups of heads"
        )
    if len(latent) * latent.shape[1] >= _MOST_LATENTS or latent.shape[1] * latent.shape[2] >= 2**31:
        # Kernels number latents, and the bit of a query beside them, in 32 bits; and the numbers of one sequence.
        raise UnsupportedError(
            f"{_NAME}: latents are {list(latent.shape)}, of which fewer than {_MOST_LATENTS} in all, and fewer than"
            " 2**31 numbers in a sequence, can be numbered; split the batch"
        )
    configs.tiles(configs.FORWARD, rows=1, rank=rank, item_bytes=query.element_size())
