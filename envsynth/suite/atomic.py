"""Writes a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from envsynth.errors import SuiteError


@contextmanager
def whole_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Write a file beside its place and move it there at the end of the block.

    When the block raises, or the disk is full, an older file at that path stays as it was and nothing is left over.

    Args:
        path: Where the file shall be.

    Yields:
        The file to write to.

    Raises:
        SuiteError: the folder is missing or cannot be written, or the disk is full.
    """
    # A fixed name per process: two processes never share it, and a killed one leaves at most one file that says whose
    # it was.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise SuiteError(
            f"cannot write {path}: {error.strerror or error}; nothing was written: check that the folder exists, that "
            "you may write there, and that the disk has room"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
