"""Compiling a task program to the source of `def solve(call)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from envsynth.author.procedural.ir import (
    DECISION,
    Act,
    Asked,
    Atom,
    Attr,
    Budget,
    Caution,
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
    Only,
    Operand,
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
    lets,
    walk,
)
from envsynth.author.procedural.planner.prelude import (
    ASKING,
    ATTEMPTING,
    CHOOSING,
    CHOOSING_OR_NONE,
    GROUPING,
    LISTING,
    READING,
    RECOVERING,
    SKILL_COMMENTS,
    SPENDING,
    THINKING,
)
from envsynth.author.procedural.planner.skills import ASK_FLAGS, BUDGET_FLAGS, FAULT_FLAGS, FLAGS
from envsynth.author.procedural.planner.texts import PlannerWorld, changing_tools, needed_texts
from envsynth.author.procedural.schema import WIDEST
from envsynth.errors import AuthorError

_INDENT = "    "
TRIALS = 9
"""Calls of one tool in a row that a solver makes before it gives up."""
NOTES = 250
"""Reads after which a solver that wastes calls begins to remember: gates play no more than 400 turns."""


def compile_plan(composition: PlannerWorld, task: Task) -> str:
    """Compile a task program to the source of its solver.

    The source defines the flags of `FLAGS` and `def solve(call)`; `call(tool, **arguments)` returns a tool's result
    and raises when the tool refuses, which ends the solver. Everything that the task describes is read before the
    first change is made.

    Args:
        composition: The composed world, with the access to its read tools.
        task: A program.

    Returns:
        Python source; it imports nothing but `itertools`, and that only to choose sets.

    Raises:
        IRTypeError: the program is ill-typed.
        AuthorError: a planner text of a mechanism is malformed.
    """
    texts = needed_texts(composition, task)
    body = _Solver(composition, task).source()
    choices = [step.node for step in task.steps if isinstance(step, Let) and isinstance(step.node, Choose)]
    wary, asks, thrifty = Caution() in task.steps, bool(lets(task, Asked)), Budget() in task.steps
    own = ((True, FLAGS), (wary, FAULT_FLAGS), (asks, ASK_FLAGS), (thrifty, BUDGET_FLAGS))
    parts = [
        '"""Solver of one task: calls tools and thinks, nothing else."""\n',
        _flags({name: value for used, flags in own if used for name, value in flags.items()}),
        _tools(composition),
        READING + LISTING[composition.style.paging],
        THINKING,
        *([GROUPING] if lets(task, GroupBy) else []),
        *([f"CHANGING = {changing_tools(composition, task)!r}\nTRIALS = {TRIALS}\n", RECOVERING] if wary else []),
        *([ASKING] if asks else []),
        *([f"NOTES = {NOTES}\n", SPENDING] if thrifty else []),
        *([ATTEMPTING] if any(isinstance(step, Try) for step in task.steps) else []),
        *([CHOOSING] if choices else []),
        *([CHOOSING_OR_NONE] if any(node.or_none for node in choices) else []),
        *(text.strip("\n") + "\n" for text in texts),
        body,
    ]
    try:
        # What all solvers share is known to be well-formed, and most of the text.
        compile("\n\n".join([*texts, body]), "solution", "exec")
    except SyntaxError as error:
        raise AuthorError(f"the compiled solver is no Python ({error})") from error
    return "\n\n".join(parts)


def idle_bound(task: Task, asked: Asked) -> int | str:
    """The bound that leaves a condition without effect: what who does not ask for it goes by."""
    refs = [Ref(let.var) for let in lets(task, Asked) if let.node == asked]
    used = [node for node in walk(task) if isinstance(node, (Atom, Con)) and node.value in refs]
    below, above = WIDEST[asked.kind]
    return below if any(node.op in (">", ">=") for node in used) else above


def _flags(flags: Mapping[str, bool | str | int]) -> str:
    lines = ["# Skills: a solver that lacks one has the name overwritten."]
    lines += [f"{name} = {value!r}  # {SKILL_COMMENTS[name]}" for name, value in flags.items()]
    return "\n".join(lines) + "\n"


def _tools(world: PlannerWorld) -> str:
    lines = [f"KEY = {world.style.result_key!r}", "TOOLS = {"]
    for entity, access in world.access.items():
        lines += [
            f"    {entity!r}: {{",
            f"        'list': {access.list_tool!r},",
            f"        'filters': {list(access.filters)!r},",
            f"        'columns': {list(access.columns)!r},",
            f"        'get': {access.get_tool!r},",
            f"        'find': {access.find_tool!r},",
            "    },",
        ]
    return "\n".join([*lines, "}"]) + "\n"


class _Solver:
    """Writes `def solve(call)`."""

    def __init__(self, world: PlannerWorld, task: Task) -> None:
        self.world, self.task = world, task
        self.types = check(task, world)
        self.lines: list[str] = []
        self.hoisted: dict[str, str] = {}
        self.chosen = {
            step.var: step.node for step in task.steps if isinstance(step, Let) and isinstance(step.node, Choose)
        }

    def source(self) -> str:
        """The whole function."""
        steps = self.task.steps
        acts = [step for step in steps if not isinstance(step, (Let, Caution, Budget))]
        call = "patient(call)" if Caution() in steps else "call"
        self.emit(1, f"SESSION.update(call={call}, decisions=0)", "MEMO.clear()")
        if Budget() in steps:
            self.emit(1, "begin()")
        if acts:
            self.emit(1, "todo = []  # decided before the first change")
        tries = [step.var for step in steps if isinstance(step, Try)]
        if tries:
            self.emit(1, "told = {}  # what became of attempts")
        for step in steps:
            self.step(step)
        fields = [f"{name!r}: {self.reported(operand)}" for name, operand in self.task.report]
        answer = self.braces("{", fields, "}")
        if acts:
            self.emit(
                1,
                f"answer = {answer}",
                "for action, *arguments in todo:",
                _INDENT + "action(*arguments)",
            )
            for name, operand in self.task.report:
                if isinstance(operand, Ref) and operand.var in tries:
                    self.emit(1, f"answer[{name!r}] = told[{operand.var!r}]")
            self.emit(1, "return answer")
        else:
            self.emit(1, f"return {answer}")
        return "\n".join(["def solve(call):", *self.lines]) + "\n"

    def emit(self, depth: int, *texts: str) -> None:
        """Append lines at a depth of indentation."""
        for text in texts:
            self.lines += [_INDENT * depth + line for line in text.split("\n")]

    # ------------------------------------------------------------------------------------------------------- steps

    def step(self, step: Step) -> None:
        match step:
            case Let(var, node):
                text = self.node(node)
                names = f"{var}, {var}_near" if isinstance(node, Choose) and node.or_none else var
                self.emit(1, f"{names} = {text}")
            case Act():
                self.emit(1, self.act(step))
            case If():
                left, right = self.ident(step.lhs), self.ident(step.rhs)
                self.emit(1, f"if not BRANCH or holds({left}, {step.op!r}, {right}):")
                self.emit(2, *([self.act(act) for act in step.then] or ["pass"]))
                if step.other:
                    self.emit(1, "else:")
                    self.emit(2, *(self.act(act) for act in step.other))
            case Try(var, act):
                arguments = [self.operand(operand) for _, operand in act.args]
                parts = ["attempt", "told", repr(var), f"a_{act.op}", *arguments]
                self.emit(1, f"todo.append({self.braces('(', parts, ')')})")
            case ForEach(entity, atoms, op):
                members = self.select(entity, atoms)
                self.emit(1, f"for row in {members}:", f"{_INDENT}todo.append((a_{op}, row))")
            case Caution() | Budget():
                pass

    def act(self, act: Act) -> str:
        arguments = [self.operand(operand) for _, operand in act.args]
        return f"todo.append({self.braces('(', [f'a_{act.op}', *arguments], ')')})"

    def asked(self, node: Asked) -> str:
        """What the user tells; who does not ask takes the first row, or a bound that every value meets."""
        told = f"said({node.topic!r})"
        if node.kind == "row":
            return f"lookup({node.detail!r}, 'name', {told}) if ASKS else rows({node.detail!r}, {{}})[0]"
        told = f"int({told})" if node.kind == "num" else told
        return f"{told} if ASKS else {idle_bound(self.task, node)!r}"

    def node(self, node: Node) -> str:
        match node:
            case To() | Reach() | Asked():
                return self.asked(node) if isinstance(node, Asked) else self.followed(node)
            case Pick(entity, atoms, direction, attr):
                parts = [self.select(entity, atoms), self.function(entity, attr), repr(direction)]
                return f"pick{self.braces('(', parts, ')')}"
            case Only(entity, atoms):
                return f"{self.select(entity, atoms)}[0]"
            case Count(entity, atoms):
                return f"len({self.select(entity, atoms)})"
            case Sum(entity, atoms, attr):
                value = self.attribute(entity, "row", attr, inside=True)
                return f"total([{value} for row in {self.select(entity, atoms)}])"
            case Choose() | GroupBy():
                return self.choice(node) if isinstance(node, Choose) else self.group(node)

    def followed(self, node: To | Reach) -> str:
        if isinstance(node, To):
            return self.attribute(self.entity(node.src), self.operand(node.src), Attr(node.rel))
        var, chosen = node.src.var, self.chosen[node.src.var]
        value = self.attribute(chosen.entity, "row", chosen.bounds[0].attr, inside=True)
        return f"total([{value} for row in {var} or {var}_near])"

    def choice(self, node: Choose) -> str:
        conditions = [self.con(node.entity, con) for con in node.cons]
        target = "None" if node.goal is None else f"({node.goal[0]!r}, {self.function(node.entity, node.goal[1])})"
        parts = [self.select(node.entity, node.atoms), str(node.k), self.braces("[", conditions, "]"), target]
        if not node.or_none:
            return f"choose{self.braces('(', parts, ')')}"
        return f"choose_or_none{self.braces('(', [*parts, str(node.cons.index(node.bounds[0]))], ')')}"

    def group(self, node: GroupBy) -> str:
        """The related row whose members come to the most or least: rows are grouped by what they say of it."""
        target = self.world.attr_type(node.entity, node.rel)
        assert target is not None  # the program is well-typed
        is_derived = (node.entity, node.rel) in self.world.derived
        key = "id" if is_derived else self.world.fk(node.entity, node.rel)[1]
        related = self.function(node.entity, Attr(node.rel))
        measure = "lambda row: 1" if node.attr is None else self.function(node.entity, node.attr)
        parts = [self.select(node.entity, node.atoms), related, measure, repr(node.dir)]
        return f"named({target.detail!r}, {key!r}, leading{self.braces('(', parts, ')')})"

    def con(self, entity: str, con: Con) -> str:
        function = self.function(entity, con.attr)
        bound = "None" if con.value is None else self.operand(con.value)
        return f"({con.kind!r}, {function}, {con.op!r}, {bound})"

    def select(self, entity: str, atoms: Sequence[Atom]) -> str:
        conditions = [self.condition(entity, atom) for atom in atoms]
        return f"select({entity!r}, {self.braces('[', conditions, ']')})"

    def condition(self, entity: str, atom: Atom) -> str:
        if (entity, atom.attr.name) in self.world.derived:
            if atom.value is None:
                test = self.attribute(entity, "row", atom.attr, inside=True)
                return f"(lambda row: {test}, {atom.op!r}, True)"
            function = self.function(entity, atom.attr)
            return f"({function}, {atom.op!r}, {self.ident(atom.value)})"
        assert atom.value is not None
        col = self.world.col(entity, atom.attr.name)
        value = self.operand(atom.value)
        if col.kind == "fk":
            column, key = self.world.fk(entity, atom.attr.name)
            return f"({column!r}, {atom.op!r}, {value}[{key!r}])"
        return f"({col.column!r}, {atom.op!r}, {value})"

    # ---------------------------------------------------------------------------------------------------- operands

    def function(self, entity: str, attr: Attr) -> str:
        """A function from a row to a comparable value; a stored relation is compared by its key."""
        if (entity, attr.name) not in self.world.derived:
            return f"lambda row: row[{self.world.col(entity, attr.name).column!r}]"
        value = self.attribute(entity, "row", attr, inside=True)
        return f"lambda row: {self.comparable(value, self.world.attr_type(entity, attr.name))}"

    def attribute(self, entity: str, row: str, attr: Attr, *, inside: bool = False) -> str:
        """An attribute of a row; `inside` a loop over rows, arguments that need calls are worked out before it."""
        if (entity, attr.name) in self.world.derived:
            arguments = [self.hoist(operand) if inside else self.operand(operand) for operand in attr.args]
            return f"d_{attr.name}({', '.join([row, *arguments])})"
        col = self.world.col(entity, attr.name)
        if col.kind == "fk":
            column, key = self.world.fk(entity, attr.name)
            return f"named({col.ref!r}, {key!r}, {row}[{column!r}])"
        return f"{row}[{col.column!r}]"

    def operand(self, operand: Operand) -> str:
        """A leaf: a number or text, or a whole row."""
        match operand:
            case Const(value, _, _):
                return repr(value)
            case Named(entity, by, value):
                return f"lookup({entity!r}, {by!r}, {value!r})"
            case Ref(var):
                return var
            case Of(var, attr):
                return self.attribute(self.types[var].detail, var, attr)

    def hoist(self, operand: Operand) -> str:
        """A leaf as a name or constant, worked out before the statement under way."""
        text = self.operand(operand)
        if isinstance(operand, (Const, Ref)):
            return text
        if text not in self.hoisted:
            self.hoisted[text] = f"given_{len(self.hoisted) + 1}"
            self.emit(1, f"{self.hoisted[text]} = {text}")
        return self.hoisted[text]

    def ident(self, operand: Operand) -> str:
        """A leaf as something that can be compared: rows by their ids."""
        return self.comparable(self.operand(operand), self.type_of(operand))

    def comparable(self, text: str, type_: Type | None) -> str:
        kind = type_.kind if type_ is not None else ""
        return {"row": f"{text}['id']", "bool": f"bool({text})"}.get(kind, text)

    def reported(self, operand: Operand) -> str:
        """A leaf as a field of the answer; an attribute of a chosen set is a list, in the set's order."""
        if isinstance(operand, (Ref, Of)) and self.types[operand.var].kind == "rows":
            attr = operand.attr if isinstance(operand, Of) else Attr("id")
            entity = self.types[operand.var].detail
            value = self.attribute(entity, "row", attr, inside=True)
            return f"[{self.comparable(value, self.world.attr_type(entity, attr.name))} for row in {operand.var}]"
        if isinstance(operand, Ref) and self.types[operand.var] == DECISION:
            return "None"  # told once it was tried
        return self.ident(operand)

    def type_of(self, operand: Operand) -> Type | None:
        match operand:
            case Const(_, kind, unit):
                return Type(kind, unit)
            case Named(entity, _, _):
                return Type("row", entity)
            case Ref(var):
                return self.types[var]
            case Of(var, attr):
                return self.world.attr_type(self.types[var].detail, attr.name)

    def entity(self, operand: Operand) -> str:
        type_ = self.type_of(operand)
        return type_.detail if type_ is not None else ""

    def braces(self, left: str, parts: Sequence[str], right: str) -> str:
        """A bracketed list: on one line when it is short, else one part per line."""
        line = left + ", ".join(parts) + right
        if len(line) <= 80 and "\n" not in line:
            return line
        inner = [_INDENT + part.replace("\n", "\n" + _INDENT) + "," for part in parts]
        return "\n".join([left, *inner, right])
