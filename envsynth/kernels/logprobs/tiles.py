"""What the passes share: a tile of logits, a tile of the sampling mask, and the head in parts.

Logits are formed without the temperature here; those who read them multiply by log2(e) / temperature.
"""

# ruff: noqa: ANN001, ANN202, ANN201 - Triton types the parameters of its kernels itself
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from envsynth.kernels.logprobs import configs


@triton.jit
def tile_logits(  # noqa: PLR0913
    hidden,
    weight,
    first_row,
    first_column,
    N,
    V,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Give logits, float32 [ROWS, COLUMNS]; rows and tokens past the end repeat the last one."""
    # Clamped, not masked, and offsets of 32 bits from a base of 64: both leave registers for the products.
    row = tl.minimum(tl.arange(0, ROWS), N - 1 - first_row) * WIDTH
    column = tl.minimum(tl.arange(0, COLUMNS), V - 1 - first_column) * (WIDTH * PARTS)
    hidden += first_row.to(tl.int64) * WIDTH
    weight += first_column.to(tl.int64) * (WIDTH * PARTS)
    STEPS: tl.constexpr = (WIDTH + INNER - 1) // INNER
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    # Low parts come first, so that they are not lost beside the sum.
    for step in range(PARTS * STEPS):
        if PARTS == 1:
            inner = step * INNER + tl.arange(0, INNER)
            shift = 0
        else:
            inner = (step % STEPS) * INNER + tl.arange(0, INNER)
            shift = (step // STEPS) * WIDTH
        if WIDTH % INNER == 0:
            left = tl.load(hidden + row[:, None] + inner[None, :])
            right = tl.load(weight + shift + column[:, None] + inner[None, :])
        else:
            inside = (inner < WIDTH)[None, :]
            left = tl.load(hidden + row[:, None] + inner[None, :], mask=inside, other=0.0)
            right = tl.load(weight + shift + column[:, None] + inner[None, :], mask=inside, other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)
    return total


@triton.jit
def tile_kept(words, row, first_column, N, W, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Tell which tokens of a tile are kept, [ROWS, COLUMNS]; `first_column` is a multiple of 32."""
    column = tl.arange(0, COLUMNS)
    first_word = first_column // 32
    place = words + row.to(tl.int64) * W + first_word
    spread = tl.zeros([ROWS, COLUMNS], tl.int32)
    # One load per row and word; which word a column reads is known when this is compiled.
    for index in tl.static_range(COLUMNS // 32):
        word = tl.load(place + index, mask=(row < N) & (first_word + index < W), other=0)
        spread = tl.where((column // 32 == index)[None, :], word[:, None], spread)
    return ((spread >> (column % 32)[None, :]) & 1) != 0


@triton.jit
def _upper(number):
    """Cut a float32 number to its upper eight bits; what is cut off is exact, and it is one instruction."""
    return (number.to(tl.int32, bitcast=True) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def three_parts(number):
    """Cut float32 numbers into three of eight bits that sum to them, as float32, the lowest first."""
    high = _upper(number)
    rest = number - high
    middle = _upper(rest)
    return rest - middle, middle, high


@triton.jit
def _cut(weight, parts, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    low, middle, high = three_parts(tl.load(weight + place, mask=place < count, other=0.0))
    kind = parts.dtype.element_ty
    parts += place // WIDTH * (3 * WIDTH) + place % WIDTH
    tl.store(parts, low.to(kind), mask=place < count)
    tl.store(parts + WIDTH, middle.to(kind), mask=place < count)
    tl.store(parts + 2 * WIDTH, high.to(kind), mask=place < count)


def parts_of(hidden_ND: Tensor, weight_VD: Tensor) -> Tensor:
    """Give the head as the products read it.

    Args:
        hidden_ND: Hidden states, [N, D].
        weight_VD: The head, contiguous [V, D].

    Returns:
        The head whole [V, 1, D], or float32 as bfloat16 parts that sum to it, the lowest first [V, 3, D].
    """
    kind = configs.part_type(hidden_ND.dtype, weight_VD.dtype)
    V, width = weight_VD.shape
    if kind is None:
        return weight_VD[:, None]
    parts_VPD = torch.empty(V, configs.PARTS, width, dtype=kind, device=weight_VD.device)
    count = weight_VD.numel()
    _cut[(triton.cdiv(count, configs.CUT),)](weight_VD, parts_VPD, count, WIDTH=width, BLOCK=configs.CUT, num_warps=4)
    return parts_VPD
