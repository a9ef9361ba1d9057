"""Writes a nano task as one short sentence: few tokens to read, and still all of its program.

    Read hue of car vos.                 one call
    Read zone of farm of car vos.        two calls: the farm that the car points to
    Find car with hue kil.
    Set hue of car vos to kil.
    Set hue of car vos to hue of car lum.

`envsynth.author.procedural.parse.brief` reads the program back from the sentence and the public docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.ir import Act, Const, Let, Of, Only, Operand, Ref, Task, To
from envsynth.errors import SpecError

LANGUAGE = "brief"
"""Name of this language in public docs."""


def write(program: Task, docs: Mapping[str, Any]) -> str:
    """Write a nano task as a prompt.

    Args:
        program: A program of one of the nano kinds.
        docs: Public docs of its world.

    Returns:
        One sentence, which parses back to exactly this program.

    Raises:
        SpecError: the program is of another tier.
    """
    writer = _Writer(docs)
    for step in program.steps:
        match step:
            case Let(var, Only(entity, (atom,))) if isinstance(atom.value, Const):
                writer.lets[var] = (entity, atom.attr.name, str(atom.value.value))
            case Let(var, To(Ref(source), relation)):
                writer.lets[var] = (writer.target(source, relation), relation, source)
            case _:
                pass
    match program.steps, program.report:
        case (*_, Act(op, args)), ():
            phrase: str = next(phrase for name, phrase, _ in docs["actions"] if name == op)
            text = phrase.format(**{name: writer.operand(value) for name, value in args})
            return f"{text[0].upper()}{text[1:]}."
        case (Let(_, Only(_, _)),), (("name", Of(var, attr)),) if attr.name == "name":
            entity, name, value = writer.lets[var]
            return f"Find {writer.nouns[entity]} with {writer.labels[entity, name]} {value}."
        case _, ((_, operand),):
            return f"Read {writer.operand(operand)}."
        case _:
            raise SpecError(f"no task of the nano tier: {program!r}")


class _Writer:
    """Holds the words of a world, and what each variable stands for."""

    def __init__(self, docs: Mapping[str, Any]) -> None:
        self.nouns = {entity: one for entity, (one, _) in docs["entities"].items()}
        self.labels = {(entity, name): label for entity, name, label, *_ in docs["attrs"]}
        self.targets = {(entity, name): type_[1] for entity, name, _, type_, _ in docs["attrs"] if type_[0] == "row"}
        self.lets: dict[str, tuple[str, str, str]] = {}

    def target(self, var: str, relation: str) -> str:
        return self.targets[self.lets[var][0], relation]

    def operand(self, operand: Operand) -> str:
        match operand:
            case Const(value, _, _):
                return str(value)
            case Of(var, attr):
                return f"{self.labels[self.lets[var][0], attr.name]} of {self.row(var)}"
            case _:
                raise SpecError(f"no operand of a nano task: {operand!r}")

    def row(self, var: str) -> str:
        entity, _, value = self.lets[var]
        return f"{self.nouns[entity]} of {self.row(value)}" if value in self.lets else f"{self.nouns[entity]} {value}"
