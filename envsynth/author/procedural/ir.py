"""The typed task program (IR) in A-normal form: what a task means, before any of its texts.

A task is a flat list of steps. Each `Let` binds one description whose operands are leaves: a constant, a named row, a
variable, or an attribute of a variable. Nested phrases are what makes English ambiguous; here every let is one sentence,
so the prompt can be parsed back to exactly this program.

Snapshot semantics: every description, condition and operand denotes the state before the first write of the task.

Three backends read these types and share nothing else: `oracle` (relational), `planner` (tool calls), `goals`
(conditions on answer and state). Plain frozen dataclasses, because hashing, identity and speed matter here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from envsynth.author.procedural.markers import Budget as Budget
from envsynth.author.procedural.markers import Caution as Caution
from envsynth.author.procedural.schema import IRTypeError as IRTypeError
from envsynth.author.procedural.schema import Schema as Schema
from envsynth.author.procedural.schema import Type as Type
from envsynth.author.procedural.schema import told_type
from envsynth.author.procedural.trees import digest as digest
from envsynth.author.procedural.trees import remembered
from envsynth.author.procedural.trees import swap as swap
from envsynth.author.procedural.trees import to_json as to_json
from envsynth.author.procedural.trees import walk as walk


@dataclass(frozen=True)
class Const:
    """A literal: kind `num` (unit), `date` (ISO text) or `str` (unit holds the domain)."""

    value: int | str
    kind: str
    unit: str = ""


@dataclass(frozen=True)
class Named:
    """The row whose `by` (`name` or `id`) has this value."""

    entity: str
    by: str
    value: int | str


@dataclass(frozen=True)
class Ref:
    """A variable bound by a let; `it` inside ForEach."""

    var: str


@dataclass(frozen=True)
class Attr:
    """A stored column, relation or derived attribute, with arguments when it is derived."""

    name: str
    args: tuple[Operand, ...] = ()


@dataclass(frozen=True)
class Of:
    """An attribute of the row (or of each row) that a variable denotes."""

    var: str
    attr: Attr


Operand = Const | Named | Ref | Of


@dataclass(frozen=True)
class Atom:
    """One condition on a row. `op`: == != < <= > >=, or `is` for a boolean attribute (value None)."""

    attr: Attr
    op: str
    value: Operand | None


@dataclass(frozen=True)
class Pick:
    """The one row with the largest (`max`) or smallest (`min`) attribute among those that meet the atoms; unique."""

    entity: str
    atoms: tuple[Atom, ...]
    dir: str
    attr: Attr


@dataclass(frozen=True)
class Only:
    """The one row that meets the atoms; there must be exactly one."""

    entity: str
    atoms: tuple[Atom, ...]


@dataclass(frozen=True)
class To:
    """Follow a to-one relation from a row."""

    src: Operand
    rel: str


@dataclass(frozen=True)
class Count:
    """The number of rows that meet the atoms."""

    entity: str
    atoms: tuple[Atom, ...]


@dataclass(frozen=True)
class Sum:
    """The sum of a numeric attribute over the rows that meet the atoms."""

    entity: str
    atoms: tuple[Atom, ...]
    attr: Attr


@dataclass(frozen=True)
class Con:
    """A condition on a chosen set: kind `sum` (total of attr op value) or `distinct` (no two share attr)."""

    kind: str
    attr: Attr
    op: str = ""
    value: Operand | None = None


@dataclass(frozen=True)
class Choose:
    """Any k different rows that meet atoms and set conditions; with a goal, any best such set (ties accepted).

    With `or_none` it denotes the empty set where no set meets them, and exactly one condition bounds a total; without,
    there must be such a set.
    """

    entity: str
    atoms: tuple[Atom, ...]
    k: int
    cons: tuple[Con, ...]
    goal: tuple[str, Attr] | None = None
    or_none: bool = False

    @property
    def bounds(self) -> tuple[Con, ...]:
        """The conditions that bound a total from one side."""
        return tuple(con for con in self.cons if con.kind == "sum" and con.op in ("<", "<=", ">", ">="))


@dataclass(frozen=True)
class Reach:
    """The bounded total of a set chosen with `or_none`; of the empty set, the total nearest to the bound without it.

    Nearest: the highest total of the sets that meet all other conditions where the bound is from below, else the lowest.
    It can be reported only.
    """

    src: Ref


@dataclass(frozen=True)
class GroupBy:
    """The one row to which the most or fewest rows that meet the atoms are related, or those of the largest or least total.

    `rel` is the to-one relation, `agg` is `count`, or `sum` of `attr`, `dir` is `max` or `min`. A row to which no row that
    meets the atoms is related is never meant.
    """

    entity: str
    atoms: tuple[Atom, ...]
    rel: str
    agg: str
    dir: str
    attr: Attr | None = None


@dataclass(frozen=True)
class Asked:
    """What the user alone knows and says when asked about a topic: a number, a date, or a row by its name.

    `kind` is `num` (`detail` is the unit), `date` or `row` (`detail` is the entity; the value is its name). The value stands in
    no prompt: it is None in a program that was read without the user's words.
    """

    topic: str
    kind: str
    detail: str
    value: int | str | None


Node = Pick | Only | To | Count | Sum | Choose | GroupBy | Reach | Asked


@dataclass(frozen=True)
class Let:
    """Bind a variable (X1, X2 ...) to a description."""

    var: str
    node: Node


@dataclass(frozen=True)
class Act:
    """Perform an action with named arguments, in the order of the action's parameters."""

    op: str
    args: tuple[tuple[str, Operand], ...]


@dataclass(frozen=True)
class If:
    """Perform one of two branches of actions (each of at most one act; empty = do nothing)."""

    lhs: Operand
    op: str
    rhs: Operand
    then: tuple[Act, ...]
    other: tuple[Act, ...]


@dataclass(frozen=True)
class ForEach:
    """Perform an action of one row parameter on every row that meets the atoms."""

    entity: str
    atoms: tuple[Atom, ...]
    op: str


@dataclass(frozen=True)
class Try:
    """Perform an action if rules and state allow it; the variable, which can be reported only, says `done` or `denied`."""

    var: str
    act: Act


DECISION = Type("str", "decision")
Step = Let | Act | If | ForEach | Try | Caution | Budget


@dataclass(frozen=True)
class Task:
    """A whole task: steps, then the fields of the final answer."""

    steps: tuple[Step, ...]
    report: tuple[tuple[str, Operand], ...]


MEND = "mend_"
"""How the names of actions begin that put a row in order, whatever rule it breaks; those of no others do."""

COMPARATORS = ("==", "!=", "<", "<=", ">", ">=")
_NODES = {cls.__name__: cls for cls in (Attr, Atom, Con, Task, *get_args(Operand), *get_args(Node), *get_args(Step))}


def from_json(value: Any) -> Any:
    """Read back what `to_json` wrote.

    Args:
        value: Decoded JSON.

    Returns:
        The node, tuple or scalar.

    Raises:
        IRTypeError: an unknown node name or a wrong number of fields.
    """
    if not isinstance(value, list):
        return value
    parts = cast("list[Any]", value)
    if not parts or not isinstance(parts[0], str):
        raise IRTypeError(f"malformed program near {str(parts)[:60]}")
    items = tuple(from_json(item) for item in parts[1:])
    if parts[0] == "()":
        return items
    cls = _NODES.get(parts[0])
    if cls is None or len(items) != len(fields(cls)):
        raise IRTypeError(f"malformed program: node {parts[0]!r} with {len(items)} fields")
    return cls(*items)


def kind_of(task: Task) -> Literal["read", "plan", "optimise", "act", "service", "diagnose", "recover"]:
    """Derive the class of a task from its program."""
    if any(isinstance(node, Act) and node.op.startswith(MEND) for node in walk(task)):
        return "diagnose"
    if Caution() in task.steps:
        return "recover"
    if any(isinstance(step, Try) for step in task.steps):
        return "service"
    if any(isinstance(node, (Act, ForEach)) for node in walk(task)):
        return "act"
    chosen = [node for node in walk(task) if isinstance(node, Choose)]
    if not chosen:
        return "read"
    return "optimise" if any(node.goal for node in chosen) else "plan"


def fresh_var(task: Task) -> str:
    """Return the first variable name that the program does not use."""
    used = [int(node.var[1:]) for node in walk(task) if isinstance(node, (Let, Try))]
    return f"X{1 + max([0, *used])}"


def lets(task: Task, *classes: type) -> list[Let]:
    """All lets of the task, or those whose node is of the given classes."""
    return [step for step in task.steps if isinstance(step, Let) and isinstance(step.node, classes or object)]


def without_dead_lets(task: Task) -> Task:
    """Drop lets that nothing uses any more, as happens when a variant loses a condition that used them."""
    while True:
        used = {node.var for node in walk(task) if isinstance(node, (Ref, Of))}
        steps = tuple(step for step in task.steps if not isinstance(step, Let) or step.var in used)
        if steps == task.steps:
            return task
        task = Task(steps, task.report)


def check(task: Task, schema: Schema) -> dict[str, Type]:
    """Type-check a program.

    A comparison needs equal types and units. A let that nothing uses is refused, because it would be an invisible
    requirement.

    Args:
        task: The program.
        schema: The world's attributes and actions.

    Returns:
        The type of each variable.

    Raises:
        IRTypeError: with what is wrong and where.
    """
    return dict(_types(task, schema))


@remembered(16)
def _types(task: Task, schema: Schema) -> dict[str, Type]:
    return _Checker(schema).run(task)


class _Checker:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.types: dict[str, Type] = {}
        self.open: dict[str, Choose] = {}
        self.topics: list[str] = []

    def run(self, task: Task) -> dict[str, Type]:
        self.steps(task.steps)
        reached = {step.var for step in task.steps if isinstance(step, Try) or step in lets(task, Reach)}
        if early := sorted({node.var for node in walk(task.steps) if isinstance(node, (Ref, Of))} & reached):
            raise IRTypeError(f"{early} can be reported only")
        names = [name for name, _ in task.report]
        if len(set(names)) != len(names):
            raise IRTypeError(f"report names a field twice: {names}")
        for _, operand in task.report:
            self.value(operand)
        used = {node.var for node in walk(task) if isinstance(node, (Ref, Of))}
        if dead := sorted(set(self.types) - used):
            raise IRTypeError(f"dead binding: {dead}")
        return self.types

    def attr(self, entity: str, attr: Attr) -> Type:
        found = self.schema.attr_type(entity, attr.name)
        if found is None:
            raise IRTypeError(f"unknown attribute {entity}.{attr.name}")
        wanted = self.schema.attr_params(entity, attr.name)
        if len(wanted) != len(attr.args):
            raise IRTypeError(f"{entity}.{attr.name} takes {len(wanted)} arguments, got {len(attr.args)}")
        for type_, operand in zip(wanted, attr.args, strict=True):
            if self.value(operand) != type_:
                raise IRTypeError(f"{entity}.{attr.name}: argument {self.value(operand)}, wanted {type_}")
        return found

    def value(self, operand: Operand) -> Type:
        match operand:
            case Const(_, kind, unit):
                return Type(kind, unit)
            case Named(entity, _, _):
                return Type("row", entity)
            case Ref(var):
                return self.bound(var)
            case Of(var, attr):
                base = self.bound(var)
                if base.kind not in ("row", "rows"):
                    raise IRTypeError(f"{var} is no row")
                return self.attr(base.detail, attr)
            case _:
                raise IRTypeError(f"bad operand {operand!r}")

    def bound(self, var: str) -> Type:
        if var not in self.types:
            raise IRTypeError(f"unbound variable {var}")
        return self.types[var]

    def atoms(self, entity: str, atoms: tuple[Atom, ...]) -> None:
        for atom in atoms:
            type_ = self.attr(entity, atom.attr)
            if type_.kind == "bool":
                if atom.op != "is" or atom.value is not None:
                    raise IRTypeError(f"{entity}.{atom.attr.name} is boolean: use `is`")
                continue
            if atom.op not in COMPARATORS or atom.value is None:
                raise IRTypeError(f"bad comparator {atom.op!r}")
            if self.value(atom.value) != type_:
                raise IRTypeError(f"{entity}.{atom.attr.name}: {type_} against {self.value(atom.value)}")
            if type_.kind in ("row", "str") and atom.op not in ("==", "!="):
                raise IRTypeError(f"{entity}.{atom.attr.name}: {atom.op} on a value without order")

    def followed(self, node: To | Reach) -> Type:
        if isinstance(node, To):
            source = self.value(node.src)
            target = self.attr(source.detail, Attr(node.rel)) if source.kind == "row" else None
            if target is None or target.kind != "row":
                raise IRTypeError(f"{node.rel} is no relation of {source}")
            return target
        if node.src.var not in self.open:
            raise IRTypeError(f"{node.src.var} is no set chosen with `or_none`")
        chosen = self.open[node.src.var]
        return self.attr(chosen.entity, chosen.bounds[0].attr)

    def node(self, node: Node) -> Type:
        if isinstance(node, (To, Reach, Asked)):
            return self.asked(node) if isinstance(node, Asked) else self.followed(node)
        self.atoms(node.entity, node.atoms)
        match node:
            case Pick() | Only():
                if isinstance(node, Pick):
                    self.ordered(node)
                return Type("row", node.entity)
            case Count():
                return Type("num", "")
            case Sum():
                type_ = self.attr(node.entity, node.attr)
                if type_.kind != "num":
                    raise IRTypeError("sum of an attribute that is no number")
                return type_
            case Choose():
                self.choose(node)
                return Type("rows", node.entity)
            case GroupBy():
                return self.group(node)

    def asked(self, node: Asked) -> Type:
        return told_type(self.schema, self.topics, node.topic, Type(node.kind, node.detail))

    def group(self, node: GroupBy) -> Type:
        target = self.attr(node.entity, Attr(node.rel))
        if target.kind != "row" or self.schema.attr_type(target.detail, "name") is None:
            raise IRTypeError(f"{node.entity}.{node.rel} leads to no row with a name")
        summed = None if node.attr is None else self.attr(node.entity, node.attr).kind
        if node.dir not in ("max", "min") or (node.agg, summed) not in (("count", None), ("sum", "num")):
            raise IRTypeError(f"group by {node.dir} {node.agg} of a {summed}")
        return target

    def ordered(self, node: Pick) -> None:
        if self.attr(node.entity, node.attr).kind not in ("num", "date"):
            raise IRTypeError("pick by an attribute without order")

    def choose(self, node: Choose) -> None:
        for con in node.cons:
            type_ = self.attr(node.entity, con.attr)
            if con.kind == "sum" and (type_.kind != "num" or con.value is None or self.value(con.value) != type_):
                raise IRTypeError(f"sum condition on {con.attr.name}: {type_}")
            if con.kind not in ("sum", "distinct"):
                raise IRTypeError(f"unknown set condition {con.kind!r}")
        if node.goal and self.attr(node.entity, node.goal[1]).kind != "num":
            raise IRTypeError("goal by an attribute that is no number")
        if node.or_none and len(node.bounds) != 1:
            raise IRTypeError(f"a choice with `or_none` bounds one total, got {len(node.bounds)}")

    def act(self, op: str, args: tuple[tuple[str, Operand], ...]) -> None:
        wanted = self.schema.action_params(op)
        if wanted is None:
            raise IRTypeError(f"unknown action {op!r}")
        if [name for name, _ in args] != [name for name, _ in wanted]:
            raise IRTypeError(f"action {op} takes {[name for name, _ in wanted]}")
        for (_, operand), (name, type_) in zip(args, wanted, strict=True):
            if self.value(operand) != type_:
                raise IRTypeError(f"action {op}, {name}: {self.value(operand)}, wanted {type_}")

    def steps(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case Let(var, node):
                    self.bind(var, self.node(node))
                    if isinstance(node, Choose) and node.or_none:
                        self.open[var] = node
                case Act(op, args):
                    self.act(op, args)
                case If(lhs, _, rhs, then, other):
                    if self.value(lhs) != self.value(rhs):
                        raise IRTypeError(f"condition compares {self.value(lhs)} with {self.value(rhs)}")
                    self.steps(then)
                    self.steps(other)
                case Try(var, act):
                    self.act(act.op, act.args)
                    self.bind(var, DECISION)
                case ForEach(entity, atoms, op):
                    self.each(entity, atoms, op)
                case Caution() | Budget():
                    pass

    def each(self, entity: str, atoms: tuple[Atom, ...], op: str) -> None:
        self.atoms(entity, atoms)
        wanted = self.schema.action_params(op)
        if wanted is None or [type_ for _, type_ in wanted] != [Type("row", entity)]:
            raise IRTypeError(f"for each {entity}: action {op!r} does not take exactly one")

    def bind(self, var: str, type_: Type) -> None:
        if var in self.types:
            raise IRTypeError(f"{var} is bound twice")
        self.types[var] = type_
