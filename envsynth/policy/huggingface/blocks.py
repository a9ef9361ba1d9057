"""Weights of eight bits with one scale per block, as the released model stores them."""

from __future__ import annotations

import torch
from torch import Tensor


def scale_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, int]:
    """Give the shape of a matrix's scales.

    Args:
        shape: Shape of the matrix, rows and columns.
        block: Rows and columns that share a scale.

    Returns:
        Blocks of rows, blocks of columns; the last ones may be cut.
    """
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def dequantize_blocks(weight: Tensor, scale: Tensor, block: tuple[int, int]) -> Tensor:
    """Multiply each block of a matrix by its scale.

    Args:
        weight: Matrix, float8 [rows, columns].
        scale: What each block is multiplied by ("inverse" in the files' names), [blocks of rows, blocks of columns].
        block: Rows and columns that share a scale.

    Returns:
        The matrix, float32 [rows, columns].
    """
    rows, columns = weight.shape
    wide = scale.to(torch.float32).repeat_interleave(block[1], dim=1)[:, :columns]
    return weight.to(torch.float32) * wide.repeat_interleave(block[0], dim=0)[:rows]
