"""How single values and answer formats read: "1 hour", "3 hours", "10 o'clock", "(a list of names, in any order)"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from envsynth.author.procedural.ir import Type
from envsynth.errors import SpecError

CLOCK = "o'clock"
"""Word of units that are times of the day, not amounts."""

_UNINFLECTED = ("percent", "series", CLOCK)
_ONE = {"people": "person", "men": "man", "women": "woman", "children": "child"}
_NO_PLURAL = ("ss", "us", "is")
_SINGULAR = ("alias", "gas", "lens", "series")
"""Singular words that end in a plain "s"."""
_LINKS = re.compile(r" (?:after|at|for|from|in|leaving|of|on|until|with)\b|\{")
_NAME = re.compile(r"[A-Z][A-Za-z'-]*(?: [A-Z0-9][A-Za-z0-9'-]*)*")
_CODE = re.compile(r"[A-Z0-9]+(?:-[A-Z0-9]+)+")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def unit_word(units: Mapping[str, str], unit: str, value: int) -> str:
    """Word for a unit beside a value: "hour" for 1, "hours" for all others; empty for a plain count."""
    word = units.get(unit, unit)
    return _singular(word) if value == 1 else word


def _singular(word: str) -> str:
    if word in _UNINFLECTED or len(word) <= 3:
        return word
    if word in _ONE:
        return _ONE[word]
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def amount(units: Mapping[str, str], unit: str, value: int | str) -> str:
    """Number with its unit.

    Raises:
        SpecError: the value is no integer.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"a number of {unit or 'things'} must be an integer, got {value!r}")
    return f"{value} {unit_word(units, unit, value)}".rstrip()


def day(value: int | str) -> str:
    """ISO day.

    Raises:
        SpecError: the value is no ISO day.
    """
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise SpecError(f"a date must be ISO text such as 2031-05-07, got {value!r}")
    return value


def quoted(value: int | str) -> str:
    """Text in quotes; identifiers that are integers stay bare.

    Raises:
        SpecError: the text has a line break, or quotes of both kinds.
    """
    if isinstance(value, int):
        return str(value)
    for mark in ("'", '"'):
        if mark not in value and "\n" not in value:
            return f"{mark}{value}{mark}"
    raise SpecError(f"a text with both kinds of quotes or a line break cannot stand in a prompt: {value!r}")


def head(label: str) -> str:
    """What a label calls its value: "busy days", of "busy days from {0} to {1}"."""
    return _LINKS.split(label, maxsplit=1)[0]


def is_plural(label: str) -> bool:
    """Whether what a label calls its value is plural: "busy days from {0} to {1}", not "daily rate"."""
    words = head(label).split()
    word = words[-1] if words else ""
    if word in _SINGULAR:
        return False
    return word in _ONE or (word.endswith("s") and not word.endswith(_NO_PLURAL))


def row_name(by: str, value: int | str) -> str:
    """What follows the noun of a named row: its name, or "with id" and its identifier.

    Raises:
        SpecError: the key is neither a name nor an id, or the identifier is neither an integer nor a code.
    """
    if by == "id":
        if isinstance(value, str) and not _CODE.fullmatch(value):
            raise SpecError(f"an id must be an integer or a code such as RR-7969, got {value!r}")
        return f"with id {value}"
    if by != "name" or not isinstance(value, str):
        raise SpecError(f"a row is named by a name or an id, got {by} {value!r}")
    if _NAME.fullmatch(value):
        return value
    if '"' in value or "\n" in value:
        raise SpecError(f"a name with a double quote or a line break cannot stand in a prompt: {value!r}")
    return f'"{value}"'


def answer_format(units: Mapping[str, str], type_: Type, *, many: bool) -> str:
    """Format of one answer field: "a name", "a whole number of credits", "a list of dates as YYYY-MM-DD, in any order".

    Raises:
        SpecError: an answer cannot hold a value of this type.
    """
    one, several = _format_nouns(units, type_)
    return f"a list of {several}, in any order" if many else one


def _format_nouns(units: Mapping[str, str], type_: Type) -> tuple[str, str]:
    word = units.get(type_.detail, type_.detail)
    match type_.kind:
        case "num":
            tail = ", the hour of the day" if word == CLOCK else f" of {word}" if word else ""
            return f"a whole number{tail}", f"whole numbers{tail}"
        case "date":
            return "a date as YYYY-MM-DD", "dates as YYYY-MM-DD"
        case "str":
            noun = type_.detail if type_.detail in ("id", "name") else "text"
            return f"{'an' if noun == 'id' else 'a'} {noun}", f"{noun}s"
        case "row":
            return "given by its id", "ids"
        case _:
            raise SpecError(f"an answer cannot report a value of type {type_.kind}")
