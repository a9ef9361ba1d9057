"""The error of the prompt parser."""

from __future__ import annotations

from collections.abc import Sequence

from envsynth.errors import SpecError


class ParseError(SpecError):
    """A text is no prompt of this language.

    Args:
        message: What is wrong.
        position: Where, in characters from the start of the text.
        expected: What could have stood there.
    """

    def __init__(self, message: str, position: int, expected: Sequence[str] = ()) -> None:
        super().__init__(message, position, tuple(expected))
        self.message = message
        self.position = position
        self.expected = tuple(expected)

    def __str__(self) -> str:
        shown = "; ".join(self.expected[:6]) + ("; ..." if len(self.expected) > 6 else "")
        return f"position {self.position}: {self.message}" + (f"; expected {shown}" if shown else "")
