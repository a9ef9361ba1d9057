"""Sizes of the top-k kernel by what it has to keep."""

from __future__ import annotations

from typing import NamedTuple

LARGEST_K = 8192
"""Entries that the kernel can keep of a longer row."""
_LARGEST_CAPACITY = 32768
_SMALLEST_CAPACITY = 4096
_PER_WARP = 512
"""Candidates of a warp: 16 registers of each thread."""


class Sizes(NamedTuple):
    """How one program works through its rows."""

    capacity: int
    """Candidates that a program holds in registers at once, a power of two; a row's first scores are read so."""
    chunk: int
    """Scores that are read at a time after them, a power of two, at most capacity - k."""
    warps: int
    """Warps of a program."""

    @property
    def registers(self) -> int | None:
        """Registers that a thread may have, so that 16 warps share a multiprocessor; None where they must anyway."""
        return 128 if self.warps < 16 else None


def sizes_for(k: int, size: int) -> Sizes:
    """Choose the sizes for rows.

    A row that fits is decided in registers by one read. In a longer one, scores that cannot be among the k best of
    what was seen are dropped as they are read, so the capacity is a few times k, and a chunk is what may enter at once.

    Args:
        k: Entries kept per row.
        size: Scores of a row.

    Returns:
        The sizes.
    """
    wanted = _power_of_two(max(_SMALLEST_CAPACITY, min(4 * _power_of_two(k), _LARGEST_CAPACITY)))
    capacity = min(wanted, max(128, _power_of_two(size)))
    return Sizes(capacity, max(64, capacity // 2), max(1, min(capacity // _PER_WARP, 32)))


def _power_of_two(count: int) -> int:
    """Round up to a power of two."""
    return 1 << (count - 1).bit_length()
