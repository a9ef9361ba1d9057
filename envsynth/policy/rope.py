"""Rotary positions, in the two layouts that DeepSeek-V3.2 uses side by side.

Shape letters: B sequences, T tokens, N rows of a decode step, R rotary width; `...` is any leading shape.

The attention heads rotate neighbours, the indexer rotates halves. Mixing them up costs accuracy without any error,
so each has its own function and its own test.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rope_frequencies(dim: int, theta: float) -> Tensor:
    """Give the angle per position of each rotated pair.

    Args:
        dim: Rotary width R (even).
        theta: Base.

    Returns:
        theta^(-2i/R) for each pair i, float32 [R/2].
    """
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))


def rope_angles(positions: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """Give cosine and sine of position times frequency.

    Args:
        positions: Positions, integer [...].
        frequencies: Angle per position, [R/2].

    Returns:
        Cosine and sine, each [..., R/2], in the frequencies' dtype.
    """
    angles = positions[..., None].to(frequencies.dtype) * frequencies
    return angles.cos(), angles.sin()


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbours (2i, 2i+1): the interleaved layout of the attention heads.

    Args:
        x: Rotary part, [..., R].
        cos: Cosines that broadcast to [..., R/2].
        sin: Sines of the same shape.

    Returns:
        The rotated part, [..., R].
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (i, i + R/2): the half-split layout of the indexer.

    Args:
        x: Rotary part, [..., R].
        cos: Cosines that broadcast to [..., R/2].
        sin: Sines of the same shape.

    Returns:
        The rotated part, [..., R].
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)
