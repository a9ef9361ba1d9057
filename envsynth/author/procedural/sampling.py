"""Random, well-typed pieces of task programs that are true of the data: rows, values, conditions, actions, roots.

Thresholds are values that occur in the data, so a strict and a non-strict comparator differ; conditions are asked of a
witness row, so that a set is never empty by accident. Everything is drawn from the generator that the caller seeds.
"""

from __future__ import annotations

import operator
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any

from envsynth.author.procedural.compose import Composition, connect
from envsynth.author.procedural.ir import (
    MEND,
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    Count,
    GroupBy,
    Let,
    Named,
    Of,
    Operand,
    Pick,
    Reach,
    Ref,
    Sum,
    Task,
    Try,
    Type,
)
from envsynth.author.procedural.mechanism import Action, Row
from envsynth.author.procedural.oracle import Oracle
from envsynth.errors import Rejected

ROOT_KINDS = ("pick", "count", "sum", "choose", "act", "pickact", "choose", "pickact", "group", "service")
"""Kinds of root task, by how often they are tried first: reads, plans and writes in about equal parts."""

NO_ROUTE = {"oclock": (99,), "credits": (9999,), "h": (999,)}
"""Values that stand for "there is none" by the policy: odd as thresholds, so no condition compares with them."""

ORDINAL = (Type("num", "oclock"), Type("num", "version"), Type("num", "level"))
"""Numbers that have an order but no sum."""

Overlay = tuple[tuple[str, Row], ...]
"""Distractor rows by entity."""

COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
}
"""Comparators of drawn conditions."""
FEW_ROWS = 3
"""Rows whose values are asked for one by one; of more, those of the whole table cost less."""
ATOM_DRAWS = 12
"""Draws of a condition before its entity is given up."""


_OPEN = 6
"""Databases that stay open: those of the versions that are being hardened."""
_MOST_KNOWN = 4_000
_databases: deque[tuple[Composition, Overlay, Connection, dict[Any, Any]]] = deque(maxlen=_OPEN)


def _database(world: Composition, overlay: Overlay) -> tuple[Connection, dict[Any, Any]]:
    """Open the database of a world with its overlay, or find the one that is open, with what was asked of it before.

    An oracle never writes to it.
    """
    for owner, rows, connection, known in _databases:
        if owner is world and rows == overlay:
            if len(known) > _MOST_KNOWN:
                known.clear()
            return connection, known
    connection = connect(world, overlay)
    connection.execute("PRAGMA query_only = ON")
    asked: dict[Any, Any] = {}
    _databases.appendleft((world, overlay, connection, asked))
    return connection, asked


@dataclass
class Sampler:
    """Draws pieces of programs over one composed world with its overlay."""

    world: Composition
    """The composed world."""
    overlay: Overlay
    """Distractor rows on top of its rows."""
    rng: random.Random
    """Source of all choices."""
    needed: frozenset[str] = frozenset()
    """Skills that the parent already needs: an operator aims at others."""
    connection: Connection = field(init=False)
    """In-memory database of rows and overlay, for the oracle."""
    oracle: Oracle = field(init=False)
    """Answers questions about single rows."""
    _known: dict[Any, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.connection, self._known = _database(self.world, self.overlay)
        self.oracle = Oracle(self.world, self.connection, self._known)

    # ------------------------------------------------------------------------------------------------------- leaves

    def rows(self, entity: str) -> list[Row]:
        """All rows of an entity, overlay included."""
        return [*self.world.rows[entity], *(row for name, row in self.overlay if name == entity)]

    def row(self, site: Named) -> Row:
        """The row that a name or id denotes.

        Raises:
            Rejected: `no_row` when there is none.
        """
        for row in self.rows(site.entity):
            if row[site.by] == site.value:
                return row
        raise Rejected("no_row", f"no {site.entity} has the {site.by} {site.value!r}")

    def numbers(self, entity: str, ids: Iterable[int | str], attr: Attr) -> dict[int | str, int]:
        """Values of a numeric attribute by row id; rows without a value are left out."""
        wanted = list(ids)
        if len(wanted) <= FEW_ROWS:
            values = {row_id: self.oracle.value(entity, row_id, attr) for row_id in wanted}
        else:
            known = self.oracle.values(entity, attr)
            values = {row_id: known.get(row_id) for row_id in wanted}
        return {row_id: value for row_id, value in values.items() if isinstance(value, int)}

    def takes(self, entity: str) -> bool:
        """Whether some action has a parameter for a row of the entity."""
        wanted = Type("row", entity)
        return any(type_ == wanted for action in self.drawable for _, type_ in action.params)

    @property
    def drawable(self) -> list[Action]:
        """Actions that a task may ask for of any row; there is nothing to put in order but what was planted."""
        return [action for name, action in self.world.actions.items() if not name.startswith(MEND)]

    def named(self, entity: str, row: Row) -> Named:
        """Refer to a row by its name where names exist and are unique, else by its id."""
        by = self.world.naming(entity)
        if by == "name" and sum(other["name"] == row["name"] for other in self.rows(entity)) > 1:
            by = "id"
        return Named(entity, by, row[by])

    def operand(self, type_: Type, near: Sequence[str]) -> Operand:
        """Draw a leaf of a type; dates and numbers are values that occur, preferably in the entities of `near`.

        Raises:
            Rejected: no value of the type occurs.
        """
        if type_.kind == "row":
            return self.named(type_.detail, self.rng.choice(self.world.rows[type_.detail]))
        values = self.domain(type_, near) or self.domain(type_, list(self.world.tables))
        if not values:
            raise Rejected("no_value", f"no value of type {type_} occurs in the data")
        value = self.rng.choice(values)
        return Const(value, type_.kind, type_.detail)

    def domain(self, type_: Type, entities: Sequence[str]) -> list[int | str]:
        """Distinct values of a type in the stored columns of some entities, sorted."""
        found: dict[int | str, None] = {}
        for entity in entities:
            for col in self.world.tables[entity]:
                if self.world.attr_type(entity, col.name) == type_ and col.kind not in ("id", "name"):
                    found.update(dict.fromkeys(row[col.column] for row in self.world.rows[entity]))
        return sorted(found, key=lambda value: (isinstance(value, str), value))

    def operands(self, types: Sequence[Type], near: Sequence[str]) -> list[Operand]:
        """Draw one leaf per type; hours of a day come in ascending order, so that spans are not empty."""
        drawn = [self.operand(type_, near) for type_ in types]
        hours = [index for index, type_ in enumerate(types) if type_ == Type("num", "oclock")]
        if len(hours) > 1:
            values = self.rng.sample(range(8, 18), len(hours))
            for index, value in zip(hours, sorted(values), strict=True):
                drawn[index] = Const(value, "num", "oclock")
        return drawn

    def attr(self, entity: str, name: str) -> Attr:
        """Draw the arguments of an attribute."""
        return Attr(name, tuple(self.operands(self.world.attr_params(entity, name), self.neighbours(entity))))

    def neighbours(self, entity: str) -> list[str]:
        """The entity and those whose rows point to it: where its dates and quantities live."""
        key = ("neighbours", entity)
        if key not in self._known:
            self._known[key] = [
                entity,
                *(
                    other
                    for other, cols in self.world.tables.items()
                    if any(col.kind == "fk" and col.ref == entity for col in cols)
                ),
            ]
        return list(self._known[key])

    def attr_names(self, entity: str, kinds: Sequence[str]) -> list[str]:
        """Names of attributes, stored and derived, whose type is of one of the kinds."""
        key = ("attributes", entity, tuple(kinds))
        if key not in self._known:
            stored = [(name, self.world.attr_type(entity, name)) for name in self.stored(entity)]
            found = [(name, item) for (owner, name), item in self.world.derived.items() if owner == entity]
            derived = [(name, item.type) for name, item in found if not item.norm]
            self._known[key] = [
                name for name, type_ in (*stored, *derived) if type_ is not None and type_.kind in kinds
            ]
        return list(self._known[key])

    def stored(self, entity: str) -> list[str]:
        """Names of stored attributes, without id and name."""
        return [col.name for col in self.world.tables[entity] if col.kind not in ("id", "name")]

    def additive(self, entity: str) -> list[str]:
        """Names of numeric attributes whose values make sense when added up: no hours of a day, no versions, no levels."""
        names = self.attr_names(entity, ("num",))
        return [name for name in names if self.world.attr_type(entity, name) not in ORDINAL]

    # --------------------------------------------------------------------------------------------------- conditions

    def atom(self, entity: str, row_id: int | str | None = None, *, truth: bool = True) -> Atom:
        """Draw a condition with the given truth value on a row (a random one when no id is given).

        Args:
            entity: Whose condition.
            row_id: The row that decides.
            truth: What the condition must be of that row.

        Returns:
            The condition.

        Raises:
            Rejected: `no_atom` after a dozen tries, or when the entity has no attribute.
        """
        names = self.attr_names(entity, ("num", "date", "str", "row", "bool"))
        for _ in range(ATOM_DRAWS if names else 0):
            name = self.rng.choice(names)
            attr = self.attr(entity, name)
            chosen = row_id if row_id is not None else self.rng.choice(self.world.rows[entity])["id"]
            atom = self.atom_on(entity, attr, chosen, truth=truth)
            if atom is not None:
                return atom
        raise Rejected("no_atom", f"no condition on {entity} found")

    def atom_on(self, entity: str, attr: Attr, row_id: int | str, *, truth: bool) -> Atom | None:
        """Make a condition of this attribute with that truth on that row, or None when the draw does not fit."""
        type_ = self.world.attr_type(entity, attr.name)
        value = self.oracle.value(entity, row_id, attr)
        if type_ is None or value is None:
            return None
        if type_.kind == "bool":
            return Atom(attr, "is", None) if bool(value) == truth else None
        other = value
        if self.rng.random() < 0.5 or not truth:
            other = self.oracle.value(entity, self.rng.choice(self.world.rows[entity])["id"], attr)
        if other is None or other in NO_ROUTE.get(type_.detail, ()):
            return None
        if type_.kind == "row":
            return self.relation_atom(attr, type_, value if truth else other, value, truth=truth)
        operators = ["=="] if type_.kind == "str" else [">=", "<=", ">", "<"]
        fitting = [op for op in operators if COMPARE[op](value, other) == truth]
        if not fitting:
            return None
        return Atom(attr, self.rng.choice(fitting), Const(other, type_.kind, type_.detail))

    def relation_atom(self, attr: Attr, type_: Type, want: int | str, value: int | str, *, truth: bool) -> Atom | None:
        """Make a condition on a relation: equal to the row with id `want`; only for rows that people call by name."""
        if self.world.naming(type_.detail) != "name" or (want == value) != truth:
            return None
        target = next((row for row in self.rows(type_.detail) if row["id"] == want), None)
        return None if target is None else Atom(attr, "==", self.named(type_.detail, target))

    def threshold(self, attr: Attr, type_: Type, op: str, value: int | str) -> Atom | None:
        """Make the condition that an attribute compares so with a value that occurs; None for a row without a name."""
        if type_.kind == "row":
            return self.relation_atom(attr, type_, value, value, truth=True)
        return (
            None if value in NO_ROUTE.get(type_.detail, ()) else Atom(attr, op, Const(value, type_.kind, type_.detail))
        )

    # ------------------------------------------------------------------------------------------------------ actions

    def act(self, bound: Sequence[tuple[str, str]] = ()) -> Act:
        """Draw an action; each row parameter takes a bound variable (var, entity) of its entity when there is one.

        Args:
            bound: Row variables that the action should use; at least one of them is used.

        Returns:
            The action.

        Raises:
            Rejected: `no_action` when no action has a parameter of such an entity.
        """
        entities = {entity for _, entity in bound}
        fitting = [
            action
            for action in self.drawable
            if not bound or any(type_.kind == "row" and type_.detail in entities for _, type_ in action.params)
        ]
        if not fitting:
            raise Rejected("no_action", "no action takes a row of the bound entities")
        action = self.rng.choice(fitting)
        near = [*action.tables, *(type_.detail for _, type_ in action.params if type_.kind == "row")]
        drawn = self.operands([type_ for _, type_ in action.params], near)
        left = list(bound)
        args: list[tuple[str, Operand]] = []
        for (name, type_), value in zip(action.params, drawn, strict=True):
            match = next((pair for pair in left if type_ == Type("row", pair[1])), None)
            if match is not None:
                left.remove(match)
            args.append((name, Ref(match[0]) if match is not None else value))
        return Act(action.name, tuple(args))

    # -------------------------------------------------------------------------------------------------------- roots

    def root(self, kind: str) -> Task:
        """Draw a simple task of a kind of `ROOT_KINDS`.

        Args:
            kind: The kind.

        Returns:
            The program, not yet checked by any gate.

        Raises:
            Rejected: the draw does not fit the data.
        """
        if kind == "act":
            return Task((self.act(),), ())
        if kind in ("choose", "group"):
            return self.choose_root() if kind == "choose" else self.group_root()
        numeric = {
            name: self.additive(name) if kind in ("sum", "count") else self.attr_names(name, ("num",))
            for name in self.world.tables
        }
        entity = self.rng.choice([name for name, found in numeric.items() if found])
        atoms = (self.atom(entity),)
        name = self.rng.choice(numeric[entity])
        attr = self.attr(entity, name)
        total = Let("X1", Sum(entity, atoms, attr)), (f"sum_of_{self.world.attr_slug(entity, name)}", Ref("X1"))
        if kind == "sum":
            return Task((total[0],), (total[1],))
        if kind == "count":
            # A number of rows alone is soon guessed.
            field = f"number_of_{self.world.plural_slug(entity)}"
            return Task((total[0], Let("X2", Count(entity, atoms))), ((field, Ref("X2")), total[1]))
        pick = Let("X1", Pick(entity, atoms, self.rng.choice(["max", "min"]), attr))
        fact = self.report_fact(entity, "X1", name)
        if kind in ("pickact", "service"):
            act = self.act([("X1", entity)])
            task = Task((pick, act), (fact,))
            return task if kind == "pickact" else Task((pick, Try("X2", act)), (fact, ("decision", Ref("X2"))))
        return Task((pick,), (self.report_row(entity, "X1"), fact))

    def report_row(self, entity: str, var: str) -> tuple[str, Operand]:
        """The answer field that states which row a variable denotes."""
        by = self.world.naming(entity)
        return f"{self.world.slug(entity)}_{by}", Of(var, Attr(by))

    def report_fact(self, entity: str, var: str, known: str) -> tuple[str, Operand]:
        """The answer field that states a fact about the row that a variable denotes, because names are soon guessed.

        Args:
            entity: Of the row.
            var: The variable.
            known: Attribute by which the row was found; its value is no news, so another one is drawn.

        Raises:
            Rejected: `no_attribute` when the entity has no other.
        """
        names = [name for name in self.attr_names(entity, ("num", "date", "str")) if name != known]
        if not names:
            raise Rejected("no_attribute", f"{entity} has no second attribute to ask for")
        name = self.rng.choice(names)
        return f"{self.world.slug(entity)}_{self.world.attr_slug(entity, name)}", Of(var, self.attr(entity, name))

    def relations(self, target: str = "") -> list[tuple[str, str, str]]:
        """Relations (entity, name, target) to rows that people call by name; of one target when it is given."""
        return [
            (entity, col.name, col.ref)
            for entity, cols in self.world.tables.items()
            for col in cols
            if col.kind == "fk" and target in ("", col.ref) and self.world.naming(col.ref) == "name"
        ]

    def measure(self, entity: str) -> Attr | None:
        """Draw what groups of rows are compared by: a total, or None for their number."""
        names = self.additive(entity)
        return self.attr(entity, self.rng.choice(names)) if names and self.rng.random() < 0.5 else None

    def group_root(self) -> Task:
        """Draw a task about the row to which most or fewest others are related; half of those that can act on it do.

        Raises:
            Rejected: no relation to a row with a name, or no condition that is about something else.
        """
        sites = self.relations()
        if not sites:
            raise Rejected("no_relation", "no entity is related to one with names")
        entity, rel, target = self.rng.choice(sites)
        attr, atom = self.measure(entity), self.atom(entity)
        if atom.attr.name == rel:
            raise Rejected("no_atom", f"a condition on {rel} leaves one group")
        node = GroupBy(entity, (atom,), rel, "sum" if attr else "count", self.rng.choice(["max", "max", "min"]), attr)
        fact = self.report_fact(target, "X1", "name")
        if self.takes(target) and self.rng.random() < 0.5:
            return Task((Let("X1", node), self.act([("X1", target)])), (fact,))
        return Task((Let("X1", node),), (self.report_row(target, "X1"), fact))

    def choose_root(self) -> Task:
        """Draw a plan task: any k rows with a condition on their total, which some set meets, and that total.

        What to answer where no set meets it is part of every such task, so that its format tells nothing.

        Raises:
            Rejected: too few or too many candidates.
        """
        named = [name for name in self.world.tables if self.world.naming(name) == "name" and self.additive(name)]
        entity = self.rng.choice(named)
        attr = self.attr(entity, self.rng.choice(self.additive(entity)))
        atoms = (self.atom(entity),)
        ids = self.oracle.ids(entity, atoms)
        k = self.rng.choice([2, 3, 3])
        if not 5 <= len(ids) <= 24:
            raise Rejected("choose_size", f"{len(ids)} candidates, wanted 5 to 24")
        type_ = self.world.attr_type(entity, attr.name) or Type("num")
        numbers = self.numbers(entity, ids, attr)
        values = sorted(numbers.get(row_id, 0) for row_id in ids)
        # A bound near an extreme of the possible totals leaves few feasible sets.
        upward = self.rng.random() < 0.5
        edge = values[-(k + 1) :] if upward else values[: k + 1]
        total = sum(self.rng.sample(edge, k))
        if total == sum(values[:k] if upward else values[-k:]):
            raise Rejected("idle_bound", f"every {k} rows have a total of {attr.name} within the bound")
        cons: tuple[Con, ...] = (Con("sum", attr, ">=" if upward else "<=", Const(total, "num", type_.detail)),)
        relations = [name for name in self.attr_names(entity, ("row",)) if self.world.attr_params(entity, name) == ()]
        if relations and self.rng.random() < 0.4:
            cons = (Con("distinct", Attr(self.rng.choice(relations))), *cons)
        node = Choose(entity, atoms, k, cons, None, or_none=True)
        by = self.world.naming(entity)
        picks = f"{self.world.slug(entity)}_{by}s", Of("X1", Attr(by))
        total = f"combined_{self.world.attr_slug(entity, attr.name)}", Ref("X2")
        return Task((Let("X1", node), Let("X2", Reach(Ref("X1")))), (picks, total))
