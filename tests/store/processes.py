"""Runs a function in a child process that may be killed, hold limits, or be a plain user."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def script(source: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a Python program that can import envsynth and the tests; `prefix` is a command that runs it."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", source, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_child(function: Callable[[], object], *, plain_user: bool = True) -> str:
    """Run a function in a fork, as a plain user when we are root; return the text of its result or error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            if plain_user and os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            try:
                text = str(function())
            except Exception as error:  # noqa: BLE001 - the parent judges it
                text = f"{type(error).__name__}: {error}"
            os.write(writer, text.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that a plain user can enter, which pytest's is not when root runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o777)
