"""Recursive descent over the phrases below a sentence: operands, labels, conditions, sets of rows, actions.

Every method is a generator of readings: pairs (value, position behind it). All readings are followed, so a text with two
meanings is found out instead of being guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from envsynth.author.procedural.ir import Act, Atom, Attr, Con, Const, Named, Of, Operand, Ref, Type
from envsynth.author.procedural.parse.docs import Docs, Label, Phrase, pieces
from envsynth.author.procedural.parse.forms import AMOUNT, DAY, HOUR, SAME, SETS, SYMBOLS

_VARIABLE = re.compile(r"X[1-9]\d*(?!\w)")
_NUMBER = re.compile(r"(?:0|-?[1-9]\d*)(?![\w-])")
_DAY = re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\w-])")
_CODE = re.compile(r"[A-Z0-9]+(?:-[A-Z0-9]+)+(?![\w-])")
_QUOTED = re.compile(r"'([^'\n]*)'|\"([^\"\n]*)\"")
_NAME_QUOTED = re.compile(r"\"([^\"\n]*)\"")
_NAME_HEAD = re.compile(r"[A-Z][A-Za-z'-]*(?![\w'-])")
_NAME_MORE = re.compile(r" [A-Z0-9][A-Za-z0-9'-]*(?![\w'-])")
_SETS = tuple((kind, pieces(text)) for kind, text in SETS)

Joined = tuple[tuple[str, object], ...]


class Phrases:
    """Reads phrases of one text; sentences bind variables in `types` as they are understood."""

    def __init__(self, text: str, docs: Docs) -> None:
        self.text = text
        self.docs = docs
        self.types: dict[str, Type] = {}
        self.furthest = 0
        self.expected: dict[str, None] = {}

    # ------------------------------------------------------------------------------------------------------- tokens

    def miss(self, position: int, expected: str) -> None:
        """Remember what was expected at the furthest position reached."""
        if position > self.furthest:
            self.furthest = position
            self.expected = {}
        if position == self.furthest:
            self.expected[expected] = None

    def literal(self, position: int, words: str) -> Iterator[int]:
        """Read fixed words."""
        if self.text.startswith(words, position):
            yield position + len(words)
        else:
            same = 0
            while self.text.startswith(words[: same + 1], position):
                same += 1
            if position + same >= self.furthest:
                self.miss(position + same, repr(words[same:]))

    def token(self, position: int, pattern: re.Pattern[str], what: str) -> Iterator[tuple[re.Match[str], int]]:
        """Read one match of a pattern."""
        if match := pattern.match(self.text, position):
            yield match, match.end()
        else:
            self.miss(position, what)

    # ----------------------------------------------------------------------------------------------------- operands

    def operand(self, position: int, wanted: Type) -> Iterator[tuple[Operand, int]]:
        """Read a leaf of a type."""
        match wanted.kind:
            case "num":
                yield from self.number(position, wanted.detail)
            case "date":
                for match, end in self.token(position, _DAY, "a date such as 2031-05-07"):
                    yield Const(match[0], "date"), end
            case "str":
                yield from self.quoted(position, wanted.detail)
            case "row":
                yield from self.named(position, wanted.detail)
            case _:
                pass
        yield from self.bound(position, wanted)

    def bound(self, position: int, wanted: Type) -> Iterator[tuple[Operand, int]]:
        """Read a variable of a type, or an attribute of one."""
        for reference, type_, end in self.reference(position):
            if type_ == wanted:
                yield reference, end
            else:
                self.miss(position, f"a value of type {wanted.kind} {wanted.detail}".rstrip())

    def number(self, position: int, unit: str) -> Iterator[tuple[Operand, int]]:
        """Read a number with the words of its unit."""
        for match, end in self.token(position, _NUMBER, "a number"):
            value = int(match[0])
            for behind in self.literal(end, self.docs.unit_suffix(unit, value)):
                yield Const(value, "num", unit), behind

    def quoted(self, position: int, domain: str) -> Iterator[tuple[Operand, int]]:
        """Read a text in quotes; identifiers that are integers stand bare."""
        for match, end in self.token(position, _QUOTED, "a quoted text"):
            yield Const(match[1] if match[1] is not None else match[2], "str", domain), end
        if domain == "id":
            for match, end in self.token(position, _NUMBER, "an id"):
                yield Const(int(match[0]), "str", domain), end

    def named(self, position: int, entity: str) -> Iterator[tuple[Operand, int]]:
        """Read `the room Vademu` or `the booking with id 120`."""
        for start in self.literal(position, f"the {self.docs.nouns[entity][0]} "):
            for name, end in self.name(start):
                yield Named(entity, "name", name), end
            yield from self.with_id(start, entity)

    def with_id(self, position: int, entity: str) -> Iterator[tuple[Operand, int]]:
        """Read `with id 120`."""
        for start in self.literal(position, "with id "):
            for match, end in self.token(start, _CODE, "a code"):
                yield Named(entity, "id", match[0]), end
            for match, end in self.token(start, _NUMBER, "a number"):
                yield Named(entity, "id", int(match[0])), end

    def unsaid(self, position: int, entity: str) -> Iterator[tuple[Operand, int]]:
        """Read `Vademu` or `the one with id 120` behind a label that has just said the noun; or a variable."""
        for name, end in self.name(position):
            yield Named(entity, "name", name), end
        for start in self.literal(position, "the one "):
            yield from self.with_id(start, entity)
        yield from self.bound(position, Type("row", entity))

    def name(self, position: int) -> Iterator[tuple[str, int]]:
        """Read a name: quoted, or a run of capitalised words."""
        if match := _NAME_QUOTED.match(self.text, position):
            yield match[1], match.end()
        for _, end in self.token(position, _NAME_HEAD, "a name"):
            yield self.text[position:end], end
            behind = end
            while more := _NAME_MORE.match(self.text, behind):
                behind = more.end()
                yield self.text[position:behind], behind

    def variable(self, position: int) -> Iterator[tuple[str, int]]:
        """Read a variable that an earlier sentence has bound."""
        for match, end in self.token(position, _VARIABLE, "a variable"):
            if match[0] in self.types:
                yield match[0], end
            else:
                self.miss(position, "a variable that an earlier sentence has introduced")

    def new_variable(self, position: int) -> Iterator[tuple[str, int]]:
        """Read a variable that no earlier sentence has bound."""
        for match, end in self.token(position, _VARIABLE, "a variable"):
            if match[0] in self.types:
                self.miss(position, "a variable that is not in use yet")
            else:
                yield match[0], end

    def reference(self, position: int) -> Iterator[tuple[Ref | Of, Type, int]]:
        """Read `X1` or an attribute of it, for variables that denote one value."""
        for found, type_, _, end in self.subject(position):
            yield found, type_, end

    def subject(self, position: int) -> Iterator[tuple[Ref | Of, Type, Label | None, int]]:
        """Read `X1`, `the <attribute> of X1` or, for an attribute with arguments, `X1's <attribute>`."""
        if self.text.startswith("X", position):
            for var, end in self.variable(position):
                type_ = self.types[var]
                if type_.kind != "rows":
                    yield Ref(var), type_, None, end
                if type_.kind == "row":
                    for start in self.literal(end, "'s "):
                        for attr, label, behind in self.attr(start, type_.detail):
                            if attr.args:
                                yield Of(var, attr), label.type, label, behind
        elif self.text.startswith("the ", position):
            yield from self.possession(position + 4)

    def possession(self, position: int) -> Iterator[tuple[Ref | Of, Type, Label | None, int]]:
        """Read `<attribute> of X1` for an attribute without arguments."""
        rows = dict.fromkeys(type_.detail for type_ in self.types.values() if type_.kind == "row")
        for entity in rows:
            for attr, label, end in self.attr(position, entity):
                for var, behind in self.owner(end, " of ", Type("row", entity)):
                    if not attr.args:
                        yield Of(var, attr), label.type, label, behind

    def owner(self, position: int, words: str, wanted: Type) -> Iterator[tuple[str, int]]:
        """Read words and a variable of a type."""
        for start in self.literal(position, words):
            for var, end in self.variable(start):
                if self.types[var] == wanted:
                    yield var, end

    # ------------------------------------------------------------------------------------------------------- labels

    def attr(self, position: int, entity: str) -> Iterator[tuple[Attr, Label, int]]:
        """Read the label of an attribute of an entity, with its arguments."""
        for label in self.docs.labels[entity]:
            for args, end in self.filled(position, label.parts, {str(i): t for i, t in enumerate(label.params)}):
                if len(args) == len(label.params):
                    yield (
                        Attr(label.name, tuple(args[str(i)] for i in range(len(args)))),
                        label,
                        end,
                    )

    def filled(
        self, position: int, parts: tuple[str, ...], params: dict[str, Type]
    ) -> Iterator[tuple[dict[str, Operand], int]]:
        """Read words with operands in them: labels and action phrases."""
        if not parts:
            yield {}, position
            return
        head, rest = parts[0], parts[1:]
        if not head.startswith("{"):
            for end in self.literal(position, head):
                yield from self.filled(end, rest, params)
            return
        for value, end in self.operand(position, params[head[1:-1]]):
            for others, behind in self.filled(end, rest, params):
                if others.get(head[1:-1], value) == value:
                    yield {**others, head[1:-1]: value}, behind

    # --------------------------------------------------------------------------------------------------- conditions

    def comparator(self, position: int, type_: Type, verb: str) -> Iterator[tuple[str, int]]:
        """Read the verb and a comparator, with the spaces around them."""
        if type_.kind in ("row", "str"):
            words = SAME
        elif self.docs.is_time(type_):
            words = DAY if type_.kind == "date" else HOUR
        else:
            words = AMOUNT if type_.kind == "num" else {}
        for start in self.literal(position, f" {verb}"):
            for word, op in words.items():
                for end in self.literal(start, word):
                    yield op, end
        for word, op in SYMBOLS.items():
            if type_.kind in ("num", "date") or word in (" = ", " != "):
                for end in self.literal(position, word):
                    yield op, end

    def comparison(self, position: int, type_: Type, label: Label | None) -> Iterator[tuple[str, Operand, int]]:
        """Read a comparator and the value behind it; `label` is what was said before them, if anything."""
        for op, start in self.comparator(position, type_, label.verb if label else "is"):
            said = label is not None and self.docs.says_noun(label)
            for value, end in self.unsaid(start, type_.detail) if said else self.operand(start, type_):
                yield op, value, end

    def atom(self, position: int, entity: str, verb: str) -> Iterator[tuple[Atom, int]]:
        """Read one condition on rows: "whose ...", or "that are ..." with a verb that agrees with the noun."""
        for start in self.literal(position, f"that {verb} "):
            for attr, label, end in self.attr(start, entity):
                if label.type.kind == "bool":
                    yield Atom(attr, "is", None), end
        for start in self.literal(position, "whose "):
            for attr, label, end in self.attr(start, entity):
                for op, value, behind in self.comparison(end, label.type, label):
                    yield Atom(attr, op, value), behind

    def atoms(self, position: int, entity: str, verb: str = "are") -> Iterator[tuple[tuple[Atom, ...], int]]:
        """Read a series of conditions, or nothing."""
        yield (), position
        if self.text.startswith(" ", position):
            for first, end in self.atom(position + 1, entity, verb):
                for rest, behind in self.more_atoms(end, entity, verb):
                    yield (first, *rest), behind

    def more_atoms(self, position: int, entity: str, verb: str) -> Iterator[tuple[tuple[Atom, ...], int]]:
        """Read what follows the first of a series "a", "a and b", "a, b and c"."""
        yield (), position
        for start in self.literal(position, " and "):
            for last, end in self.atom(start, entity, verb):
                yield (last,), end
        for start in self.literal(position, ", "):
            for item, end in self.atom(start, entity, verb):
                for rest, behind in self.more_atoms(end, entity, verb):
                    if rest:
                        yield (item, *rest), behind

    def rows(self, position: int) -> Iterator[tuple[tuple[str, tuple[Atom, ...]], int]]:
        """Read a plural noun with its conditions."""
        for entity, (_, plural) in self.docs.nouns.items():
            for end in self.literal(position, plural):
                for atoms, behind in self.atoms(end, entity):
                    yield (entity, atoms), behind

    # --------------------------------------------------------------------------------------------------- chosen sets

    def set_condition(self, position: int, entity: str) -> Iterator[tuple[Con | tuple[str, Attr], int]]:
        """Read one condition on a chosen set, or its goal (direction, attribute)."""
        for kind, parts in _SETS:
            for start in self.literal(position, parts[0]):
                for attr, label, end in self.attr(start, entity):
                    yield from self.set_rest(end, kind, parts[2:], (attr, label))

    def set_rest(
        self, position: int, kind: str, parts: tuple[str, ...], found: tuple[Attr, Label]
    ) -> Iterator[tuple[Con | tuple[str, Attr], int]]:
        """Read what follows the attribute of a condition on a chosen set."""
        attr, label = found
        if kind == "distinct":
            yield Con("distinct", attr), position
        elif label.type.kind == "num" and kind == "sum":
            # A sum of clock times is an amount, so amounts' comparators are the only ones here.
            for op, start in self.comparator(position, Type("num"), label.verb):
                for value, end in self.operand(start, label.type):
                    yield Con("sum", attr, op, value), end
        elif label.type.kind == "num":
            for end in self.literal(position, "".join(parts).replace("{verb}", label.verb)):
                yield (kind, attr), end

    def set_conditions(self, position: int, entity: str) -> Iterator[tuple[tuple[Con | tuple[str, Attr], ...], int]]:
        """Read a series "c", "c and d", "c, d and e"."""
        for first, end in self.set_condition(position, entity):
            yield (first,), end
            for start in self.literal(end, " and "):
                for last, behind in self.set_condition(start, entity):
                    yield (first, last), behind
            for start in self.literal(end, ", "):
                for rest, behind in self.set_conditions(start, entity):
                    if len(rest) > 1:
                        yield (first, *rest), behind

    # ------------------------------------------------------------------------------------------------------ actions

    def act(self, position: int) -> Iterator[tuple[Act, int]]:
        """Read an action with its arguments."""
        for phrase in self.docs.phrases.values():
            for args, end in self.filled(position, phrase.parts, dict(phrase.params)):
                if len(args) == len(phrase.params):
                    yield (
                        Act(phrase.op, tuple((name, args[name]) for name, _ in phrase.params)),
                        end,
                    )

    def branch(self, position: int) -> Iterator[tuple[tuple[Act, ...], int]]:
        """Read an action, or "do nothing"."""
        for end in self.literal(position, "do nothing"):
            yield (), end
        for act, end in self.act(position):
            yield (act,), end

    def act_on_it(self, position: int, entity: str) -> Iterator[tuple[str, int]]:
        """Read an action whose one parameter, a row of the entity, is "it"."""
        for phrase in self.docs.phrases.values():
            if [type_ for _, type_ in phrase.params] == [Type("row", entity)]:
                for end in self.literal(position, _with_it(phrase)):
                    yield phrase.op, end


def _with_it(phrase: Phrase) -> str:
    return "".join("it" if part.startswith("{") else part for part in phrase.parts)
