"""Reads the one-sentence prompts of the nano tier back into their programs.

    Read LABEL of ROW. | Find NOUN with LABEL VALUE. | an action's phrase, with values or `LABEL of ROW` in its slots
    ROW = NOUN NAME | NOUN of ROW, where the first noun is what the row points to

It knows the public docs and the program types alone, as the parser of the longer language does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Const,
    IRTypeError,
    Let,
    Of,
    Only,
    Operand,
    Ref,
    Step,
    Task,
    To,
    Type,
    check,
)
from envsynth.author.procedural.parse.docs import Docs, Phrase
from envsynth.author.procedural.parse.errors import ParseError

_VALUE = r"[a-z]+"
Steps = tuple[Step, ...]
"""Lets that a phrase needs."""


def parse_brief(text: str, docs: Mapping[str, Any]) -> Task:
    """Read a one-sentence prompt.

    Args:
        text: The prompt, whole.
        docs: Public docs of its world.

    Returns:
        The program; it is well-typed.

    Raises:
        ParseError: the text is not understood, has two meanings, or states an ill-typed program.
    """
    known = Docs(docs)
    readings = list(dict.fromkeys(_Reader(known).tasks(text)))
    if len(readings) != 1:
        raise ParseError(f"{len(readings)} readings of {text[:80]!r}", 0, ("one sentence of the brief language",))
    try:
        check(readings[0], known)
    except IRTypeError as error:
        raise ParseError(f"the prompt states an ill-typed task: {error}", len(text)) from error
    return readings[0]


class _Reader:
    def __init__(self, docs: Docs) -> None:
        self.docs = docs

    def tasks(self, text: str) -> Iterator[Task]:
        """Every reading of a sentence."""
        if text.startswith("Read ") and text.endswith("."):
            for steps, label, operand in self.reads(text.removeprefix("Read ").removesuffix(".")):
                yield Task(steps, ((label, operand),))
        if found := re.fullmatch(rf"Find ({_VALUE}) with ({_VALUE}) ({_VALUE})\.", text):
            for entity in self.entities(found[1]):
                for attr in self.attrs(entity, found[2], "str"):
                    yield Task(self.first(entity, attr, found[3]), (("name", Of("X1", Attr("name"))),))
        for phrase in self.docs.phrases.values():
            yield from self.acts(phrase, text)

    def acts(self, phrase: Phrase, text: str) -> Iterator[Task]:
        """Readings as an action: at most one of its values is read from a row."""
        names = [part[1:-1] for part in phrase.parts if part.startswith("{")]
        pattern = "".join("(.+)" if part.startswith("{") else re.escape(part) for part in phrase.parts)
        found = re.fullmatch(pattern + r"\.", text[:1].lower() + text[1:])
        if not found:
            return
        types = dict(phrase.params)
        given = dict(zip(names, found.groups(), strict=True))
        choices = [list(self.operands(given[name], types[name])) for name in types]
        for choice in itertools.product(*choices):
            if sum(bool(steps) for steps, _ in choice) <= 1:
                steps = tuple(step for steps, _ in choice for step in steps)
                args = tuple((name, operand) for name, (_, operand) in zip(types, choice, strict=True))
                yield Task((*steps, Act(phrase.op, args)), ())

    def operands(self, text: str, type_: Type) -> Iterator[tuple[Steps, Operand]]:
        if re.fullmatch(_VALUE, text):
            yield (), Const(text, "str", type_.detail)
        for steps, _, operand in self.reads(text):
            yield steps, operand

    def reads(self, text: str) -> Iterator[tuple[Steps, str, Operand]]:
        """Readings of `LABEL of ROW`: lets, label, and the value."""
        label, mark, rest = text.partition(" of ")
        for steps, entity in self.rows(rest) if mark else ():
            for attr in self.attrs(entity, label, "str"):
                yield steps, label, Of(f"X{len(steps)}", Attr(attr))

    def rows(self, text: str) -> Iterator[tuple[Steps, str]]:
        """Readings of a row: lets up to it, and its entity."""
        if found := re.fullmatch(rf"({_VALUE}) ({_VALUE})", text):
            for entity in self.entities(found[1]):
                yield self.first(entity, "name", found[2]), entity
        noun, mark, rest = text.partition(" of ")
        for steps, owner in self.rows(rest) if mark else ():
            for target in self.entities(noun):
                for relation in self.attrs(owner, noun, "row"):
                    if self.docs.by_name[owner, relation].type.detail == target:
                        yield (*steps, Let(f"X{len(steps) + 1}", To(Ref(f"X{len(steps)}"), relation))), target

    def first(self, entity: str, attr: str, value: str) -> Steps:
        detail = self.docs.by_name[entity, attr].type.detail
        return (Let("X1", Only(entity, (Atom(Attr(attr), "==", Const(value, "str", detail)),))),)

    def entities(self, noun: str) -> Iterator[str]:
        return (entity for entity, (one, _) in self.docs.nouns.items() if one == noun)

    def attrs(self, entity: str, label: str, kind: str) -> Iterator[str]:
        labels = self.docs.labels[entity]
        return (item.name for item in labels if "".join(item.parts) == label and item.type.kind == kind)
