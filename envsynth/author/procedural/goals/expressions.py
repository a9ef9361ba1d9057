"""Python expressions over the initial rows: attributes, operands, conditions, descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from envsynth.author.procedural.ir import (
    Asked,
    Atom,
    Attr,
    Choose,
    Const,
    Count,
    GroupBy,
    Named,
    Node,
    Of,
    Only,
    Operand,
    Pick,
    Reach,
    Ref,
    Schema,
    Sum,
    Task,
    To,
    Type,
    check,
)
from envsynth.author.procedural.mechanism import Action, Col, Composed, Derived
from envsynth.errors import AuthorError


class GoalsWorld(Composed, Schema, Protocol):
    """What the goals must know of a composition."""

    @property
    def tables(self) -> Mapping[str, tuple[Col, ...]]:
        """Columns by entity."""
        ...

    @property
    def derived(self) -> Mapping[tuple[str, str], Derived]:
        """Derived attributes by entity and name."""
        ...

    @property
    def actions(self) -> Mapping[str, Action]:
        """Actions by name."""
        ...


class Expressions:
    """Writes the expressions of one task; each variable becomes a function without arguments.

    Args:
        world: The composition.
        task: A program.

    Raises:
        IRTypeError: the program is ill-typed.
    """

    def __init__(self, world: GoalsWorld, task: Task) -> None:
        self.world = world
        self.types = check(task, world)

    def type_of(self, operand: Operand) -> Type:
        """Type of an operand."""
        match operand:
            case Const(_, kind, unit):
                return Type(kind, unit)
            case Named(entity, _, _):
                return Type("row", entity)
            case Ref(var):
                return self.types[var]
            case Of(var, attr):
                return self.attr_type(self.types[var].detail, attr)

    def attr_type(self, entity: str, attr: Attr) -> Type:
        """Type of an attribute that the type check has accepted.

        Raises:
            AuthorError: the entity lacks it.
        """
        found = self.world.attr_type(entity, attr.name)
        if found is None:
            raise AuthorError(f"{entity} has no attribute {attr.name!r}")
        return found

    def operand(self, operand: Operand) -> str:
        """An operand's value; a row as a dictionary.

        Raises:
            AuthorError: an attribute of a chosen set, which can be reported only.
        """
        match operand:
            case Const(value, _, _):
                return repr(value)
            case Named(entity, by, value):
                return f"row_of({entity!r}, {by!r}, {value!r})"
            case Ref(var):
                return f"{var}()"
            case Of(var, attr):
                if self.types[var].kind == "rows":
                    raise AuthorError(f"{var} is a chosen set: its attributes can be reported only")
                return self.attribute(self.types[var].detail, f"{var}()", attr)

    def attribute(self, entity: str, row: str, attr: Attr) -> str:
        """An attribute of a row; a related row as a dictionary."""
        if (entity, attr.name) in self.world.derived:
            arguments = ["db", row, *(self.operand(operand) for operand in attr.args)]
            return f"g_{attr.name}({', '.join(arguments)})"
        col = self.world.col(entity, attr.name)
        if col.kind != "fk":
            return f"{row}[{col.column!r}]"
        column, key = self.world.fk(entity, attr.name)
        return f"row_of({col.ref!r}, {key!r}, {row}[{column!r}])"

    def plain(self, text: str, type_: Type) -> str:
        """The value as a scalar: a row by its id, a truth value as True or False."""
        if type_.kind == "row":
            return f"{text}['id']"
        return f"bool({text})" if type_.kind == "bool" else text

    def plain_attribute(self, entity: str, row: str, attr: Attr) -> str:
        """An attribute of a row as a scalar."""
        return self.plain(self.attribute(entity, row, attr), self.attr_type(entity, attr))

    def key_attribute(self, entity: str, row: str, attr: Attr) -> str:
        """An attribute of a row for comparison among rows of the same entity: a stored relation by its key."""
        if (entity, attr.name) in self.world.derived:
            return self.plain_attribute(entity, row, attr)
        return f"{row}[{self.world.col(entity, attr.name).column!r}]"

    def plain_operand(self, operand: Operand) -> str:
        """An operand as a scalar."""
        return self.plain(self.operand(operand), self.type_of(operand))

    def condition(self, entity: str, row: str, atom: Atom) -> str:
        """One condition on a row."""
        if atom.value is None:
            return self.attribute(entity, row, atom.attr)
        if (entity, atom.attr.name) not in self.world.derived:
            col = self.world.col(entity, atom.attr.name)
            if col.kind == "fk":
                column, key = self.world.fk(entity, atom.attr.name)
                return f"{row}[{column!r}] {atom.op} {self.operand(atom.value)}[{key!r}]"
        left = self.plain_attribute(entity, row, atom.attr)
        return f"{left} {atom.op} {self.plain_operand(atom.value)}"

    def members(self, entity: str, atoms: Sequence[Atom]) -> str:
        """The initial rows that meet all conditions."""
        if not atoms:
            return f"db[{entity!r}]"
        # Cheap conditions first: the order of a conjunction is free, and derived attributes scan other tables.
        ordered = sorted(atoms, key=lambda atom: (entity, atom.attr.name) in self.world.derived)
        tests = " and ".join(self.condition(entity, "row", atom) for atom in ordered)
        return f"[row for row in db[{entity!r}] if {tests}]"

    def description(self, node: Node) -> str:
        """What a let denotes, or for a choice nothing: any set that meets it will do.

        Raises:
            AuthorError: the node is a choice.
        """
        match node:
            case To() | Asked():
                return self.followed(node)
            case Pick(entity, atoms, direction, attr):
                measure = f"lambda row: {self.plain_attribute(entity, 'row', attr)}"
                return f"extreme({self.members(entity, atoms)}, {measure}, {direction!r})"
            case Only(entity, atoms):
                return f"extreme({self.members(entity, atoms)}, lambda row: 0, 'max')"  # fails unless there is one
            case Count(entity, atoms):
                return f"len({self.members(entity, atoms)})"
            case Sum(entity, atoms, attr):
                value = self.plain_attribute(entity, "row", attr)
                return f"sum({value} for row in {self.members(entity, atoms)})"
            case Choose() | Reach():
                raise AuthorError("a choice denotes no single value")
            case GroupBy(entity, atoms, rel, _, direction, attr):
                key, column = self.related_key(entity, Attr(rel))
                amount = "1" if attr is None else self.plain_attribute(entity, "row", attr)
                shares = f"[({key}, {amount}) for row in {self.members(entity, atoms)}]"
                return f"peak({self.attr_type(entity, Attr(rel)).detail!r}, {column!r}, {shares}, {direction!r})"

    def followed(self, node: To | Asked) -> str:
        """The row that a relation leads to, or what the user tells.

        Raises:
            AuthorError: the user's words are not known.
        """
        if isinstance(node, To):
            return self.attribute(self.type_of(node.src).detail, self.operand(node.src), Attr(node.rel))
        if node.value is None:
            raise AuthorError(f"what the user tells about {node.topic} is not known")
        return self.operand(Named(node.detail, "name", node.value)) if node.kind == "row" else repr(node.value)

    def related_key(self, entity: str, rel: Attr) -> tuple[str, str]:
        """What a row says of the row that it is related to, and the column of that row which holds it."""
        key = self.key_attribute(entity, "row", rel)
        return key, "id" if (entity, rel.name) in self.world.derived else self.world.fk(entity, rel.name)[1]
