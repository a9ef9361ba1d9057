"""The renderer: one sentence per step, one for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
)
from envsynth.author.procedural.render.asking import ASKED, subject
from envsynth.author.procedural.render.forms import (
    AMOUNT,
    DAY,
    EXTREME_COUNTS,
    EXTREME_TIMES,
    EXTREMES,
    FORMS,
    HOUR,
    MOST,
    NONE,
    SAME,
    SETS,
    SUCH,
    Register,
)
from envsynth.author.procedural.render.values import (
    CLOCK,
    amount,
    answer_format,
    day,
    is_plural,
    quoted,
    row_name,
)
from envsynth.errors import SpecError


def render(task: Task, docs: Mapping[str, Any], register: Register, variant: int = 0) -> str:
    """Write a task as a prompt.

    Args:
        task: A well-typed program.
        docs: Public docs of its world: entities, attrs, actions, units.
        register: Tone of the text.
        variant: Which paraphrases to begin with; sentences take turns through the paraphrases from there.

    Returns:
        The prompt, which parses back to exactly this program.

    Raises:
        SpecError: the docs lack something that the program uses, or a value cannot be written exactly.
    """
    return " ".join(text for _, text in sentences(task, docs, register, variant))


def sentences(task: Task, docs: Mapping[str, Any], register: Register, variant: int = 0) -> list[tuple[str, str]]:
    """Write a task sentence by sentence, for quotes.

    Args:
        task: A well-typed program.
        docs: Public docs of its world.
        register: Tone of the text.
        variant: Which paraphrases to begin with.

    Returns:
        Pairs (key, sentence): the variable of a let, `step<i>` for another step (position in the task), `report`.

    Raises:
        SpecError: the docs lack something that the program uses, or a value cannot be written exactly.
    """
    writer = _Writer(docs, register, variant)
    written = [
        (step.var if isinstance(step, Let) else f"step{index}", writer.step(index, step))
        for index, step in enumerate(task.steps)
    ]
    return [*written, ("report", writer.report(len(task.steps), task.report))]


def _series(parts: Sequence[str]) -> str:
    """Join as "a", "a and b", "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


class _Writer:
    """Renders one task; holds the type of each variable bound so far."""

    def __init__(self, docs: Mapping[str, Any], register: Register, variant: int) -> None:
        self.register: Register = register
        self.variant = variant
        self.nouns: dict[str, tuple[str, str]] = {key: (one, many) for key, (one, many) in docs["entities"].items()}
        self.labels = {(entity, name): label for entity, name, label, _, _ in docs["attrs"]}
        self.attr_types = {(entity, name): Type(*type_) for entity, name, _, type_, _ in docs["attrs"]}
        self.actions = {op: (phrase, [name for name, _ in params]) for op, phrase, params in docs["actions"]}
        self.units: Mapping[str, str] = docs["units"]
        self.types: dict[str, Type] = {}
        self.chosen: dict[str, Choose] = {}

    # ---------------------------------------------------------------------------------------------------- sentences

    def form(self, kind: str, index: int, /, **words: str) -> str:
        """Fill the paraphrase whose turn it is."""
        forms = (ASKED if kind == "asked" else FORMS[kind])[self.register]
        return forms[(self.variant + index) % len(forms)].format(**words)

    def step(self, index: int, step: Step) -> str:
        match step:
            case Let(var, node):
                text = self.let(index, var, node)
                self.types[var] = self.node_type(node)
                if isinstance(node, Choose):
                    self.chosen[var] = node
                return text
            case Act():
                return self.form("act" if index else "first_act", index, act=self.act(step))
            case Try(var, act):
                self.types[var] = DECISION
                return self.form("try", index, act=self.act(act), var=var)
            case Caution() | Budget():
                return self.form(type(step).__name__.lower(), index)
            case If(lhs, op, rhs, then, other):
                words = {"then": self.branch(then), "other": self.branch(other)}
                return self.form("if", index, cond=self.condition(lhs, op, rhs), **words)
            case ForEach(entity, atoms, op):
                phrase, params = self.action(op)
                if len(params) != 1:
                    raise SpecError(f"for each {entity}: action {op!r} does not take exactly one parameter")
                words = {
                    "these": self.pool(entity, atoms, bare="the"),
                    "act": phrase.format(**{params[0]: "it"}),
                }
                return self.form("foreach", index, **words)

    def let(self, index: int, var: str, node: Node) -> str:
        match node:
            case To() | Reach() | Asked():
                return self.followed(index, var, node)
            case Pick(entity, atoms, direction, attr):
                words = {"one": self.noun(entity)[0], "pool": self.pool(entity, atoms)}
                extreme = self.extreme(entity, attr, direction)
                return self.form("pick", index, var=var, extreme=extreme, attr=self.attr(entity, attr), **words)
            case Only(entity, atoms):
                one = self.noun(entity)[0]
                return self.form("only", index, var=var, one=one, row=one + self.atoms(entity, atoms, one=True))
            case Count(entity, atoms):
                many, conditions = self.noun(entity)[1], self.atoms(entity, atoms)
                words = {"pool": self.pool(entity, atoms), "rows": many + conditions}
                return self.form("count", index, var=var, many=many, conditions=conditions, **words)
            case Sum(entity, atoms, attr):
                words = {"attr": self.attr(entity, attr), "pool": self.pool(entity, atoms)}
                return self.form("sum", index, var=var, **words)
            case Choose() | GroupBy():
                is_choice = isinstance(node, Choose)
                kind, words = (
                    ("choose", self.choose(var, node)) if is_choice else (f"group_{node.agg}", self.group(node))
                )
                return self.form(kind, index, var=var, **words)

    def group(self, node: GroupBy) -> dict[str, str]:
        owners = self.noun(self.attr_type(node.entity, Attr(node.rel)).detail)[1]
        words = {
            "rel": self.attr(node.entity, Attr(node.rel)),
            "pool": self.pool(node.entity, node.atoms),
            "rows": self.noun(node.entity)[1] + self.atoms(node.entity, node.atoms),
            "none": NONE.format(rows=owners) if node.dir == "min" else "",
        }
        if node.attr is not None:
            words["attr"] = self.attr(node.entity, node.attr)
        return {**words, "most": MOST[self.register][node.dir], "extreme": EXTREMES[self.register][node.dir]}

    def followed(self, index: int, var: str, node: To | Reach | Asked) -> str:
        if isinstance(node, Asked):
            what = subject(self.units, self.nouns, Type(node.kind, node.detail))
            return self.form("asked", index, var=var, topic=node.topic, what=what)
        if isinstance(node, To):
            label = self.attr(self.value_type(node.src).detail, Attr(node.rel))
            return self.form("to", index, var=var, rel=label, src=self.operand(node.src))
        chosen = self.chosen[node.src.var]
        (bound,) = chosen.bounds
        extreme = EXTREMES[self.register]["max" if bound.op in (">", ">=") else "min"]
        words = {"attr": self.attr(chosen.entity, bound.attr), "set": node.src.var, "extreme": extreme}
        return self.form("reach", index, var=var, **words)

    def choose(self, var: str, node: Choose) -> dict[str, str]:
        if node.k < 1:
            raise SpecError(f"a selection has at least one row, got {node.k}")
        rows = self.noun(node.entity)[1] + self.atoms(node.entity, node.atoms)
        conditions = [self.set_condition(node.entity, con) for con in node.cons]
        if node.goal is not None:
            direction, attr = node.goal
            words = {"attr": self.attr(node.entity, attr), "verb": self.verb(node.entity, attr)}
            conditions.append(SETS[self.register][direction].format(**words))
        return {
            "chosen": f"1 of the {rows}" if node.k == 1 else f"{node.k} different {rows}",
            "tail": SUCH[self.register] + _series(conditions) if conditions else "",
            "them": f"the chosen {self.noun(node.entity)[node.k > 1]}",
            "ties": f"any {'best' if node.goal else 'such'} choice is accepted"
            + (f"; if there is none, {var} is empty" if node.or_none else ""),
        }

    def set_condition(self, entity: str, con: Con) -> str:
        words = {"attr": self.attr(entity, con.attr)}
        if con.kind == "sum":
            if con.value is None:
                raise SpecError(f"the condition on the sum of {con.attr.name} has no bound")
            verb = self.verb(entity, con.attr)
            words["bound"] = f"{self.comparator(Type('num'), con.op, verb)}{self.operand(con.value)}"
        return SETS[self.register][con.kind].format(**words)

    def report(self, index: int, report: tuple[tuple[str, Operand], ...]) -> str:
        if not report:
            return self.form("no_report", index)
        values: list[str] = []
        fields: list[str] = []
        for field, operand in report:
            type_ = self.value_type(operand)
            many = self.types[operand.var].kind == "rows" if isinstance(operand, (Ref, Of)) else False
            type_ = Type("row", type_.detail) if type_.kind == "rows" else type_
            how = answer_format(self.units, type_, many=many)
            text = self.reported(operand, many=many)
            values.append(f'{text} as "{field}" ({how})')
            fields.append(f'"{field}": {text} ({how})')
        return self.form("report", index, values=_series(values), fields=_series(fields))

    def reported(self, operand: Operand, *, many: bool) -> str:
        match operand:
            case Of(var, Attr("name" | "id" as name, ())) if many:
                return f"the {self.attr(self.types[var].detail, Attr(name))}s of {var}"
            case Of(var, attr) if many:
                return f"the {self.attr(self.types[var].detail, attr)} of each of {var}"
            case Ref(var) if many:
                return var
            case Ref() | Of():
                return self.operand(operand)
            case _:
                raise SpecError(f"an answer reports variables and their attributes, not {operand!r}")

    # ------------------------------------------------------------------------------------------------------ phrases

    def noun(self, entity: str) -> tuple[str, str]:
        """Singular and plural.

        Raises:
            SpecError: the docs have none.
        """
        if entity not in self.nouns:
            raise SpecError(f"the docs have no noun for entity {entity!r}")
        return self.nouns[entity]

    def pool(self, entity: str, atoms: tuple[Atom, ...], bare: str = "all") -> str:
        """The rows that meet the atoms, with article; `bare` is the article when there is no condition."""
        return f"{'the' if atoms else bare} {self.noun(entity)[1]}{self.atoms(entity, atoms)}"

    def atoms(self, entity: str, atoms: tuple[Atom, ...], *, one: bool = False) -> str:
        """Conditions behind a noun, with a space before them; `one` when the noun is singular."""
        return f" {_series([self.atom(entity, atom, one=one) for atom in atoms])}" if atoms else ""

    def atom(self, entity: str, atom: Atom, *, one: bool) -> str:
        label, type_ = self.attr(entity, atom.attr), self.attr_type(entity, atom.attr)
        if type_.kind == "bool":
            return f"that {'is' if one else 'are'} {label}"
        if atom.value is None:
            raise SpecError(f"the condition on {entity}.{atom.attr.name} has no value")
        comparator = self.comparator(type_, atom.op, self.verb(entity, atom.attr))
        return f"whose {label} {comparator}{self.value(atom.value, label)}"

    def attr(self, entity: str, attr: Attr) -> str:
        return self.label(entity, attr).format(*(self.operand(arg) for arg in attr.args))

    def label(self, entity: str, attr: Attr) -> str:
        """Label with slots for its arguments.

        Raises:
            SpecError: the docs have none.
        """
        if (entity, attr.name) not in self.labels:
            raise SpecError(f"the docs have no label for {entity}.{attr.name}")
        return self.labels[entity, attr.name]

    def condition(self, lhs: Operand, op: str, rhs: Operand) -> str:
        if not isinstance(lhs, (Ref, Of)):
            raise SpecError(f"a condition is about a variable or an attribute of one, not {lhs!r}")
        verb, label = "is", ""
        if isinstance(lhs, Of):
            entity = self.var_type(lhs.var).detail
            verb, label = self.verb(entity, lhs.attr), self.attr(entity, lhs.attr)
        comparator = self.comparator(self.value_type(lhs), op, verb)
        return f"{self.operand(lhs)} {comparator}{self.value(rhs, label)}"

    def verb(self, entity: str, attr: Attr) -> str:
        """The form of "to be" that agrees with the attribute's label."""
        return "are" if is_plural(self.label(entity, attr)) else "is"

    def value(self, operand: Operand, label: str) -> str:
        """What a labelled value is compared with; a row's noun is left out where the label has just said it."""
        if isinstance(operand, Named) and f" {label}".endswith(f" {self.noun(operand.entity)[0]}"):
            shown = row_name(operand.by, operand.value)
            return shown if operand.by == "name" else f"the one {shown}"
        return self.operand(operand)

    def comparator(self, type_: Type, op: str, verb: str) -> str:
        """Verb and comparator, with a space behind.

        Raises:
            SpecError: values of the type are not compared so.
        """
        tone: Register = "plain" if self.register == "terse" else self.register
        words: dict[str, str] = {}
        if type_.kind == "date":
            words = DAY[tone]
        elif type_.kind == "num":
            words = (HOUR if self.is_clock(type_) else AMOUNT)[tone]
        elif type_.kind in ("row", "str"):
            words = SAME
        if op not in words:
            raise SpecError(f"values of type {type_.kind} are not compared with {op!r}")
        if self.register == "terse":
            return f"{'=' if op == '==' else op} "
        return f"{verb} {words[op]}"

    def extreme(self, entity: str, attr: Attr, direction: str) -> str:
        type_ = self.attr_type(entity, attr)
        if type_.kind == "date" or self.is_clock(type_):
            return EXTREME_TIMES[direction]
        words = EXTREME_COUNTS if is_plural(self.label(entity, attr)) else EXTREMES
        return words[self.register][direction]

    def is_clock(self, type_: Type) -> bool:
        return type_.kind == "num" and self.units.get(type_.detail, type_.detail) == CLOCK

    def branch(self, acts: tuple[Act, ...]) -> str:
        if len(acts) > 1:
            raise SpecError(f"a branch holds at most one action, got {len(acts)}")
        return self.act(acts[0]) if acts else "do nothing"

    def act(self, act: Act) -> str:
        phrase, params = self.action(act.op)
        if [name for name, _ in act.args] != params:
            raise SpecError(f"action {act.op!r} takes {params}, got {[name for name, _ in act.args]}")
        return phrase.format(**{name: self.operand(value) for name, value in act.args})

    def action(self, op: str) -> tuple[str, list[str]]:
        """Phrase and parameter names.

        Raises:
            SpecError: the docs have no phrase, or it leaves a parameter out.
        """
        if op not in self.actions:
            raise SpecError(f"the docs have no phrase for action {op!r}")
        phrase, params = self.actions[op]
        if missing := [name for name in params if f"{{{name}}}" not in phrase]:
            raise SpecError(f"the phrase of action {op!r} does not mention {missing}")
        return phrase, params

    def operand(self, operand: Operand) -> str:
        match operand:
            case Const(value, "num", unit):
                return amount(self.units, unit, value)
            case Const(value, "date", _):
                return day(value)
            case Const(value, "str", _):
                return quoted(value)
            case Named(entity, by, value):
                return f"the {self.noun(entity)[0]} {row_name(by, value)}"
            case Ref(var):
                return var
            case Of(var, attr) if self.var_type(var).kind == "row":
                text = self.attr(self.types[var].detail, attr)
                # Behind an argument "of X1" would read as part of it: "the cost for 30 units of X1".
                return f"{var}'s {text}" if attr.args else f"the {text} of {var}"
            case _:
                raise SpecError(f"{operand!r} cannot stand in a sentence")

    # -------------------------------------------------------------------------------------------------------- types

    def attr_type(self, entity: str, attr: Attr) -> Type:
        if (entity, attr.name) not in self.attr_types:
            raise SpecError(f"the docs have no attribute {entity}.{attr.name}")
        return self.attr_types[entity, attr.name]

    def var_type(self, var: str) -> Type:
        if var not in self.types:
            raise SpecError(f"variable {var} is used before it is bound")
        return self.types[var]

    def value_type(self, operand: Operand) -> Type:
        match operand:
            case Const(_, kind, unit):
                return Type(kind, unit)
            case Named(entity, _, _):
                return Type("row", entity)
            case Ref(var):
                return self.var_type(var)
            case Of(var, attr):
                return self.attr_type(self.var_type(var).detail, attr)

    def node_type(self, node: Node) -> Type:
        match node:
            case To(src, rel):
                return self.attr_type(self.value_type(src).detail, Attr(rel))
            case Pick(entity, _, _, _) | Only(entity, _):
                return Type("row", entity)
            case Count():
                return Type("num", "")
            case Choose():
                return Type("rows", node.entity)
            case Sum() | GroupBy() | Reach() | Asked():
                return self.stated_type(node)

    def stated_type(self, node: Sum | GroupBy | Reach | Asked) -> Type:
        """The type of the attribute that is added up or that rows are grouped by, or of what the user is asked for."""
        if isinstance(node, Asked):
            return Type(node.kind, node.detail)
        if isinstance(node, GroupBy):
            return self.attr_type(node.entity, Attr(node.rel))
        if isinstance(node, Sum):
            return self.attr_type(node.entity, node.attr)
        chosen = self.chosen[node.src.var]
        return self.attr_type(chosen.entity, chosen.bounds[0].attr)
