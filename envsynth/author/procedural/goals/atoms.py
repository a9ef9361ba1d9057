"""Compiling a task program to a `Verifier`: one atom per thing that the task demands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from envsynth.author.procedural.goals.expressions import Expressions, GoalsWorld
from envsynth.author.procedural.goals.snippets import GROUPING, HELPERS, SEARCH, closure, split
from envsynth.author.procedural.ir import (
    MEND,
    Act,
    Attr,
    Budget,
    Caution,
    Choose,
    Con,
    ForEach,
    GroupBy,
    If,
    Let,
    Of,
    Operand,
    Reach,
    Ref,
    Step,
    Task,
    Try,
    lets,
)
from envsynth.errors import AuthorError
from envsynth.spec import GoalAtom, Verifier


def compile_goals(
    composition: GoalsWorld,
    task: Task,
    certificates: Mapping[str, int],
    quotes: Mapping[str, str] | None = None,
) -> Verifier:
    """Compile a task program to the atoms that decide an episode.

    Atom ids: `<field>.value` for a reported value; for a field that names a chosen set `<field>.count`,
    `<field>.exists`, `<field>.atom<i>`, `<field>.con<i>`, `<field>.best` and `<field>.none`; `step<i>.<action>` for an action,
    `step<i>.if` for a branch, `step<i>.each` for an action on every row, and `step<i>.order` for what has to be in order at the
    end. The frame is the kernel's business.

    Args:
        composition: The composed world.
        task: A program.
        certificates: Best total of each `Choose` with a goal, by variable.
        quotes: Words of the prompt by variable (`X1`), step (`step3`) or field of the report; an atom of a field
            quotes the field's sentence, else its variable's.

    Returns:
        A verifier of the form `atoms`.

    Raises:
        IRTypeError: the program is ill-typed.
        AuthorError: a certificate is missing, a chosen set is not reported by name or id, or a goal text is
            malformed.
    """
    return _Goals(composition, task, certificates, quotes or {}).verifier()


class _Goals:
    def __init__(
        self,
        world: GoalsWorld,
        task: Task,
        certificates: Mapping[str, int],
        quotes: Mapping[str, str],
    ) -> None:
        self.world, self.task, self.certificates, self.quotes = world, task, certificates, quotes
        self.write = Expressions(world, task)
        self.atoms: list[GoalAtom] = []
        self.chosen = {
            step.var: step.node for step in task.steps if isinstance(step, Let) and isinstance(step.node, Choose)
        }
        self.named: dict[str, tuple[str, str]] = {}
        self.tries = {step.var: f"step{index}" for index, step in enumerate(task.steps) if isinstance(step, Try)}

    def verifier(self) -> Verifier:
        """Write all definitions and atoms.

        Raises:
            AuthorError: a chosen set is reported neither by name nor by id.
        """
        for name, operand in self.task.report:
            self.choose_field(name, operand)
        if unnamed := [var for var in self.chosen if var not in self.named]:
            raise AuthorError(f"chosen sets {unnamed} are reported neither by name nor by id: nothing could check them")
        for name, operand in self.task.report:
            self.field(name, operand)
        for index, step in enumerate(self.task.steps):
            self.step(index, step)
        defined = "\n\n".join(
            self.definition(index, step)
            for index, step in enumerate(self.task.steps)
            if isinstance(step, (Let, ForEach))
        )
        texts = [item.goal for item in (*self.world.derived.values(), *self.world.actions.values())]
        needed = closure(split(texts), [defined, *(atom.expression for atom in self.atoms)])
        search = any(node.or_none for node in self.chosen.values())
        helpers = [HELPERS, *([GROUPING] if lets(self.task, GroupBy) else []), *([SEARCH] if search else [])]
        parts = [*(text.strip("\n") for text in helpers), *needed, *([defined] if defined else [])]
        definitions = "\n\n\n".join(parts) + "\n"
        self.refuse_broken("\n\n\n".join([*needed, defined]))  # the helpers are known to be well-formed
        return Verifier(form="atoms", definitions=definitions, atoms=tuple(self.atoms))

    def refuse_broken(self, definitions: str) -> None:
        """Compile every text of this task once, so that a malformed one is found here and not in an episode.

        Raises:
            AuthorError: a text is no Python.
        """
        try:
            compile(definitions, "definitions", "exec")
            for atom in self.atoms:
                compile(atom.expression, atom.id, "eval")
        except SyntaxError as error:
            raise AuthorError(f"compiled goals are no Python ({error}): {error.text}") from error

    def add(self, name: str, kind: Literal["answer", "state", "order"], expression: str, *quoted: str) -> None:
        """Append an atom that quotes the first known sentence."""
        quote = next((self.quotes[key] for key in quoted if key in self.quotes), "")
        self.atoms.append(GoalAtom(id=name, kind=kind, quote=quote, expression=expression))

    def definition(self, index: int, step: Let | ForEach) -> str:
        """The function that a variable becomes, or the set of rows that an action is done on."""
        if isinstance(step, ForEach):
            return f"@once\ndef step{index}_rows():\n    return {self.write.members(step.entity, step.atoms)}\n"
        if step.var in self.chosen:
            name, column = self.named[step.var]
            node = self.chosen[step.var]
            given = f"def {step.var}():\n    return rows_called({node.entity!r}, {column!r}, answer[{name!r}])\n"
            return given + (f"\n\n{self.reach(step.var, node)}" if node.or_none else "")
        if isinstance(step.node, Reach):
            var = step.node.src.var
            value = self.write.plain_attribute(self.chosen[var].entity, "row", self.chosen[var].bounds[0].attr)
            total = f"sum({value} for row in {var}())"
            return f"def {step.var}():\n    return {total} if answer[{self.named[var][0]!r}] else {var}_reach()\n"
        return f"@once\ndef {step.var}():\n    return {self.write.description(step.node)}\n"

    def reach(self, var: str, node: Choose) -> str:
        """The function that searches all sets without the bound: the empty set is right when even that total misses it."""
        (bound,) = node.bounds
        tests = [self.search_test(node.entity, con) for con in node.cons if con is not bound]
        value = self.write.plain_attribute(node.entity, "row", bound.attr)
        direction = "max" if bound.op in (">", ">=") else "min"
        return (
            f"@once\ndef {var}_reach():\n    rows = {self.write.members(node.entity, node.atoms)}\n"
            f"    tests = [{', '.join(tests)}]\n"
            f"    return nearest_total([{value} for row in rows], {node.k}, {direction!r}, tests)\n"
        )

    def search_test(self, entity: str, con: Con) -> str:
        """A condition on a set of positions in `rows`."""
        values = f"[{self.write.key_attribute(entity, 'row', con.attr)} for row in rows]"
        if con.kind == "distinct" or con.value is None:
            return f"differing({values})"
        return f"totalling({values}, lambda found: found {con.op} {self.write.plain_operand(con.value)})"

    # ------------------------------------------------------------------------------------------------------ answer

    def choose_field(self, name: str, operand: Operand) -> None:
        """Note the field that names the rows of a chosen set."""
        var = operand.var if isinstance(operand, (Ref, Of)) else ""
        attr = operand.attr if isinstance(operand, Of) else Attr("id")
        if var in self.chosen and attr.name in ("name", "id"):
            self.named.setdefault(var, (name, attr.name))

    def field(self, name: str, operand: Operand) -> None:
        """Atoms of one field of the answer.

        Raises:
            AuthorError: it is not known whether an action is allowed.
        """
        var = operand.var if isinstance(operand, (Ref, Of)) else ""
        if var in self.tries:
            if var not in self.certificates:
                raise AuthorError(f"no certificate for {var}: whether its action is allowed is needed")
            word = "done" if self.certificates[var] else "denied"
            self.add(f"{name}.value", "answer", f"same(answer[{name!r}], {word!r})", self.tries[var])
        elif var not in self.chosen:
            wanted = self.write.plain_operand(operand)
            self.add(f"{name}.value", "answer", f"same(answer[{name!r}], {wanted})", name, var)
        elif self.named[var][0] == name:
            self.choice(name, var)
        else:
            attr = operand.attr if isinstance(operand, Of) else Attr("id")
            value = self.write.plain_attribute(self.chosen[var].entity, "row", attr)
            self.add(
                f"{name}.value",
                "answer",
                f"answer[{name!r}] == [{value} for row in {var}()]",
                name,
                var,
            )

    def choice(self, name: str, var: str) -> None:
        """Atoms of a field that names a chosen set: any set that meets them is right, in any order.

        Raises:
            AuthorError: the certificate of its goal is missing.
        """
        node, rows = self.chosen[var], f"{var}()"
        given = f"answer[{name!r}]"
        empty = f"len({given}) == 0"
        either = f"{empty} or " if node.or_none else ""
        count = f"{either}len({given}) == {node.k} and all_differ({given})"
        self.add(f"{name}.count", "answer", count, var, name)
        self.add(f"{name}.exists", "answer", f"len({rows}) == len({given})", name, var)
        for index, atom in enumerate(node.atoms):
            test = self.write.condition(node.entity, "row", atom)
            self.add(f"{name}.atom{index}", "answer", f"all({test} for row in {rows})", var, name)
        for index, con in enumerate(node.cons):
            self.add(f"{name}.con{index}", "answer", either + self.con(node.entity, rows, con), var, name)
        if node.goal and var in self.certificates:
            value = self.write.plain_attribute(node.entity, "row", node.goal[1])
            total = f"sum({value} for row in {rows})"
            self.add(f"{name}.best", "answer", f"{either}{total} == {self.certificates[var]}", var, name)
        elif node.goal and node.or_none:  # no set has a best total: then no set is right
            self.add(f"{name}.best", "answer", empty, var, name)
        elif node.goal:
            raise AuthorError(f"no certificate for {var}: the best total of its goal is needed")
        if node.or_none:
            (bound,) = node.bounds
            assert bound.value is not None
            missed = f"not {var}_reach() {bound.op} {self.write.plain_operand(bound.value)}"
            self.add(f"{name}.none", "answer", f"len({given}) > 0 or {missed}", var, name)

    def con(self, entity: str, rows: str, con: Con) -> str:
        """A condition on a chosen set."""
        value = self.write.key_attribute(entity, "row", con.attr)
        if con.kind == "distinct" or con.value is None:
            return f"all_differ([{value} for row in {rows}])"
        return f"sum({value} for row in {rows}) {con.op} {self.write.plain_operand(con.value)}"

    # ------------------------------------------------------------------------------------------------------- state

    def step(self, index: int, step: Step) -> None:
        """The state atom of a step that writes."""
        key = f"step{index}"
        match step:
            case Let() | Caution() | Budget():
                pass
            case Act():
                self.add(f"{key}.{step.op}", "state", self.claim((step,)), key)
                if step.op.startswith(MEND):
                    entity = step.op.removeprefix(MEND)
                    amiss = f"[row for row in db[{entity!r}] if g_amiss_{entity}(db, row)]"
                    self.add(f"{key}.order", "order", f"not {amiss}", key)
            case Try(var, act):
                allowed = self.certificates.get(var)
                self.add(f"{key}.{act.op}", "state", self.claim((act,) if allowed else ()), key)
            case If(lhs, op, rhs, then, other):
                test = f"{self.write.plain_operand(lhs)} {op} {self.write.plain_operand(rhs)}"
                self.add(
                    f"{key}.if",
                    "state",
                    f"{self.claim(then)} if {test} else {self.claim(other)}",
                    key,
                )
            case ForEach(_, _, op):
                self.add(f"{key}.each", "state", f"for_each({key}_rows(), s_{op})", key)

    def claim(self, acts: tuple[Act, ...]) -> str:
        """The changes that a branch asks for.

        Raises:
            AuthorError: more than one action.
        """
        if not acts:
            return "Nothing()"
        act, *more = acts
        if more:
            raise AuthorError(f"a branch holds at most one action, got {[act.op for act in acts]}")
        arguments = [self.write.operand(operand) for _, operand in act.args]
        return f"s_{act.op}({', '.join(['db', 'diff', *arguments])})"
