"""Eight bits as the released model uses them in its indexer: a Hadamard transform, then e4m3 with power-of-two scales.

Shape letters: J indexer head width; `...` is any leading shape.

The transform spreads an outlier over a whole head, so that few bits are enough; it is orthogonal, so it changes no dot
product in exact arithmetic. Scales are powers of two ("ue8m0": eight bits of exponent alone), so multiplying by them is
exact, and a quantized number times its scale is again an exact float32 (and bfloat16) number. Therefore scores of those
products, computed in float32, equal those of the eight-bit integers times their scales, bit for bit.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 2.1, and its released inference code (activations in blocks of 128).
"""

from __future__ import annotations

import torch
from torch import Tensor

E4M3_MAX = 448.0
"""Largest number of the format."""
SMALLEST_AMAX = 1e-4
"""A block whose largest number is smaller than this is scaled as if it were this."""
BLOCK = 128
"""Numbers of a row that share a scale."""


def hadamard(x: Tensor) -> Tensor:
    """Multiply the last axis by the orthogonal Hadamard matrix (Sylvester's order), in float32 or wider.

    Args:
        x: Numbers, floating [..., J]; J a power of two.

    Returns:
        The transform, in x's type [..., J].

    Raises:
        ValueError: J is no power of two.
    """
    width = x.shape[-1]
    if width & (width - 1) or not width:
        raise ValueError(f"a Hadamard transform needs a power of two, got {width}")
    wide = x if x.dtype == torch.float64 else x.to(torch.float32)
    step = 1
    while step < width:
        # Sum and difference of partners that stand `step` apart: one factor of the Kronecker product.
        pairs = wide.unflatten(-1, (-1, 2, step))
        first, second = pairs.unbind(-2)
        wide = torch.stack((first + second, first - second), dim=-2).flatten(-3)
        step *= 2
    return (wide * width**-0.5).to(x.dtype)


def power_of_two_scale(amax: Tensor) -> Tensor:
    """Give the least power of two by which a block must be divided to fit into the format.

    2^ceil(log2(amax / 448)), from the bits of the number: a logarithm would round near powers of two.

    Args:
        amax: Largest magnitude of each block, floating [...].

    Returns:
        Scales, in amax's type [...].
    """
    fraction, exponent = torch.frexp(amax.clamp(min=SMALLEST_AMAX) / E4M3_MAX)
    exponent = torch.where(fraction == 0.5, exponent - 1, exponent)
    return torch.ldexp(torch.ones_like(fraction), exponent)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to e4m3, each block of 128 with a scale of its own.

    Args:
        x: Numbers, floating [..., J].

    Returns:
        Rounded numbers, float8_e4m3fn [..., J], and their scales, float32 [..., ceil(J / 128)].
    """
    blocks = x.to(torch.float32).split(BLOCK, dim=-1)
    scales = [power_of_two_scale(block.abs().amax(-1, keepdim=True)) for block in blocks]
    rounded = [
        (block / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
        for block, scale in zip(blocks, scales, strict=True)
    ]
    return torch.cat(rounded, -1), torch.cat(scales, -1)


def dequantize(rounded: Tensor, scales: Tensor) -> Tensor:
    """Multiply rounded rows by their scales, which is exact.

    Args:
        rounded: Rounded numbers, float8_e4m3fn [..., J].
        scales: Scales, float32 [..., ceil(J / 128)].

    Returns:
        Numbers, float32 [..., J].
    """
    wide = scales.repeat_interleave(BLOCK, dim=-1)[..., : rounded.shape[-1]]
    return rounded.to(torch.float32) * wide


def round_through(x: Tensor) -> Tensor:
    """Round to what eight bits hold, and let gradients pass as if nothing had been rounded.

    Args:
        x: Numbers, floating [..., J].

    Returns:
        The nearest representable numbers, in x's type [..., J]; the gradient is that of the identity.
    """
    return _Rounded.apply(x)


class _Rounded(torch.autograd.Function):
    """Rounds forward, and is the identity backward ("straight through")."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return dequantize(*quantize(x)).to(x.dtype)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        del ctx
        return gradients[0]
