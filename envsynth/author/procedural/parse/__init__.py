"""Reads a prompt back into the task program that it states, from the public docs alone.

It imports nothing of the author but the program types, so that a prompt which says less, more or something else than its
program is found out. `python -m envsynth.author.procedural.parse` serves it over standard input and output.
See docs/reference/prompt-language.md.
"""

from __future__ import annotations

from envsynth.author.procedural.parse.errors import ParseError
from envsynth.author.procedural.parse.sentences import parse

__all__ = ["ParseError", "parse"]
