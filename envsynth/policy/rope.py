"""Rotary positions, in the two layouts that DeepSeek-V3.2 uses side by side.

Shape letters: B sequences, T tokens, N rows of a decode step, R rotary width; `...` is any leading shape.

The attention heads rotate neighbours, the indexer rotates halves. Mixing them up costs accuracy without any error,
so each has its own function and its own test. Angles are float32, so half precision is rotated in float32 and rounded
once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from envsynth.policy.config import AttentionConfig, YarnConfig


def rope_frequencies(dim: int, theta: float) -> Tensor:
    """Give the angle per position of each rotated pair.

    Args:
        dim: Rotary width R (even).
        theta: Base.

    Returns:
        theta^(-2i/R) for each pair i, float32 [R/2].
    """
    return 1.0 / (theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))


def attention_frequencies(attention: AttentionConfig) -> Tensor:
    """Give the angle per position of each rotated pair, scaled by YaRN where the configuration has it.

    Args:
        attention: Width, base and scaling.

    Returns:
        Angles, float32 [R/2].
    """
    plain = rope_frequencies(attention.qk_rope_head_dim, attention.rope_theta)
    if attention.yarn is None:
        return plain
    return yarn_frequencies(plain, attention.rope_theta, attention.yarn)


def yarn_frequencies(frequencies: Tensor, theta: float, yarn: YarnConfig) -> Tensor:
    """Slow down the pairs that turn too seldom within the original length (arXiv:2309.00071, section 3.2).

    A pair that turns `beta_fast` times or more within the original length keeps its frequency, one that turns
    `beta_slow` times or less has it divided by the factor, and between the two the share ramps linearly in the pair's
    index, whose bounds are rounded outwards as in the released model.

    Args:
        frequencies: Angle per position of each pair, [R/2].
        theta: Base that they were made with.
        yarn: The scaling.

    Returns:
        Scaled angles, [R/2].
    """
    dim = 2 * len(frequencies)

    def pair_that_turns(times: float) -> float:
        return dim * math.log(yarn.original_max_position_embeddings / (times * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_that_turns(yarn.beta_fast)), 0)
    high = min(math.ceil(pair_that_turns(yarn.beta_slow)), dim - 1)
    # A ramp of no width would divide by zero. One whose bounds crossed, where the original length is a few tokens or
    # the base is small for it, runs backwards in the released model, and does so here.
    width = (high - low) or 1e-3
    slowed = ((torch.arange(dim // 2, dtype=frequencies.dtype) - low) / width).clamp(0, 1)
    return frequencies / yarn.factor * slowed + frequencies * (1 - slowed)


def rope_angles(positions: Tensor, frequencies: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Give cosine and sine of position times frequency.

    Args:
        positions: Positions, integer [...].
        frequencies: Angle per position, [R/2].
        factor: Factor on both, `YarnConfig.attention_factor`.

    Returns:
        Cosine and sine, each [..., R/2], in the frequencies' dtype.
    """
    angles = positions[..., None].to(frequencies.dtype) * frequencies
    cos, sin = angles.cos(), angles.sin()
    return (cos, sin) if factor == 1.0 else (cos * factor, sin * factor)


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
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)


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
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).to(x.dtype)
