"""A folder that is complete or absent: written under another name, flushed to the disk, and renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from envsynth.errors import CheckpointError


@contextmanager
def whole_folder(folder: Path) -> Generator[Path]:
    """Give an empty folder to fill; when the block ends without an exception, it takes the given name.

    A process that is killed leaves either the whole folder or none; a folder that was there before is replaced.

    Args:
        folder: The final name; parents that are absent are made.

    Yields:
        The folder to write files into, beside the final one.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, stale = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    try:
        yield fresh
        for path in sorted(fresh.iterdir()):
            _flush(path)
        _flush(fresh)  # a file is only safe once its name is
        if folder.exists():
            folder.rename(stale)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _flush(folder.parent)
    shutil.rmtree(stale, ignore_errors=True)


def check_unused(folder: Path) -> None:
    """Refuse a folder that holds anything: to replace it would delete what nobody asked to delete.

    Args:
        folder: Where something new is to be written.

    Raises:
        CheckpointError: It is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is there already and not empty: choose another folder, or remove it")


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
