"""Lists small edits of a prompt: one comparator, number or name changed, everything else kept.

If a prompt says exactly what its program says, then no such edit parses back to the same program: it either states
another program or is no prompt at all. The edits are found in the text alone, without the docs or the program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple


class Edit(NamedTuple):
    """One change of a text."""

    start: int
    """Where the changed piece begins, in characters."""
    end: int
    """Where it ends."""
    replacement: str
    """What stands there instead."""
    kind: Literal["comparator", "number", "name"]
    """What was changed."""


_OPPOSITES = (
    ("at least", "at most"),
    ("no less than", "no more than"),
    ("more than", "less than"),
    ("greater than", "lower than"),
    ("exactly", "more than"),
    ("equal to", "different from"),
    ("on or after", "on or before"),
    ("at or after", "at or before"),
    ("no earlier than", "no later than"),
    ("later than", "earlier than"),
    ("is after", "is before"),
    ("highest", "lowest"),
    ("greatest", "smallest"),
    ("most", "fewest"),
    ("greatest number", "smallest number"),
    ("latest", "earliest"),
    ("the most", "the fewest"),
    ("as large as", "as small as"),
    ("maximal", "minimal"),
    ("max", "min"),
    (">=", ">"),
    ("<=", "<"),
    ("!=", "="),
)
_STRICTER = {
    "at least": "more than",
    "at most": "less than",
    "no less than": "greater than",
    "no more than": "lower than",
    "on or after": "after",
    "on or before": "before",
    "at or after": "after",
    "at or before": "before",
    "no earlier than": "later than",
    "no later than": "earlier than",
    ">": "<",
    "<": ">",
    "=": "!=",
    "less than": "at most",
    "more than": "at least",
}
_SWAPS: dict[str, list[str]] = {}
for _left, _right in _OPPOSITES:
    _SWAPS.setdefault(_left, []).append(_right)
    _SWAPS.setdefault(_right, []).append(_left)
for _word, _other in _STRICTER.items():
    _SWAPS.setdefault(_word, []).append(_other)

_WORD = "|".join(re.escape(word) for word in sorted(_SWAPS, key=len, reverse=True) if word[0].isalpha())
_COMPARATOR = re.compile(rf"\b(?:{_WORD})\b|(?<= )(?:>=|<=|!=|=|>|<)(?= )")
_NEGATION = re.compile(r" (is|are) not (?=[A-Z\d'\"-]|the )")
_IDENTITY = re.compile(r" (is|are) (?=[A-Z\d'\"-]|the )")
_DAY = re.compile(r"(?<![\w-])(\d{4}-\d\d-)(\d\d)(?![\w-])")
_CODE = re.compile(r"(?<![\w-])([A-Z][A-Z0-9]*(?:-[A-Z0-9]+)*-)(\d+)(?![\w-])")
_NUMBER = re.compile(r"(?<![\w'-])-?\d+(?![\w-])")
_VARIABLE = re.compile(r"\bX(\d+)\b")
_QUOTED = re.compile(r"'([^'\n]+)'(?!\w)|\"([^\"\n]+)\"")
_NAME = re.compile(r"(?<=[a-z] )(?!X\d+\b|YYYY)[A-Z][A-Za-z'-]*(?: (?!X\d+\b)[A-Z0-9][A-Za-z0-9'-]*)*")


def edits(text: str) -> list[Edit]:
    """List edits of a prompt.

    Args:
        text: The prompt.

    Returns:
        Edits in the order of the text; each changes the meaning of exactly one comparator, number or name.
    """
    found = dict.fromkeys((*_comparator_edits(text), *_number_edits(text), *_name_edits(text)))
    return sorted(found)


def apply(text: str, edit: Edit) -> str:
    """Make one edit."""
    return text[: edit.start] + edit.replacement + text[edit.end :]


def _comparator_edits(text: str) -> Iterator[Edit]:
    for match in _COMPARATOR.finditer(text):
        for word in _SWAPS[match[0]]:
            yield Edit(match.start(), match.end(), word, "comparator")
    for match in _NEGATION.finditer(text):
        yield Edit(match.start(), match.end(), f" {match[1]} ", "comparator")
    for match in _IDENTITY.finditer(text):
        yield Edit(match.start(), match.end(), f" {match[1]} not ", "comparator")


def _number_edits(text: str) -> Iterator[Edit]:
    for match in _DAY.finditer(text):
        yield Edit(match.start(2), match.end(2), f"{1 + int(match[2]) % 28:02d}", "number")
    for match in _CODE.finditer(text):
        yield Edit(match.start(2), match.end(2), str(int(match[2]) + 1), "number")
    for match in _NUMBER.finditer(text):
        for other in (int(match[0]) + 1, int(match[0]) - 1):
            yield Edit(match.start(), match.end(), str(other), "number")


def _name_edits(text: str) -> Iterator[Edit]:
    for match in _VARIABLE.finditer(text):
        others = dict.fromkeys((int(match[1]) + 1, max(1, int(match[1]) - 1)))
        for other in others:
            if other != int(match[1]):
                yield Edit(match.start(), match.end(), f"X{other}", "name")
    for match in _QUOTED.finditer(text):
        group = 1 if match[1] is not None else 2
        yield Edit(match.start(group), match.end(group), _other_name(match[group]), "name")
    for match in _NAME.finditer(text):
        yield Edit(match.start(), match.end(), _other_name(match[0]), "name")
        if " " in match[0]:
            yield Edit(match.start(), match.end(), match[0].rpartition(" ")[0], "name")


def _other_name(name: str) -> str:
    """A name that differs in its last character."""
    return name[:-1] + ("a" if name[-1] != "a" else "e")
