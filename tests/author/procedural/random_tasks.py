"""Random well-typed tasks over composed worlds, and a judge that plays them in this process.

Only our own compiled texts are executed here, never an author's: that needs no sandbox.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from envsynth.author.procedural.compose import Composition, compose, connect
from envsynth.author.procedural.goals import compile_goals
from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    Count,
    ForEach,
    GroupBy,
    If,
    Let,
    Named,
    Node,
    Of,
    Operand,
    Pick,
    Reach,
    Ref,
    Step,
    Sum,
    Task,
    To,
    Type,
)
from envsynth.author.procedural.lexicon import load_pack
from envsynth.author.procedural.mechanism import Mechanism
from envsynth.author.procedural.oracle import Oracle, OracleResult, Reject, certificates
from envsynth.author.procedural.planner import compile_plan
from envsynth.author.procedural.sampling import Rejected, Sampler
from envsynth.spec import Verifier
from envsynth.verifiers import kernel

KINDS = ("pick", "pick", "pick", "to", "count", "sum", "choose")
"""Kinds of descriptions, by how often they are drawn; `group` is drawn where it is asked for."""
OPERATORS = ("==", "!=", "<", "<=", ">", ">=")


@cache
def world(mechanisms: tuple[Mechanism, ...], seed: str) -> Composition:
    """Compose a world; cached, since tests never change one."""
    return compose(mechanisms, load_pack("general"), random.Random(seed))


# ----------------------------------------------------------------------------------------------------------- drawing


@dataclass
class Draft:
    """A program under way."""

    sampler: Sampler
    steps: list[Step] = field(default_factory=list)
    report: list[tuple[str, Operand]] = field(default_factory=list)
    rows: list[tuple[str, str]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)

    @property
    def rng(self) -> random.Random:
        return self.sampler.rng

    def atoms(self, entity: str, low: int, high: int) -> tuple[Atom, ...]:
        """Conditions that a common random row meets, now and then bound to a variable or negated."""
        witness = self.rng.choice(self.sampler.world.rows[entity])["id"]
        found = [self.atom(entity, witness) for _ in range(self.rng.randint(low, high))]
        return tuple(dict.fromkeys(found))

    def atom(self, entity: str, witness: int | str) -> Atom:
        world = self.sampler.world
        chance = self.rng.random()
        if chance < 0.25 and self.rows:
            var, target = self.rng.choice(self.rows)
            for name in self.sampler.attr_names(entity, ("row",)):
                type_ = world.attr_type(entity, name)
                if type_ == Type("row", target) and not world.attr_params(entity, name):
                    return Atom(Attr(name), self.rng.choice(["==", "==", "!="]), Ref(var))
            for name in self.sampler.attr_names(entity, ("num", "date")):
                for other in self.sampler.attr_names(target, ("num", "date")):
                    if world.attr_type(entity, name) == world.attr_type(target, other):
                        value = Of(var, self.sampler.attr(target, other))
                        return Atom(self.sampler.attr(entity, name), self.rng.choice(OPERATORS), value)
        atom = self.sampler.atom(entity, witness)
        if chance > 0.9 and atom.value is not None:
            return Atom(atom.attr, "!=", atom.value)
        return atom

    def let(self, node: Node) -> str:
        var = f"X{1 + sum(isinstance(step, Let) for step in self.steps)}"
        self.steps.append(Let(var, node))
        return var

    def number(self, entity: str) -> Attr:
        return self.sampler.attr(entity, self.rng.choice(self.sampler.attr_names(entity, ("num",))))

    def description(self, kinds: Sequence[str] = KINDS) -> None:
        """Add one random let of one of the kinds."""
        world, rng = self.sampler.world, self.rng
        entity = rng.choice([name for name in world.tables if self.sampler.attr_names(name, ("num",))])
        kind = rng.choice(kinds)
        if kind == "to":
            self.hop(entity)
        elif kind == "group":
            self.group()
        elif kind == "pick":
            attr = self.number(entity)
            if rng.random() < 0.3 and (dates := self.sampler.attr_names(entity, ("date",))):
                attr = self.sampler.attr(entity, rng.choice(dates))
            self.rows.append(
                (self.let(Pick(entity, self.atoms(entity, 0, 3), rng.choice(["max", "min"]), attr)), entity)
            )
        elif kind == "count":
            var = self.let(Count(entity, self.atoms(entity, 1, 3)))
            self.report.append((f"count_{var}", Ref(var)))
        elif kind == "sum":
            var = self.let(Sum(entity, self.atoms(entity, 0, 2), self.number(entity)))
            self.report.append((f"sum_{var}", Ref(var)))
        else:
            self.choice(entity)

    def group(self) -> None:
        rng, sites = self.sampler.rng, self.sampler.relations()
        if not sites:
            raise Rejected("no_relation")
        entity, rel, target = rng.choice(sites)
        attr = self.number(entity) if rng.random() < 0.5 and self.sampler.attr_names(entity, ("num",)) else None
        agg, direction = "sum" if attr else "count", rng.choice(["max", "min"])
        self.rows.append((self.let(GroupBy(entity, self.atoms(entity, 0, 3), rel, agg, direction, attr)), target))

    def hop(self, entity: str) -> None:
        world, rng = self.sampler.world, self.rng
        sources: list[tuple[str, Operand]] = [(target, Ref(var)) for var, target in self.rows]
        row = rng.choice(world.rows[entity])
        sources.append((entity, Named(entity, world.naming(entity), row[world.naming(entity)])))
        source, operand = rng.choice(sources)
        relations = [col for col in world.tables[source] if col.kind == "fk"]
        if not relations:
            raise Rejected("no_relation")
        col = rng.choice(relations)
        self.rows.append((self.let(To(operand, col.name)), col.ref))

    def choice(self, entity: str) -> None:
        world, rng = self.sampler.world, self.rng
        atoms = self.atoms(entity, 1, 3)
        attr, k = self.number(entity), rng.choice([1, 2, 2, 3])
        values = [self.sampler.oracle.value(entity, row["id"], attr) or 0 for row in world.rows[entity]]
        total = sum(rng.choices(values, k=k))
        type_ = world.attr_type(entity, attr.name) or Type("num")
        cons = [Con("sum", attr, rng.choice(["<", "<=", ">", ">="]), Const(total, "num", type_.detail))]
        if rng.random() < 0.5:
            name = rng.choice(self.sampler.attr_names(entity, ("row", "str", "num", "date")))
            cons.insert(rng.randint(0, 1), Con("distinct", self.sampler.attr(entity, name)))
        goal = (rng.choice(["max", "min"]), self.number(entity)) if rng.random() < 0.6 else None
        or_none = rng.random() < 0.5
        var = self.let(Choose(entity, atoms, k, tuple(cons), goal, or_none))
        by = world.naming(entity)
        self.report.append((f"picks_{var}", Of(var, Attr(by))))
        if or_none:
            self.report.append((f"total_{var}", Ref(self.let(Reach(Ref(var))))))
        elif rng.random() < 0.3:
            self.report.append((f"more_{var}", Of(var, self.number(entity))))

    def action(self) -> Act:
        bound = [pair for pair in self.rows if self.rng.random() < 0.7]
        try:
            return self.sampler.act(bound)
        except Rejected:
            return self.sampler.act()

    def change(self) -> None:
        """Add one random step that writes.

        Raises:
            Rejected: a condition is wanted and the bound row has no number or date.
        """
        world, rng = self.sampler.world, self.rng
        kind = rng.choice(["act", "act", "if", "foreach"])
        singles = [
            (action.name, action.params[0][1].detail)
            for action in self.sampler.drawable
            if len(action.params) == 1 and action.params[0][1].kind == "row"
        ]
        if kind == "foreach" and singles:
            op, entity = rng.choice(singles)
            self.steps.append(ForEach(entity, self.atoms(entity, 2, 4), op))
        elif kind == "if" and self.rows:
            var, entity = rng.choice(self.rows)
            names = self.sampler.attr_names(entity, ("num", "date"))
            if not names:
                raise Rejected("no_number")
            attr = self.sampler.attr(entity, rng.choice(names))
            row = rng.choice(world.rows[entity])["id"]
            type_ = world.attr_type(entity, attr.name) or Type("num")
            value = self.sampler.oracle.value(entity, row, attr) or 0
            branches = [(self.action(),), (self.action(),)]
            if rng.random() < 0.3:
                branches[rng.randint(0, 1)] = ()
            bound = Const(value, type_.kind, type_.detail)
            self.steps.append(If(Of(var, attr), rng.choice(OPERATORS), bound, *branches))
        else:
            self.steps.append(self.action())

    def finish(self) -> Task:
        """Report every row variable, by name or id, or by another attribute."""
        world = self.sampler.world
        for var, entity in self.rows:
            attr = Attr(world.naming(entity))
            names = self.sampler.attr_names(entity, ("num", "date", "str", "bool", "row"))
            if self.rng.random() < 0.4 and names:
                attr = self.sampler.attr(entity, self.rng.choice(names))
            self.report.append((f"row_{var}", Of(var, attr)))
        return Task(tuple(self.steps), tuple(self.report))


def random_task(sampler: Sampler, changes: int, first: Sequence[str] = KINDS) -> Task:
    """Draw a task of one to three descriptions and the given number of steps that write.

    Args:
        sampler: Draws over the world.
        changes: Steps that write.
        first: Kinds of the first description; the others may be of them, too.

    Returns:
        The program.

    Raises:
        Rejected: the draw does not fit the data.
    """
    draft = Draft(sampler)
    for number in range(sampler.rng.randint(1, 3)):
        draft.description((*dict.fromkeys(first), *KINDS) if number and first is not KINDS else first)
    for _ in range(changes):
        draft.change()
    return draft.finish()


# ----------------------------------------------------------------------------------------------------------- judging


class Refusal(Exception):
    """A tool refuses a call."""


def as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


class LocalTools:
    """The tools of a world over a copy of its rows."""

    def __init__(self, sampler: Sampler) -> None:
        self.database = connect(sampler.world, sampler.overlay)
        self.database.isolation_level = None
        self.database.row_factory = as_dict
        self.space: dict[str, Any] = {"Refusal": Refusal}
        self.effects = {tool.name: tool.effect for tool in sampler.world.tools}
        for tool in sampler.world.tools:
            exec(compile(tool.source, tool.name, "exec"), self.space)
        self.calls = 0
        self.writes = 0

    def call(self, tool: str, **arguments: Any) -> Any:
        self.calls += 1
        self.writes += self.effects[tool] == "write"
        return self.space[tool](self.database, **arguments)


def play(source: str, tools: LocalTools, **flags: Any) -> dict[str, Any]:
    """Run a solver, with some of its flags overwritten."""
    space: dict[str, Any] = {}
    exec(compile(source, "solution", "exec"), space)
    space.update(flags)
    return space["solve"](tools.call)


def payload(verifier: Verifier) -> dict[str, Any]:
    return verifier.model_dump(mode="json")


def failed(result: dict[str, Any]) -> list[str]:
    """Ids of failed checks; a broken verifier is a failure of the test."""
    assert result["broken"] is None, result["broken"]
    return [name for name, ok, _ in result["checks"] if not ok]


@dataclass
class Case:
    """A task with what the three backends make of it."""

    sampler: Sampler
    task: Task
    result: OracleResult
    source: str
    verifier: Verifier

    def judge_images(self, after: sqlite3.Connection, answer: dict[str, Any]) -> list[str]:
        before = LocalTools(self.sampler).database
        return failed(kernel.verify_images(before, after, task=payload(self.verifier), answers=[answer])[0])

    def judge_outcome(self, answer: dict[str, Any], changes: list[Any]) -> list[str]:
        """Failed checks of a stated outcome."""
        before = LocalTools(self.sampler).database
        stated = [{"op": change[0], "table": change[1], "row": change[2]} for change in changes]
        outcome = {"answer": answer, "changes": stated}
        return failed(kernel.judge_outcomes(before, payload(self.verifier), [outcome])[0])

    def names(self, var: str, ids: Any) -> list[Any]:
        """How the answer calls the rows of a chosen set."""
        entity = self.result.info[var].entity
        rows = {row["id"]: row for row in self.sampler.rows(entity)}
        return [rows[key][self.sampler.world.naming(entity)] for key in ids]


def prepare(sampler: Sampler, task: Task) -> Case:
    """Run the oracle with its gates and compile the others.

    Raises:
        Reject: the oracle refuses the task.
        Rejected: its writes overlap, or their order matters.
    """
    oracle = Oracle(sampler.world, sampler.connection)
    result = oracle.run(task)
    if result.write_overlap:
        raise Rejected("write_overlap")
    if oracle.order_sensitive(task, result):
        raise Rejected("order_sensitive")
    verifier = compile_goals(sampler.world, task, certificates(result))
    return Case(sampler, task, result, compile_plan(sampler.world, task), verifier)


def agree(sampler: Sampler, task: Task) -> str:
    """Compare the three backends on a task.

    Returns:
        "agree", "refused <code>" when a tool refuses the planner's change, or the oracle's reason.

    Raises:
        AssertionError: two backends disagree, or a reading tool refuses.
    """
    try:
        case = prepare(sampler, task)
    except (Reject, Rejected) as reason:
        return f"oracle {reason.code}"
    tools = LocalTools(sampler)
    try:
        answer = play(case.source, tools)
    except Refusal as refusal:
        if not tools.writes:
            raise AssertionError(f"a reading tool refused: {refusal.args}") from refusal
        return f"refused {refusal.args[0]}"
    chosen = {step.var for step in task.steps if isinstance(step, Let) and isinstance(step.node, Choose)}
    for name, operand in task.report:
        if getattr(operand, "var", "") not in chosen:
            found, wanted = answer[name], case.result.answer[name]
            assert (type(found), found) == (type(wanted), wanted), (name, answer, case.result.answer)
    assert case.judge_images(tools.database, answer) == [], (answer, case.result.answer)
    assert case.judge_outcome(case.result.answer, case.result.changes) == []
    return "agree"


def tally(
    mechanisms: tuple[Mechanism, ...], worlds: int, tasks: int, label: str, first: Sequence[str] = KINDS
) -> Counter[str]:
    """Compare the backends on random tasks of several worlds, with 0, 1 and 2 changes in turn; `first` as `random_task`.

    Raises:
        AssertionError: two backends disagree; the note names seed and task.
    """
    found: Counter[str] = Counter()
    for number in range(worlds):
        composed = world(mechanisms, f"{label}/{number}")
        for draw in range(tasks):
            sampler = Sampler(composed, (), random.Random(f"{label}/{number}/{draw}"))
            try:
                task = random_task(sampler, draw % 3, first)
            except Rejected as reason:
                found[f"draw {reason.code}"] += 1
                continue
            try:
                outcome = agree(sampler, task)
            except Exception as error:
                error.add_note(f"world {label}/{number}, task {label}/{number}/{draw}: {task}")
                raise
            found[outcome] += 1
            if outcome == "agree" and draw % 3:
                found["agree with changes"] += 1
    return found
