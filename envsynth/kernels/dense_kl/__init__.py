"""The indexer's loss on all visible keys: its dense warm-up, without any tensor of all pairs (arXiv:2512.02556).

Shape letters: B sequences, T queries, S keys, H heads, C width of the teacher's keys (latent and rotary part), I indexer
heads, J indexer head width.

For query t and its visible keys s: p[t, s] = mean over heads of softmax(q[t, h] . k[s] * scale), which has sum one, and
I[t, s] = sum over heads i of w[t, i] * relu(qI[t, i] . kI[s]). The loss is KL(p[t] || softmax(I[t])) (section 2.1, eq. 3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dense_kl import compiled, configs, reference
from envsynth.kernels.dispatch import Backend, UnsupportedError, choose, load_kernels

__all__ = ["Student", "Teacher", "dense_kl"]

_TYPES = (torch.float32, torch.float16, torch.bfloat16)


class Teacher(NamedTuple):
    """Whose attention is the target; all heads share their keys. It gets no gradient."""

    query_BTHC: Tensor
    """Queries with the expansion of keys folded in, float32, float16 or bfloat16 [B, T, H, C]."""
    key_BSC: Tensor
    """Latents with their rotary part, of the queries' type, [B, S, C]."""
    scale: float
    """Factor on the logits."""
    lse_BTH: Tensor | None = None
    """Log-sum-exp of the visible scaled logits in nats, float32 [B, T, H], where it is known; of no meaning for a query
    that sees nothing. None to find it, which forms all logits once more."""


class Student(NamedTuple):
    """The indexer, which gets the gradient."""

    query_BTIJ: Tensor
    """Queries, float32, float16 or bfloat16 [B, T, I, J]."""
    key_BSJ: Tensor
    """Keys of the queries' type, [B, S, J]."""
    weight_BTI: Tensor
    """Head weights, float32 [B, T, I]."""


def dense_kl(
    teacher: Teacher,
    student: Student,
    *,
    starts_BT: Tensor | None = None,
    query_start_B: Tensor | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Measure how far the indexer's scores are from what attention looks at, over all visible keys.

    Query t stands at position p = query_start + t, and sees keys start <= s <= p, as in `index_select`. The gradient at a
    score is exactly softmax(I) - p. Kernels form logits and scores block by block, forward and backward, so that what
    they keep grows with T and S, not with T x S. Sums have a fixed order: equal calls give equal bits.

    Args:
        teacher: Whose attention is the target.
        student: The indexer.
        starts_BT: First visible key of each query (the first token of its document), integer [B, T]; None for 0.
        query_start_B: Position of each sequence's first query, integer [B]; None for 0.
        backend: How to run; None takes the kernels on a GPU and the reference elsewhere.

    Returns:
        Divergences in nats, float32 [B, T] (float64 where a reference is given float64); 0, and without gradient, for a
        query without visible keys.

    Raises:
        ValueError: shapes disagree.
        UnsupportedError: the kernels cannot work on these types or sizes, or devices differ.
    """
    B, T, S = _check(teacher, student)
    for name, bound, shape in (("starts_BT", starts_BT, (B, T)), ("query_start_B", query_start_B, (B,))):
        if bound is not None and tuple(bound.shape) != shape:
            raise ValueError(f"dense_kl: {name} must be {[*shape]}, got {[*bound.shape]}")
    lse_BTH = None if teacher.lse_BTH is None else teacher.lse_BTH.detach()
    teacher = Teacher(teacher.query_BTHC.detach(), teacher.key_BSC.detach(), teacher.scale, lse_BTH)
    extras = [item for item in (teacher.lse_BTH, starts_BT, query_start_B) if item is not None]
    where = choose("dense_kl", teacher.query_BTHC, teacher.key_BSC, *student, *extras, backend=backend)
    if where == "triton":
        _check_types(teacher, student)
    visible = _visible(starts_BT, query_start_B, (B, T, S), student.query_BTIJ.device)
    if 0 in (B, T, S):
        wide = torch.promote_types(student.query_BTIJ.dtype, torch.float32)
        return torch.zeros(B, T, dtype=wide, device=student.query_BTIJ.device) * _nothing_of(student)
    if where == "reference":
        return reference.dense_kl(*teacher[:2], *student, visible, teacher.scale, teacher.lse_BTH)
    if torch.compiler.is_compiling():
        given = (list(teacher[:2]), float(teacher.scale), teacher.lse_BTH, list(visible))
        return compiled.divergence_operator(*student, *given)[0]
    return _DenseKl.apply(*student, teacher, visible)


class _DenseKl(torch.autograd.Function):
    """The kernels of both directions."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, weight: Tensor, teacher: Teacher, visible: tuple[Tensor, Tensor]
    ) -> Tensor:
        kernels = load_kernels("dense_kl.forward")
        tensors = (teacher.query_BTHC, teacher.key_BSC, query, key, weight, *visible)
        problem = kernels.Problem(*(item.contiguous() for item in tensors), float(teacher.scale))
        lse = kernels.teacher_lse(problem) if teacher.lse_BTH is None else teacher.lse_BTH.contiguous()
        loss, index_lse = kernels.divergence(problem, lse)
        ctx.save_for_backward(*problem[:-1], lse, index_lse)
        ctx.scale = problem.scale
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, lse, index_lse = ctx.saved_tensors
        problem = load_kernels("dense_kl.forward").Problem(*tensors, ctx.scale)
        found = load_kernels("dense_kl.backward").gradients(problem, lse, index_lse, grads[0].contiguous())
        return found.query_BTIJ, found.key_BSJ.to(problem.index_key_BSJ.dtype), found.weight_BTI, None, None


def _visible(
    starts_BT: Tensor | None, query_start_B: Tensor | None, sizes: tuple[int, int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Give the first visible key and the end of each query, int32 [B, T] each, within 0..S."""
    B, T, S = sizes
    place_T = torch.arange(T, device=device, dtype=torch.int32)
    first_B1 = 0 if query_start_B is None else query_start_B.to(torch.int32)[:, None]
    ends_BT = (place_T[None] + 1 + first_B1).expand(B, T).clamp(min=0, max=S)
    starts_BT = torch.zeros_like(ends_BT) if starts_BT is None else starts_BT.to(torch.int32).clamp(min=0, max=S)
    return starts_BT, ends_BT


def _nothing_of(student: Student) -> Tensor:
    """Give a zero that depends on the student, so that a gradient of an empty loss exists."""
    return sum((item.to(torch.float32)[:0].sum() for item in student), torch.zeros((), device=student[0].device))


def _check(teacher: Teacher, student: Student) -> tuple[int, int, int]:
    """Refuse shapes that disagree; give the numbers of sequences, queries and keys.

    Raises:
        ValueError: they disagree.
    """
    query, key, lse = teacher.query_BTHC, teacher.key_BSC, teacher.lse_BTH
    index_query, index_key, weight = student
    if (query.ndim, key.ndim, index_query.ndim, index_key.ndim) != (4, 3, 4, 3):
        shapes = [tuple(item.shape) for item in (query, key, index_query, index_key)]
        raise ValueError(f"dense_kl: want [B, T, H, C], [B, S, C], [B, T, I, J] and [B, S, J], shapes are {shapes}")
    B, T, _, width = query.shape
    S, index_width = key.shape[1], index_query.shape[3]
    wanted = (
        ("the teacher's keys", key, (B, S, width)),
        ("the indexer's queries", index_query, (B, T, index_query.shape[2], index_width)),
        ("the indexer's keys", index_key, (B, S, index_width)),
        ("weights", weight, tuple(index_query.shape[:3])),
        ("lse_BTH", lse, tuple(query.shape[:3])),
    )
    for name, found, shape in wanted:
        if found is not None and tuple(found.shape) != shape:
            raise ValueError(f"dense_kl: {name} must be {[*shape]} by the other shapes, got {[*found.shape]}")
    if 0 in (*query.shape[2:], *index_query.shape[2:]):
        raise ValueError(f"dense_kl: queries without heads or width, {[*query.shape]} and {[*index_query.shape]}")
    return B, T, S


def _check_types(teacher: Teacher, student: Student) -> None:
    """Refuse types and sizes that the kernels cannot work on.

    Raises:
        UnsupportedError: they cannot.
    """
    pairs = (("teacher", teacher.query_BTHC, teacher.key_BSC), ("indexer", student.query_BTIJ, student.key_BSJ))
    for name, query, key in pairs:
        if query.dtype not in _TYPES or key.dtype != query.dtype:
            raise UnsupportedError(
                f"dense_kl: queries of the {name} are {query.dtype}, keys {key.dtype}; kernels take float32, float16 or"
                " bfloat16, the same for both; convert them, or use backend='reference'"
            )
    for name, found in (("weights are", student.weight_BTI), ("lse_BTH is", teacher.lse_BTH)):
        if found is not None and found.dtype != torch.float32:
            raise UnsupportedError(f"dense_kl: {name} {found.dtype}; convert to float32")
    item_bytes = max(teacher.query_BTHC.element_size(), student.query_BTIJ.element_size())
    (heads, width), (index_heads, index_width) = teacher.query_BTHC.shape[2:], student.query_BTIJ.shape[2:]
    configs.check(configs.Sizes(heads, width, index_heads, index_width, item_bytes))
