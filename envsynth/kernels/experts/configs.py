"""Tiles of the experts' kernels by type, rows per expert and width; plain data.

Chosen from what a compile for Hopper (sm_90) says of registers and shared memory; none of them spills.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

PROCESSORS = 132
"""Multiprocessors of an H100 or H200: below twice as many programs, the sums over rows are split."""
MOST_SPLITS = 16
"""Each split costs a float32 copy of the weights' gradients."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One kernel's tile and how it is compiled."""

    columns: int
    """Columns of the result (count)."""
    depth: int
    """Summed elements per step (count)."""
    warps: int
    """Warps of a program (count)."""
    stages: int
    """Steps whose loads are under way at once (count); where rows are gathered at each step, the compiler needs about
    two of these for one."""
    persistent: bool = False
    """Whether each multiprocessor runs one program, which takes tile after tile and loads the next one meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles of one call."""

    rows: int
    """Rows of a tile, all of one expert (count)."""
    up: Tile
    """Gate and up products at once: two accumulators."""
    down: Tile
    """Down product."""
    hidden: Tile
    """Gradient of the hidden layer."""
    inputs: Tile
    """Gradient of each choice's token: two products into one accumulator."""
    pair_rows: int
    """Rows of the result of `pair` (count)."""
    pair: Tile
    """Gradients of gate and up matrices: two accumulators, summed over tokens."""
    single_rows: int
    """Rows of the result of `single` (count)."""
    single: Tile
    """Gradient of the down matrices."""


def tiles_for(dtype: torch.dtype, choices: int, n_experts: int, width: int, hidden: int) -> Tiles:
    """Choose tiles.

    Args:
        dtype: Type of tokens and weights.
        choices: Tokens times active experts (count).
        n_experts: Experts (count).
        width: Width D of a token.
        hidden: Width F of an expert.

    Returns:
        The tiles.
    """
    average = choices / n_experts
    if dtype == torch.float32:
        return _float32_tiles(32 if average >= 64 else 16)
    rows = next((rows for rows, least in ((128, 512), (64, 128), (32, 48)) if average >= least), 16)
    if rows == 128:
        return _large_tiles(hidden, width)
    return _small_tiles(rows, hidden, width)


def splits_for(programs: int, choices: int, n_experts: int) -> int:
    """Say into how many parts an expert's rows are cut where a gradient is summed over them.

    Args:
        programs: Tiles of the result, over all experts (count).
        choices: Tokens times active experts (count).
        n_experts: Experts (count).

    Returns:
        Parts (count, >= 1), each of 512 rows at least on average.
    """
    wanted = -(-2 * PROCESSORS // max(programs, 1))
    return max(1, min(wanted, MOST_SPLITS, choices // n_experts // 512))


def _narrow(width: int, most: int) -> int:
    """Give the columns of a tile, a power of two: the widest that wastes at most a fifth of what is computed."""
    columns = most
    while columns > 16 and -(-width // columns) * columns * 4 > width * 5:
        columns //= 2
    return columns


def _stages(summed: int, depth: int) -> int:
    """Give four stages, fewer where there are fewer steps: shared memory that they leave lets a second program in."""
    return max(2, min(4, -(-summed // depth)))


def _float32_tiles(rows: int) -> Tiles:
    tile = Tile(columns=32, depth=32, warps=4, stages=2)
    return Tiles(
        rows=rows, up=tile, down=tile, hidden=tile, inputs=tile, pair_rows=32, pair=tile, single_rows=32, single=tile
    )


def _large_tiles(hidden: int, width: int) -> Tiles:
    """Two accumulators of 128 columns, or one of 256: as much as registers hold, to read each operand least often."""
    wide, wide_hidden = _narrow(width, 256), _narrow(hidden, 256)
    return Tiles(
        rows=128,
        up=Tile(columns=_narrow(hidden, 128), depth=64, warps=8, stages=_stages(width, 64)),
        down=Tile(columns=wide, depth=64, warps=8, stages=_stages(hidden, 64)),
        hidden=Tile(columns=wide_hidden, depth=64, warps=8, stages=_stages(width, 64)),
        inputs=Tile(columns=wide, depth=32, warps=8, stages=_stages(hidden, 32)),
        pair_rows=_narrow(hidden, 128),
        pair=Tile(columns=_narrow(width, 128), depth=64, warps=8, stages=5),
        single_rows=_narrow(width, 128),
        single=Tile(columns=wide_hidden, depth=64, warps=8, stages=5),
    )


def _small_tiles(rows: int, hidden: int, width: int) -> Tiles:
    return Tiles(
        rows=rows,
        up=Tile(columns=_narrow(hidden, 64), depth=64, warps=4, stages=_stages(width, 64)),
        down=Tile(columns=_narrow(width, 128), depth=64, warps=4, stages=_stages(hidden, 64)),
        hidden=Tile(columns=_narrow(hidden, 128), depth=64, warps=4, stages=_stages(width, 64)),
        inputs=Tile(columns=_narrow(width, 128), depth=32, warps=4, stages=_stages(hidden, 32)),
        pair_rows=_narrow(hidden, 64),
        pair=Tile(columns=_narrow(width, 64), depth=64, warps=4, stages=5),
        single_rows=_narrow(width, 64),
        single=Tile(columns=_narrow(hidden, 128), depth=64, warps=4, stages=5),
    )
