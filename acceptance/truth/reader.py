"""Reads a prompt: follows every reading and keeps those that reach its last character."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

from acceptance.truth import frames
from acceptance.truth.program import (
    Act,
    Best,
    ChoiceTotal,
    Choose,
    Condition,
    Demand,
    Fixed,
    Follow,
    Found,
    Group,
    Named,
    Of,
    Only,
    Operand,
    Program,
    Rows,
    Step,
    Term,
    Total,
    Try,
)
from acceptance.truth.steps import belongs, step_of
from acceptance.truth.world import Attribute, Handle, NotCoveredError, World

T = TypeVar("T")
Reads = Iterator[tuple[T, int]]
"""What stands at a place, with the place after it."""
Scope = dict[str, tuple[str, str]]
"""What each name stands for: `row`, `set`, `num` or, if it may only be told, `word`; and the entity."""


class Reader:
    """Reads the prompt of a world.

    Args:
        world: Whose words it uses.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.text = world.task.prompt
        self.furthest = 0

    def programs(self) -> list[Program]:
        """All readings of the prompt.

        Raises:
            NotCoveredError: there is none; the message quotes where the reader stopped.
        """
        found = list(dict.fromkeys(self._whole(0, {}, ())))
        if not found:
            raise NotCoveredError(f"prompt not understood at: {self.text[self.furthest : self.furthest + 60]!r}")
        return found

    # ------------------------------------------------------------------------------------------------- sentences

    def _whole(self, at: int, scope: Scope, steps: tuple[Step, ...]) -> Iterator[Program]:
        for report, end in self._report(at, scope):
            if end == len(self.text):
                yield Program(steps, report)
        for warning in (*frames.WARNINGS, *frames.LIMITS):
            if self.text.startswith(f"{warning} ", at):
                yield from self._whole(at + len(warning) + 1, scope, steps)
        for kind, ways in frames.STEPS.items():
            for way in ways:
                for found, end in self._frame(way, at, scope):
                    step = step_of(kind, found, self.world.nouns)
                    if step is not None and belongs(step, steps) and self.text[end : end + 1] == " ":
                        yield from self._whole(end + 1, scope | self._declared(step), (*steps, step))

    def _declared(self, step: Step) -> Scope:
        match step:
            case Only(name, rows) | Best(name, rows):
                return {name: ("row", rows.entity)}
            case Follow(name, Of(Term(attribute))) | Group(name, attribute):
                return {name: ("row", attribute.unit)}
            case Total(name):
                return {name: ("num", "")}
            case ChoiceTotal(name) | Try(name):
                return {name: ("word", "")}
            case Choose(name, _, rows):
                return {name: ("set", rows.entity)}
            case _:
                return {}

    def _report(self, at: int, scope: Scope) -> Reads[tuple[tuple[str, Operand], ...]]:
        for told in frames.NOTHING:
            if self.text.startswith(told, at):
                yield (), at + len(told)
        for begins, way in (
            *((told, '"{field}": {tell} ({form})') for told in frames.FIELDS_FIRST),
            *((told, '{tell} as "{field}" ({form})') for told in frames.VALUES_FIRST),
        ):
            if self.text.startswith(begins, at):
                for items, end in self._list(lambda place, way=way: self._frame(way, place, scope), at + len(begins)):
                    if self.text.startswith(".", end):
                        yield tuple((item["field"], item["tell"]) for item in items), end + 1

    def _list(self, item: Callable[[int], Reads[T]], at: int, least: int = 1) -> Reads[tuple[T, ...]]:
        """`a`, `a and b`, `a, b and c`."""
        for first, end in item(at):
            if least == 1:
                yield (first,), end
            if self.text.startswith(" and ", end):
                for second, last in item(end + 5):
                    yield (first, second), last
            if self.text.startswith(", ", end):
                for rest, last in self._list(item, end + 2, 2):
                    yield (first, *rest), last

    def _frame(self, way: str, at: int, scope: Scope) -> Reads[Found]:
        """Match a frame: its words literally, its slots by their readers."""
        head, brace, rest = way.partition("{")
        self.furthest = max(self.furthest, at)
        if not self.text.startswith(head, at):
            return
        if not brace:
            yield {}, at + len(head)
            return
        slot, _, rest = rest.partition("}")
        for value, end in self._slots[slot](at + len(head), scope):
            for found, last in self._frame(rest, end, scope):
                yield {slot: value, **found}, last

    @cached_property
    def _slots(self) -> dict[str, Callable[[int, Scope], Reads[object]]]:
        return {
            "new": self._new, "noun": self._noun, "one": self._one, "rows": self._rows, "some": self._some,
            "again": self._again, "chosen": self._chosen, "there": self._there, "relation": self._relation,
            "many": self._many, "count": self._most, "total": self._total, "none": self._none,
            "term": self._any_term, "peak": self._peak, "link": self._link, "choice": self._choice,
            "set": self._set, "same": lambda at, scope: self._pattern(r"X\d+", at), "end": self._end,
            "which": lambda at, scope: self._pattern(r"such|best", at), "act": self._act, "other": self._other,
            "test": self._test, "field": lambda at, scope: self._pattern(r"\w+", at), "tell": self._tell,
            "form": lambda at, scope: self._pattern(r"[^()]+", at),
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ rows

    def _pattern(self, pattern: str, at: int) -> Reads[str]:
        match = re.compile(pattern).match(self.text, at)
        if match:
            yield match[0], match.end()

    def _new(self, at: int, scope: Scope) -> Reads[str]:
        yield from ((name, end) for name, end in self._pattern(r"X\d+", at) if name not in scope)

    def _noun(self, at: int, scope: Scope) -> Reads[str]:
        for entity, (noun, _) in self.world.nouns.items():
            if self.text.startswith(noun, at):
                yield entity, at + len(noun)

    def _again(self, at: int, scope: Scope) -> Reads[str]:
        """What a row was called before: its noun, or the relation that led to it."""
        relations = [item.label for known in self.world.attributes.values() for item in known if item.kind == "row"]
        for word in dict.fromkeys([noun for noun, _ in self.world.nouns.values()] + relations):
            if self.text.startswith(f"{word} ", at):
                yield word, at + len(word)

    def _chosen(self, at: int, scope: Scope) -> Reads[str]:
        for entity, (_, nouns) in self.world.nouns.items():
            if self.text.startswith(nouns, at):
                yield entity, at + len(nouns)

    def _one(self, at: int, scope: Scope) -> Reads[Rows]:
        for entity, end in self._noun(at, scope):
            yield from self._narrowed(entity, end, scope)

    def _there(self, at: int, scope: Scope) -> Reads[Rows]:
        """`rooms there are whose ...`."""
        for entity, end in self._chosen(at, scope):
            if self.text.startswith(" there are", end):
                yield Rows(entity), end + 10
                yield from self._narrowed(entity, end + 10, scope)

    def _some(self, at: int, scope: Scope) -> Reads[Rows]:
        start = at + 4 if self.text.startswith("all ", at) else at
        for entity, (_, nouns) in self.world.nouns.items():
            if self.text.startswith(nouns, start):
                end = start + len(nouns)
                yield Rows(entity), end
                if start == at:
                    yield from self._narrowed(entity, end, scope)

    def _rows(self, at: int, scope: Scope) -> Reads[Rows]:
        if self.text.startswith("all ", at):
            yield from self._some(at, scope)
        elif self.text.startswith("the ", at):
            yield from self._some(at + 4, scope)

    def _narrowed(self, entity: str, at: int, scope: Scope) -> Reads[Rows]:
        if self.text.startswith(" ", at):
            for conditions, end in self._list(lambda place: self._condition(entity, place, scope), at + 1):
                yield Rows(entity, conditions), end

    def _condition(self, entity: str, at: int, scope: Scope) -> Reads[Condition]:
        for begins in ("that are ", "that is "):
            if self.text.startswith(begins, at):
                for term, end in self._term(entity, at + len(begins), scope):
                    if term.attribute.kind == "bool":
                        yield Condition(term, "yes", None), end
        if self.text.startswith("whose ", at):
            for term, end in self._term(entity, at + 6, scope):
                if term.attribute.kind != "bool":
                    for sign, start in self._sign(end):
                        for value, last in self._compared(term.attribute, start, scope):
                            yield Condition(term, sign, value), last

    def _compared(self, attribute: Attribute, at: int, scope: Scope) -> Reads[Operand]:
        """A value; a row behind its own noun, as in `whose home campus is Dizate Bokoru`, goes by its name alone."""
        yield from self._value(attribute.kind, attribute.unit, at, scope)
        if attribute.kind == "row" and f" {attribute.label}".endswith(f" {self.world.nouns[attribute.unit][0]}"):
            yield from ((Fixed(handle), end) for handle, end in self._row(attribute.unit, at, ""))
            begins = "the one "
            if self.text.startswith(begins, at):
                for handle, end in self._row(attribute.unit, at + len(begins), ""):
                    if self.text.startswith("with id ", at + len(begins)):
                        yield Fixed(handle), end

    def _sign(self, at: int) -> Reads[str]:
        for sign, ways in frames.COMPARATORS.items():
            told = [f" {be} {way} ".replace("  ", " ") for be in ("is", "are") for way in ways]
            for way in (f" {sign} ", *told):
                if self.text.startswith(way, at):
                    yield sign, at + len(way)

    # ---------------------------------------------------------------------------------------------------- groups

    def _relation(self, at: int, scope: Scope) -> Reads[Attribute]:
        for known in self.world.attributes.values():
            for item in known:
                if item.kind == "row" and not item.parameters and self.text.startswith(item.label, at):
                    yield item, at + len(item.label)

    def _many(self, at: int, scope: Scope) -> Reads[tuple[bool, Rows]]:
        """`most room bookings whose ...`."""
        for word, largest in frames.NUMBERS.items():
            if self.text.startswith(f"{word} ", at):
                yield from (((largest, rows), end) for rows, end in self._some(at + len(word) + 1, scope))

    def _most(self, at: int, scope: Scope) -> Reads[bool]:
        for word, largest in frames.NUMBERS.items():
            told = word.removesuffix(" of")
            if self.text.startswith(told, at):
                yield largest, at + len(told)

    def _total(self, at: int, scope: Scope) -> Reads[tuple[bool, Term]]:
        """`highest combined headcount`."""
        for word, largest in frames.PEAKS.items():
            for way in frames.TOTALS if self.text.startswith(f"{word} ", at) else ():
                for entity in self.world.nouns:
                    for term, end in self._filled(entity, way, at + len(word) + 1, scope):
                        if term.attribute.kind == "num":
                            yield (largest, term), end

    def _none(self, at: int, scope: Scope) -> Reads[str]:
        """The entity of rows that do not count when nothing is related to them; "" when that is not said."""
        yield "", at
        for entity, (_, nouns) in self.world.nouns.items():
            told = f" ({nouns} with none do not count)"
            if self.text.startswith(told, at):
                yield entity, at + len(told)

    # ------------------------------------------------------------------------------------------------------ sets

    def _choice(self, at: int, scope: Scope) -> Reads[tuple[int, Rows, tuple[Demand, ...]]]:
        for size, end in self._pattern(r"\d+(?= different )", at):
            for rows, start in self._some(end + 11, scope):
                yield (int(size), rows, ()), start
                for begins in (" such that ", ", with "):
                    if self.text.startswith(begins, start):
                        entity, first = rows.entity, start + len(begins)
                        for demands, last in self._list(lambda at, to=entity: self._demand(to, at, scope), first):
                            yield (int(size), rows, demands), last

    def _set(self, at: int, scope: Scope) -> Reads[str]:
        yield from ((name, end) for name, end in self._pattern(r"X\d+", at) if scope.get(name, " ")[0] == "set")

    def _end(self, at: int, scope: Scope) -> Reads[bool]:
        yield from ((frames.ENDS[word], end) for word, end in self._pattern("|".join(frames.ENDS), at))

    def _filled(self, entity: str, way: str, at: int, scope: Scope) -> Reads[Term]:
        """A phrase with an attribute in it."""
        head, _, rest = way.partition("{term}")
        if self.text.startswith(head, at):
            for term, end in self._term(entity, at + len(head), scope):
                if self.text.startswith(rest, end):
                    yield term, end + len(rest)

    def _demand(self, entity: str, at: int, scope: Scope) -> Reads[Demand]:
        for kind, ways in (("distinct", frames.DISTINCT), *frames.GOALS.items()):
            for way in dict.fromkeys(way.replace("{be}", be) for way in ways for be in ("is", "are")):
                yield from ((Demand(kind, term), end) for term, end in self._filled(entity, way, at, scope))
        for way in frames.SUMS:
            for term, end in self._filled(entity, way, at, scope):
                for sign, start in self._sign(end):
                    for value, last in self._value("num", term.attribute.unit, start, scope):
                        yield Demand(sign, term, value), last

    # ---------------------------------------------------------------------------------------------------- values

    def _any_term(self, at: int, scope: Scope) -> Reads[Term]:
        for entity in self.world.nouns:
            yield from self._term(entity, at, scope)

    def _term(self, entity: str, at: int, scope: Scope, names: str = "") -> Reads[Term]:
        for attribute in self.world.attributes[entity]:
            if names and attribute.label not in ("name", "id"):
                continue
            for arguments, end in self._labelled(attribute, attribute.label + names, at, scope):
                yield Term(attribute, arguments), end

    def _labelled(self, attribute: Attribute, label: str, at: int, scope: Scope) -> Reads[tuple[Operand, ...]]:
        head, brace, rest = label.partition("{")
        if not self.text.startswith(head, at):
            return
        if not brace:
            yield (), at + len(head)
            return
        number, _, rest = rest.partition("}")
        for value, end in self._value(*attribute.parameters[int(number)], at + len(head), scope):
            for values, last in self._labelled(attribute, rest, end, scope):
                yield (value, *values), last

    def _peak(self, at: int, scope: Scope) -> Reads[tuple[bool, Term]]:
        for word, largest in frames.PEAKS.items():
            if self.text.startswith(f"{word} ", at):
                for term, end in self._any_term(at + len(word) + 1, scope):
                    if term.attribute.kind in ("num", "date"):
                        yield (largest, term), end

    def _of(self, at: int, scope: Scope) -> Reads[Of]:
        """`the home campus of X1`; with more to be said, `X1's arrival time from the campus Doru`."""
        for name, (what, entity) in scope.items():
            if what != "row":
                continue
            if self.text.startswith("the ", at):
                for term, end in self._term(entity, at + 4, scope):
                    if self.text.startswith(f" of {name}", end) and not self.text[end + 4 + len(name)].isdigit():
                        yield Of(term, name), end + 4 + len(name)
            if self.text.startswith(f"{name}'s ", at):
                for term, end in self._term(entity, at + len(name) + 3, scope):
                    if term.arguments:
                        yield Of(term, name), end

    def _link(self, at: int, scope: Scope) -> Reads[Of]:
        yield from ((of, end) for of, end in self._of(at, scope) if of.term.attribute.kind == "row")

    def _tell(self, at: int, scope: Scope) -> Reads[Operand]:
        yield from self._of(at, scope)
        for name, (what, entity) in scope.items():
            if what in ("num", "word") and re.compile(rf"{name}(?!\d)").match(self.text, at):
                yield Named(name), at + len(name)
            if what == "set" and self.text.startswith("the ", at):
                for term, end in self._term(entity, at + 4, scope, "s"):
                    if self.text.startswith(f" of {name}", end):
                        yield Of(term, name), end + 4 + len(name)

    def _value(self, kind: str, unit: str, at: int, scope: Scope) -> Reads[Operand]:
        for name, end in self._pattern(r"X\d+|it\b", at):
            what, entity = scope.get(name, ("", ""))
            if (kind == "num" and what == "num") or (kind == "row" and what == "row" and entity == unit):
                yield Named(name), end
        for of, end in self._of(at, scope):
            attribute = of.term.attribute
            if attribute.kind == kind and (kind != "row" or attribute.unit == unit):
                yield of, end
        if kind == "num":
            yield from self._amount(unit, at)
        elif kind == "date":
            yield from ((Fixed(day), end) for day, end in self._pattern(r"\d{4}-\d\d-\d\d", at))
        elif kind == "str":
            yield from ((Fixed(text[1:-1]), end) for text, end in self._pattern(r"'[^']*'|\"[^\"]*\"", at))
        elif kind == "row":
            begins = f"the {self.world.nouns[unit][0]} "
            yield from ((Fixed(handle), end) for handle, end in self._row(unit, at, begins))

    def _amount(self, unit: str, at: int) -> Reads[Fixed]:
        words = self.world.task.docs["units"].get(unit, "")
        for digits, end in self._pattern(r"-?(?:0|[1-9]\d*)(?!\d)", at):
            singular = {"people": "person"}.get(words, words.removesuffix("s") if unit != "oclock" else words)
            said = "" if not words else f" {singular if int(digits) == 1 else words}"
            if self.text.startswith(said, end):
                yield Fixed(int(digits)), end + len(said)

    def _row(self, entity: str, at: int, begins: str) -> Reads[Handle]:
        if not self.text.startswith(begins, at):
            return
        start = at + len(begins)
        for handle in self.world.handles(entity):
            row = self.world[handle]
            ways = [f"with id {row['id']}"] if "id" in row else []
            if "name" in row:
                ways += [str(row["name"]), f'"{row["name"]}"']
            for way in ways:
                if self.text.startswith(way, start) and not self.text[start + len(way)].isalnum():
                    yield handle, start + len(way)

    # --------------------------------------------------------------------------------------------------- actions

    def _test(self, at: int, scope: Scope) -> Reads[tuple[Operand, str, Operand]]:
        for of, end in self._of(at, scope):
            for sign, start in self._sign(end):
                for right, last in self._compared(of.term.attribute, start, scope):
                    yield (of, sign, right), last
        for name, end in self._pattern(r"X\d+", at):
            if scope.get(name, " ")[0] == "num":
                for sign, start in self._sign(end):
                    for right, last in self._value("num", "", start, scope):
                        yield (Named(name), sign, right), last

    def _other(self, at: int, scope: Scope) -> Reads[Act | None]:
        if self.text.startswith("do nothing", at):
            yield None, at + len("do nothing")
        yield from self._act(at, scope)

    def _act(self, at: int, scope: Scope) -> Reads[Act]:
        for name, phrase, parameters in self.world.task.docs["actions"]:
            kinds = {key: (kind, unit) for key, (kind, unit) in parameters}
            yield from ((Act(name, found), end) for found, end in self._phrase(phrase, kinds, at, scope))

    def _phrase(
        self, phrase: str, kinds: dict[str, tuple[str, str]], at: int, scope: Scope
    ) -> Reads[tuple[tuple[str, Operand], ...]]:
        head, brace, rest = phrase.partition("{")
        if not self.text.startswith(head, at):
            return
        if not brace:
            yield (), at + len(head)
            return
        slot, _, rest = rest.partition("}")
        kind, unit = kinds[slot]
        values = self._value(kind, unit, at + len(head), scope | {"it": ("row", unit)})
        for value, end in values:
            for others, last in self._phrase(rest, kinds, end, scope):
                yield ((slot, value), *others), last
