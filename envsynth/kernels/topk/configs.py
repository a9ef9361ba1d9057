"""Sizes of the top-k kernel by what it has to keep, and by how many rows there are."""

from __future__ import annotations

from typing import NamedTuple

LARGEST_K = 8192
"""Entries that the kernel can keep of a longer row."""
_SMALLEST_CAPACITY = 2048
_PER_WARP = 512
"""Candidates of a warp: 16 of each thread."""
_MOST_WARPS = 16
"""Warps of a program at most: with more, waiting for each other costs more than it spreads."""
_SMALLEST_SAMPLE, _LARGEST_SAMPLE = 1024, 4096
_REGISTERS = 65536
"""Registers of a multiprocessor, 4 bytes each."""


class Sizes(NamedTuple):
    """How one program works through its rows."""

    capacity: int
    """Candidates that a program's buffer and registers hold at once, a power of two; shorter rows need no buffer."""
    chunk: int
    """Scores of a longer row that are read at a time, a power of two, at most capacity - k."""
    warps: int
    """Warps of a program."""
    sample: int = 64
    """Scores of a longer row that its bar is estimated from, a power of two, at most the capacity."""
    registers: int = 128
    """Registers that a thread may have."""
    ahead: bool = True
    """Whether a chunk is read while the one before it is worked on, which needs registers."""

    @property
    def programs(self) -> int:
        """Programs that run on a multiprocessor at once, by their registers."""
        return max(1, _REGISTERS // (32 * self.registers * self.warps))


def sizes_for(k: int, size: int, rows: int, processors: int) -> Sizes:
    """Choose the sizes for rows.

    A longer row lets k and some standard deviations of the sample's estimate pass its bar, about 1.4 k for large k and
    more where the sample holds only a few of the k best; twice k leaves room for them. 64 registers let 32 warps share
    a multiprocessor, which hides that the threads of a program wait for each other. Rows that leave multiprocessors
    idle get more threads and larger chunks each instead.

    Args:
        k: Entries kept per row.
        size: Scores of a row.
        rows: Rows.
        processors: Multiprocessors of the GPU.

    Returns:
        The sizes.
    """
    few = rows <= processors
    wanted = max(_SMALLEST_CAPACITY, 2 * _power_of_two(k))
    if few and wanted <= _PER_WARP * _MOST_WARPS // 2:
        wanted *= 2
    capacity = min(wanted, max(128, _power_of_two(size)))
    # The largest power of two that leaves k their room.
    chunk = max(64, _power_of_two(capacity - k + 1) // 2)
    sample = min(capacity, max(_SMALLEST_SAMPLE, min(_power_of_two(size) // 16, _LARGEST_SAMPLE)))
    warps = max(1, min(capacity // (_PER_WARP // 2 if few else _PER_WARP), _MOST_WARPS))
    crowded = few or capacity > _PER_WARP * warps
    return Sizes(capacity, chunk, warps, sample, 128 if crowded else 64)


def _power_of_two(count: int) -> int:
    """Round up to a power of two."""
    return 1 << (count - 1).bit_length()
