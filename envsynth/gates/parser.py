"""Reads prompts in a process apart, which has seen nothing of a task but what it is sent."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from typing import IO, Any

from envsynth.errors import SpecError


class _Parser:
    """The process: one JSON line in, one JSON line out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "envsynth.author.procedural.parse"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is ours to handle; this process ends when its input does
        )
        atexit.register(self.close)

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self._process.poll() is None

    def parse(self, text: str, docs: dict[str, Any]) -> dict[str, Any]:
        """Parse one prompt; the reply is `{"ir": ...}` or `{"error": ...}`.

        Raises:
            SpecError: the process ended.
        """
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps({"text": text, "docs": docs}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SpecError(f"the parser process ended with code {self._process.wait()}: run the check again")
        return json.loads(line)

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise SpecError("the parser process has no pipes: run the check again")
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End the process."""
        atexit.unregister(self.close)
        if self.alive:
            self._process.kill()
        self._process.communicate()


_PARSERS: list[_Parser] = []
"""The process's parser, when one has been needed."""


def parse_apart(text: str, docs: dict[str, Any]) -> dict[str, Any]:
    """Parse a prompt in a process apart, from its text and the public docs alone.

    Args:
        text: The prompt.
        docs: `EnvironmentSpec.public_docs`.

    Returns:
        `{"ir": program as JSON}` or `{"error": message}`.

    Raises:
        SpecError: the parser process died.
    """
    if _PARSERS and not _PARSERS[0].alive:
        _PARSERS.pop().close()
    if not _PARSERS:
        _PARSERS.append(_Parser())
    return _PARSERS[0].parse(text, docs)
