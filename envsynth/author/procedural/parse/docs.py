"""The public docs, indexed for the parser; also the schema that the type checker asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.parse.forms import CLOCK_WORD, LINK_WORDS, ONE_WITH_S, SINGULAR_OF, SUFFIXES, UNCHANGED

_SLOT = re.compile(r"(\{\w+\})")


def pieces(template: str) -> tuple[str, ...]:
    """Split a template into literal pieces and `{slots}`; empty pieces are left out."""
    return tuple(piece for piece in _SLOT.split(template) if piece)


@dataclass(frozen=True)
class Label:
    """How one attribute of an entity reads."""

    entity: str
    """Whose attribute."""
    name: str
    """Name in the program."""
    parts: tuple[str, ...]
    """Label, split into words and `{0}`, `{1}` ..."""
    type: Type
    """Type of its value."""
    params: tuple[Type, ...]
    """Types of its arguments."""

    @property
    def plural(self) -> bool:
        """Whether its noun is plural, so that "are" follows it; the noun ends at the first link word or slot."""
        noun: list[str] = []
        for word in self.parts[0].split() if not self.parts[0].startswith("{") else ():
            if word in LINK_WORDS:
                break
            noun.append(word)
        last = noun[-1] if noun else ""
        looks = last[-1:] == "s" and last[-2:] not in ("ss", "us", "is")
        return last in SINGULAR_OF or (looks and last not in ONE_WITH_S)

    @property
    def verb(self) -> str:
        """The form of "to be" that agrees with it."""
        return "are" if self.plural else "is"


@dataclass(frozen=True)
class Phrase:
    """How one action reads."""

    op: str
    """Name in the program."""
    parts: tuple[str, ...]
    """Imperative phrase, split into words and `{parameter}`."""
    params: tuple[tuple[str, Type], ...]
    """Named parameter types."""


class Docs:
    """Indexed public docs; implements `envsynth.author.procedural.ir.Schema`."""

    def __init__(self, docs: Mapping[str, Any]) -> None:
        self.nouns: dict[str, tuple[str, str]] = {key: (one, many) for key, (one, many) in docs["entities"].items()}
        self.labels: dict[str, list[Label]] = {key: [] for key in self.nouns}
        for entity, name, label, type_, params in docs["attrs"]:
            found = Label(entity, name, pieces(label), Type(*type_), tuple(Type(*param) for param in params))
            self.labels[entity].append(found)
        self.by_name = {(label.entity, label.name): label for labels in self.labels.values() for label in labels}
        self.phrases: dict[str, Phrase] = {}
        for op, phrase, params in docs["actions"]:
            typed = tuple((name, Type(*type_)) for name, type_ in params)
            self.phrases[op] = Phrase(op, pieces(phrase), typed)
        self.units: Mapping[str, str] = docs["units"]
        self.user: Mapping[str, str] | None = docs.get("user")

    def attr_type(self, entity: str, name: str) -> Type | None:
        """Type of an attribute, None when the entity lacks it."""
        label = self.by_name.get((entity, name))
        return label.type if label else None

    def attr_params(self, entity: str, name: str) -> tuple[Type, ...]:
        """Parameter types of an attribute."""
        label = self.by_name.get((entity, name))
        return label.params if label else ()

    def action_params(self, op: str) -> tuple[tuple[str, Type], ...] | None:
        """Named parameter types of an action, None when there is no such action."""
        phrase = self.phrases.get(op)
        return phrase.params if phrase else None

    def unit_suffix(self, unit: str, value: int) -> str:
        """What must stand behind a number of this unit: " hour" behind 1, " hours" behind others."""
        word = self.units.get(unit, unit)
        if value == 1 and len(word) > 3 and word not in UNCHANGED:
            ending = next((pair for pair in SUFFIXES if word.endswith(pair[0])), ("", ""))
            word = SINGULAR_OF.get(word, word.removesuffix(ending[0]) + ending[1])
        return f" {word}" if word else ""

    def says_noun(self, label: Label) -> bool:
        """Whether the label of a relation ends with the noun of what it points to, so that a name alone may follow."""
        noun = self.nouns[label.type.detail][0] if label.type.kind == "row" else ""
        text = "".join(label.parts)
        return bool(noun) and (text == noun or text.endswith(f" {noun}"))

    def subjects(self) -> dict[Type, str]:
        """What a user may be asked for, by its type: "number of credits", "hour of the day", "date", "room"."""
        found = {
            Type("date"): "date",
            **{Type("row", entity): singular for entity, (singular, _) in self.nouns.items()},
        }
        for label in self.by_name.values():
            if label.type.kind == "num":
                unit = self.units.get(label.type.detail, label.type.detail)
                found[label.type] = (
                    "hour of the day" if unit == CLOCK_WORD else f"number of {unit}" if unit else "number"
                )
        return found

    def is_time(self, type_: Type) -> bool:
        """Whether values of the type are days or hours of the day."""
        return type_.kind == "date" or (
            type_.kind == "num" and self.units.get(type_.detail, type_.detail) == CLOCK_WORD
        )

    def format_of(self, type_: Type, *, many: bool) -> str:
        """The words that must state the format of an answer field of this type; empty when there are none."""
        unit = self.units.get(type_.detail, type_.detail)
        suffix = ", the hour of the day" if unit == CLOCK_WORD else f" of {unit}" if unit else ""
        one, several = {
            "num": (f"a whole number{suffix}", f"whole numbers{suffix}"),
            "date": ("a date as YYYY-MM-DD", "dates as YYYY-MM-DD"),
            "str": {"id": ("an id", "ids"), "name": ("a name", "names")}.get(type_.detail, ("a text", "texts")),
            "row": ("given by its id", "ids"),
            "rows": ("", "ids"),
        }.get(type_.kind, ("", ""))
        return f"a list of {several}, in any order" if many and several else one
