"""Running a task on the oracle: steps, descriptions, exact search of sets."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from envsynth.author.procedural.ir import (
    Act,
    Asked,
    Atom,
    Attr,
    Budget,
    Caution,
    Choose,
    Count,
    ForEach,
    GroupBy,
    If,
    Let,
    Node,
    Of,
    Only,
    Pick,
    Reach,
    Ref,
    Step,
    Sum,
    Task,
    To,
    Try,
    Type,
    check,
    walk,
)
from envsynth.author.procedural.oracle.outcome import (
    Cell,
    Change,
    Key,
    LetInfo,
    OracleResult,
    Reject,
    Value,
)
from envsynth.author.procedural.oracle.relations import OracleWorld, Relations, literal, need
from envsynth.author.procedural.oracle.sets import COMPARE, MAX_SETS, Wanted, feasible_sets, relaxed


def _is_fixed(value: Atom | Attr) -> bool:
    """Whether it says the same in every task over the same rows: it refers to no variable."""
    return not any(isinstance(node, (Ref, Of)) for node in walk(value))


class Oracle:
    """Answers tasks over one database.

    Args:
        composition: The composed world: columns, derived attributes, actions.
        connection: Its rows; tables are named by entity, columns by `Col.column`. Never written.
        known: What was asked of these rows before, shared by the oracles over them; None keeps nothing, as rows that an
            oracle writes to need.
    """

    def __init__(
        self, composition: OracleWorld, connection: sqlite3.Connection, known: dict[Any, Any] | None = None
    ) -> None:
        self._known = known
        self._world = composition
        self._connection = connection
        self._relations = Relations(composition, connection, known)
        self._live = False
        self._open: dict[str, tuple[Choose, LetInfo]] = {}

    @property
    def bindings(self) -> dict[str, Value]:
        """What each variable of the last run denotes."""
        return self._relations.bindings

    def run(self, task: Task, *, types: dict[str, Type] | None = None) -> OracleResult:
        """Work out the outcome of a task.

        Args:
            task: A program.
            types: Types of its variables, where it is known to be well-typed; it is checked when None.

        Returns:
            Answer, changes and facts.

        Raises:
            Reject: the task has no well-defined outcome.
            IRTypeError: the program is ill-typed.
            AuthorError: an SQL text of a mechanism is wrong.
        """
        self._relations.types = self.checked(task) if types is None else types
        self._relations.bindings = {}
        self._open = {}
        result = OracleResult(
            answer={},
            changes=[],
            info={},
            branches={},
            sets={},
            bindings=self._relations.bindings,
            decisions={},
            targets=[],
        )
        for index, step in enumerate(task.steps):
            self._step(index, step, result)
        for name, operand in task.report:
            result.answer[name] = self._relations.report(operand)
        return result

    def recall(self, task: Task, result: OracleResult) -> None:
        """Be as after `run(task)`, whose result is known: variables have their types and values.

        Args:
            task: A well-typed program.
            result: What `run` gave for it on equal rows.
        """
        self._relations.types = self.checked(task)
        self._relations.bindings = dict(result.bindings)
        lets = [step for step in task.steps if isinstance(step, Let)]
        self._open = {
            let.var: (let.node, result.info[let.var])
            for let in lets
            if isinstance(let.node, Choose) and let.node.or_none
        }

    def checked(self, task: Task) -> dict[str, Type]:
        """Type-check a program, once: it is kept with its types, so that its number is nobody else's.

        Args:
            task: The program.

        Returns:
            The type of each variable.

        Raises:
            IRTypeError: it is ill-typed.
        """
        if self._known is None:
            return check(task, self._world)
        kept = self._known.get(id(task))
        if kept is None:
            kept = self._known[id(task)] = (task, check(task, self._world))
        return kept[1]

    def order_sensitive(self, task: Task, result: OracleResult) -> bool:
        """Tell whether performing the steps one by one gives another outcome than the snapshot semantics.

        Runs the task on a copy where each act takes effect at once, then tests all conditions on the final state.

        Args:
            task: The program.
            result: Its outcome by `run`.

        Returns:
            True when answer, changes, branches or sets differ, or a condition changes its truth by the end.
        """
        if not result.changes:
            return False
        copy = sqlite3.connect(":memory:", isolation_level=None)
        try:
            live = Oracle(self._world, self._connection, self._known)
            live._live = True
            live._relations.copy = copy
            try:
                other = live.run(task)
            except Reject:
                return True
            told = [name for name, operand in task.report if not live._relations.is_initial(operand)]
            facts = ([other.answer[name] for name in told], other.changes, other.branches, other.sets)
            if facts != ([result.answer[name] for name in told], result.changes, result.branches, result.sets):
                return True
            steps = [(index, step) for index, step in enumerate(task.steps) if isinstance(step, If)]
            return any(live._truth(step) != result.branches[index] for index, step in steps)
        finally:
            copy.close()

    def ids(self, entity: str, atoms: Sequence[Atom]) -> list[Key]:
        """Return the ids of the rows that meet the atoms, ascending."""
        if self._known is None or not all(_is_fixed(atom) for atom in atoms):
            return [row[0] for row in self._relations.rows(entity, atoms)]
        key = (entity, tuple(atoms))
        if key not in self._known:
            self._known[key] = [row[0] for row in self._relations.rows(entity, atoms)]
        return list(self._known[key])

    def value(self, entity: str, row_id: Key, attr: Attr) -> Cell:
        """Return an attribute of one row.

        Args:
            entity: Whose attribute.
            row_id: Which row.
            attr: Attribute; variables in its arguments must be bound by the last run.

        Returns:
            A scalar, a row as its id, a boolean as bool; None when there is no such row or value.
        """
        return self._relations.value(entity, row_id, attr)

    def values(self, entity: str, attr: Attr) -> dict[Key, Cell]:
        """Return an attribute of all rows by id, as `value` does but by one query; a boolean as the integer that SQL has."""
        if self._known is None or not _is_fixed(attr):
            return dict(self._relations.rows(entity, (), (attr,)))
        key = (entity, attr)
        if key not in self._known:
            self._known[key] = dict(self._relations.rows(entity, (), (attr,)))
        return dict(self._known[key])

    def resolve(self, node: Node) -> tuple[Value, LetInfo | None]:
        """Work out one description on its own.

        Args:
            node: The description; variables in it must be bound by the last run.

        Returns:
            What it denotes, with facts (None for `To` and `Asked`).

        Raises:
            Reject: it denotes nothing, or not one thing.
        """
        match node:
            case To() | Reach() | Asked():
                return self._followed(node), None
            case Pick() | GroupBy():
                return self._pick(node) if isinstance(node, Pick) else self._group(node)
            case Only(entity, atoms):
                ids = tuple(self.ids(entity, atoms))
                if len(ids) != 1:
                    raise Reject("tie" if ids else "empty", f"{len(ids)} {entity} meet the conditions, wanted one")
                return ids[0], self._info(entity, ids)
            case Count(entity, atoms):
                ids = tuple(self.ids(entity, atoms))
                return len(ids), self._info(entity, ids)
            case Sum(entity, atoms, attr):
                found = self._relations.rows(entity, atoms, (attr,))
                total = sum(need(value, attr.name) for _, value in found)
                return total, self._info(entity, tuple(row[0] for row in found))
            case Choose():
                return self._choose(node)

    # ------------------------------------------------------------------------------------------------------- steps

    def _step(self, index: int, step: Step, result: OracleResult) -> None:
        match step:
            case Let(var, node):
                self._bind(var, node, result)
            case Act():
                self._perform(step, result)
            case If(_, _, _, then, other):
                result.branches[index] = self._truth(step)
                for act in then if result.branches[index] else other:
                    self._perform(act, result)
            case Try(var, act):
                self._attempt(var, act, result)
            case ForEach(entity, atoms, op):
                members = tuple(self.ids(entity, atoms))
                if not members:
                    raise Reject("foreach_empty", f"no {entity} to {op}")
                result.sets[index] = members
                parameter = self._world.actions[op].params[0][0]
                for member in members:
                    self._change(op, {parameter: member}, result)
            case Caution() | Budget():
                pass

    def _bind(self, var: str, node: Node, result: OracleResult) -> None:
        self.bindings[var], info = self.resolve(node)
        if info is not None:
            result.info[var] = info
            if isinstance(node, Choose) and node.or_none:
                self._open[var] = (node, info)

    def _attempt(self, var: str, act: Act, result: OracleResult) -> None:
        before = len(result.changes)
        try:
            self._perform(act, result)
        except Reject as reason:
            if reason.code != "act_empty":
                raise
        result.decisions[var] = len(result.changes) > before
        self.bindings[var] = "done" if result.decisions[var] else "denied"

    def _perform(self, act: Act, result: OracleResult) -> None:
        arguments = {name: self._relations.scalar(operand) for name, operand in act.args}
        self._change(act.op, arguments, result)

    def _change(self, op: str, arguments: Mapping[str, Any], result: OracleResult) -> None:
        values = {name: literal(value) for name, value in arguments.items()}
        sql = self._relations.fill(self._world.actions[op].oracle_sql, values, op)
        changes = [Change(kind, table, json.loads(cells)) for kind, table, cells in self._relations.query(sql)]
        if not changes:
            raise Reject("act_empty", f"{op} with {dict(arguments)} changes nothing")
        number = 1 + max([-1, *(act for act, _ in result.targets)])
        for change in changes:
            self._refuse_noop(op, change)
            result.targets.append((number, self._target(change)))
        result.changes.extend(changes)
        if self._live:
            self._relations.take_effect(changes)
            self._known = None

    def _refuse_noop(self, op: str, change: Change) -> None:
        if change.op == "insert":
            return
        names = [name for name in change.cells if name != "id"]
        columns = ", ".join(f't."{name}"' for name in names) or "1"
        key = literal(change.cells["id"])
        found = self._relations.query(f'SELECT {columns} FROM "{change.table}" t WHERE t."id" = {key}')
        if not found:
            raise Reject("act_noop", f"{op}: no row {key} in {change.table}")
        if change.op == "update" and list(found[0]) == [change.cells[name] for name in names]:
            raise Reject("act_noop", f"{op}: row {key} of {change.table} is so already")

    def _target(self, change: Change) -> tuple[Any, ...]:
        if change.op != "insert":
            return (change.table, change.cells["id"])
        relations = [col.column for col in self._world.tables[change.table] if col.kind == "fk"]
        names = relations or sorted(change.cells)
        return (change.table, *((name, change.cells.get(name)) for name in names))

    def _truth(self, step: If) -> bool:
        left, right = self._relations.scalar(step.lhs), self._relations.scalar(step.rhs)
        return COMPARE[step.op](left, right)

    # ------------------------------------------------------------------------------------------------ descriptions

    def _pick(self, node: Pick) -> tuple[Value, LetInfo]:
        order = "2 DESC, 1" if node.dir == "max" else "2 ASC, 1"
        found = self._relations.rows(node.entity, node.atoms, (node.attr,), order)
        if not found:
            raise Reject("empty", f"no {node.entity} meets the conditions")
        values = [need(value, node.attr.name) for _, value in found]
        if values[1:2] == values[:1]:
            raise Reject("tie", f"{node.dir} {node.attr.name} of {node.entity}: {values[0]!r} twice")
        number = isinstance(values[0], int)
        return found[0][0], LetInfo(
            entity=node.entity,
            ids=tuple(sorted(row[0] for row in found)),
            table_rows=self._relations.size(node.entity),
            best=values[0] if number else None,
            second=values[1] if number and len(values) > 1 else None,
        )

    def _group(self, node: GroupBy) -> tuple[Value, LetInfo]:
        downward = node.dir == "max"
        found = self._relations.groups(node.entity, node.atoms, Attr(node.rel), node.attr, downward=downward)
        if not found:
            raise Reject("empty", f"no {node.entity} meets the conditions")
        totals = [total for _, total in found]
        if totals[1:2] == totals[:1]:
            raise Reject("tie", f"{node.dir} {node.agg} of {node.entity} by {node.rel}: {totals[0]} twice")
        return found[0][0], LetInfo(
            entity=node.entity,
            ids=tuple(self.ids(node.entity, node.atoms)),
            table_rows=self._relations.size(node.entity),
            best=totals[0],
            second=totals[1] if len(totals) > 1 else None,
        )

    def _choose(self, node: Choose) -> tuple[Value, LetInfo]:
        ids = tuple(self.ids(node.entity, node.atoms))
        candidates = math.comb(len(ids), node.k)
        if candidates > MAX_SETS:
            raise Reject("search_cap", f"{candidates} sets of {node.k} out of {len(ids)} {node.entity}")
        feasible = self._feasible(node) if candidates else []
        if not feasible and candidates and node.or_none:
            return self._none(node, ids)
        if not feasible:
            raise Reject("infeasible", f"no {node.k} of {len(ids)} {node.entity} meet the set conditions")
        downward = node.goal is not None and node.goal[0] == "max"
        ranked = sorted(dict.fromkeys(total for total, _ in feasible), reverse=downward)
        optimal = tuple(chosen for total, chosen in feasible if total == ranked[0])
        size = self._relations.size(node.entity)
        return list(optimal[0]), LetInfo(
            entity=node.entity,
            ids=ids,
            table_rows=size,
            feasible=len(feasible),
            candidates=candidates,
            table_sets=math.comb(size, node.k),
            best=ranked[0] if node.goal else None,
            second=ranked[1] if len(ranked) > 1 else None,
            optimal=optimal,
            has_goal=node.goal is not None,
        )

    def _none(self, node: Choose, ids: tuple[Key, ...]) -> tuple[Value, LetInfo]:
        """Give the empty set, with the set that comes nearest to the bound; every set has been seen by then.

        Raises:
            Reject: `infeasible` when no set meets even the other conditions.
        """
        wider = relaxed(node)
        near = self._feasible(wider)
        if not near:
            raise Reject("infeasible", f"no {node.k} of {len(ids)} {node.entity} meet even the other set conditions")
        upward = wider.goal is not None and wider.goal[0] == "max"
        best, nearest = max(near) if upward else min(near)
        size = self._relations.size(node.entity)
        return [], LetInfo(
            entity=node.entity,
            ids=ids,
            table_rows=size,
            candidates=math.comb(len(ids), node.k),
            table_sets=math.comb(size, node.k),
            best=best,
            nearest=nearest,
        )

    def _followed(self, node: To | Reach | Asked) -> Value:
        """The row that a relation leads to; what the user tells; the bounded total of a chosen set, or of the set nearest to the bound."""
        if isinstance(node, Asked):
            return self._relations.told(node)
        if isinstance(node, To):
            entity, row_id = self._relations.entity(node.src), self._relations.scalar(node.src)
            return need(self.value(entity, row_id, Attr(node.rel)), node.rel)
        var = node.src.var
        choice, info = self._open[var]
        attr = choice.bounds[0].attr
        if info.nearest:
            return need(info.best, attr.name)
        chosen = self.bindings[var]
        values = dict(self._relations.rows(choice.entity, choice.atoms, (attr,)))
        return sum(need(values[key], attr.name) for key in (chosen if isinstance(chosen, list) else [chosen]))

    def _feasible(self, node: Choose) -> list[tuple[int, tuple[Key, ...]]]:
        """All sets that meet the set conditions, each with its total of the goal (0 without a goal)."""
        attrs = [con.attr for con in node.cons] + ([node.goal[1]] if node.goal else [])
        found = self._relations.rows(node.entity, node.atoms, attrs)
        for row in found:
            for attr, value in zip(attrs, row[1:], strict=True):
                need(value, attr.name)
        tests = [
            (index, con, None if con.value is None else self._relations.scalar(con.value))
            for index, con in enumerate(node.cons, start=1)
        ]
        wanted = [Wanted(con, [row[index] for row in found], bound) for index, con, bound in tests]
        gains = [row[-1] for row in found] if node.goal else None
        return feasible_sets([row[0] for row in found], node.k, wanted, gains)

    def _info(self, entity: str, ids: tuple[Key, ...]) -> LetInfo:
        return LetInfo(entity=entity, ids=ids, table_rows=self._relations.size(entity))
