"""Writes a task program as English from what the public docs call things.

The text holds all of the program and nothing else but what the user alone knows: from it and the user's words
`envsynth.author.procedural.parse` reads exactly this program back.
See docs/reference/prompt-language.md.
"""

from __future__ import annotations

from envsynth.author.procedural.render.asking import facts
from envsynth.author.procedural.render.forms import REGISTERS, Register
from envsynth.author.procedural.render.writer import render, sentences

__all__ = ["REGISTERS", "Register", "facts", "render", "sentences"]
