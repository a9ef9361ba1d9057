"""Reading the last sentence of a prompt, what is reported, field by field; and what the user is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from envsynth.author.procedural.ir import Asked, Attr, Const, Of, Operand, Ref, Type
from envsynth.author.procedural.parse.forms import USER_SAYS
from envsynth.author.procedural.parse.phrases import Phrases

Slots = dict[str, Any]
"""What the slots of a form have yielded so far, by slot; plus `entity`, `label`, `owner`, `target`, `goal`."""

Report = tuple[tuple[str, Operand], ...]

_TOPIC = re.compile(r"[a-z][a-z0-9_]*")
_FIELD = re.compile(r'"([A-Za-z_]\w*)"')


class Reports(Phrases):
    """Reads the fields of an answer, over the variables that the sentences before have bound."""

    def slot_values(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        """Read a series of values, each with its field behind it."""
        del slots
        for report, end in self.series(position, self.value):
            yield {"report": report}, end

    def slot_fields(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        """Read a series of fields, each with its value behind it."""
        del slots
        for report, end in self.series(position, self.field):
            yield {"report": report}, end

    def series(
        self, position: int, item: Callable[[int], Iterator[tuple[tuple[str, Operand], int]]]
    ) -> Iterator[tuple[Report, int]]:
        """Read "a", "a and b", "a, b and c"."""
        for first, end in item(position):
            yield (first,), end
            for start in self.literal(end, " and "):
                for last, behind in item(start):
                    yield (first, last), behind
            for start in self.literal(end, ", "):
                for rest, behind in self.series(start, item):
                    if len(rest) > 1:
                        yield (first, *rest), behind

    def value(self, position: int) -> Iterator[tuple[tuple[str, Operand], int]]:
        """Read `the name of X1 as "room_name" (a name)`."""
        for operand, how, end in self.reported(position):
            for start in self.literal(end, " as "):
                for match, behind in self.token(start, _FIELD, "a field in double quotes"):
                    for last in self.literal(behind, f" ({how})"):
                        yield (match[1], operand), last

    def field(self, position: int) -> Iterator[tuple[tuple[str, Operand], int]]:
        """Read `"room_name": the name of X1 (a name)`."""
        for match, end in self.token(position, _FIELD, "a field in double quotes"):
            for start in self.literal(end, ": "):
                for operand, how, behind in self.reported(start):
                    for last in self.literal(behind, f" ({how})"):
                        yield (match[1], operand), last

    def reported(self, position: int) -> Iterator[tuple[Operand, str, int]]:
        """Read what a field reports, with the format that must be stated."""
        for operand, type_, end in self.reference(position):
            if how := self.docs.format_of(type_, many=False):
                yield operand, how, end
        for operand, type_, end in self.listed(position):
            if how := self.docs.format_of(type_, many=True):
                yield operand, how, end

    def listed(self, position: int) -> Iterator[tuple[Operand, Type, int]]:
        """Read a set of rows, or an attribute of each of them."""
        if self.text.startswith("X", position):
            for var, end in self.variable(position):
                if self.types[var].kind == "rows":
                    yield Ref(var), self.types[var], end
        elif self.text.startswith("the ", position):
            sets = dict.fromkeys(type_ for type_ in self.types.values() if type_.kind == "rows")
            for owner in sets:
                for attr, label, end in self.attr(position + 4, owner.detail):
                    words = self.plural_of(attr)
                    for var, behind in self.owner(end, words, owner):
                        yield Of(var, attr), label.type, behind

    @staticmethod
    def plural_of(attr: Attr) -> str:
        """What links the attribute with a set: names and ids take a plural, others "of each of"."""
        return "s of " if attr.name in ("name", "id") and not attr.args else " of each of "

    # ----------------------------------------------------------------------------------------------------- the user

    def slot_topic(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        """Read what the user is asked about; where the user's words are known, one of their topics."""
        del slots
        for match, end in self.token(position, _TOPIC, "a topic"):
            if self.docs.user is None or match[0] in self.docs.user:
                yield {"topic": match[0]}, end
            else:
                self.miss(position, "a topic that the user knows")

    def slot_what(self, position: int, slots: Slots) -> Iterator[tuple[Slots, int]]:
        """Read what the user is asked for."""
        del slots
        for type_, words in self.docs.subjects().items():
            for end in self.literal(position, words):
                yield {"type": type_}, end

    def asked(self, slots: Slots) -> Iterator[Asked]:
        """What the user knows, with the value where the user's words are there to be read; nothing where they do not fit."""
        topic, type_ = slots["topic"], slots["type"]
        if self.docs.user is None:
            yield Asked(topic, type_.kind, type_.detail, None)
            return
        said = Reports(self.docs.user[topic], self.docs)
        for start in said.literal(0, USER_SAYS[0]):
            for value, end in said.told(start, type_):
                if said.text[end:] == USER_SAYS[1]:
                    yield Asked(topic, type_.kind, type_.detail, value)

    def told(self, position: int, type_: Type) -> Iterator[tuple[int | str, int]]:
        """Read a value in the user's words: a number, a date, or a name in double quotes."""
        if type_.kind != "row":
            for operand, end in self.operand(position, type_):
                if isinstance(operand, Const):
                    yield operand.value, end
        elif self.text.startswith('"', position):
            yield from self.name(position)
