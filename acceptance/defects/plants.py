"""The list of planted defects, and the edits that plant them: each in one sound spec, with the code that must flag it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from acceptance.defects.bases import BASES
from acceptance.defects.making import Pair
from envsynth.gates import all_gates
from envsynth.spec import EnvironmentSpec, GoalAtom, TaskVersion

Edit = Callable[[EnvironmentSpec, TaskVersion], Pair]


@dataclass(frozen=True)
class Plant:
    """One planted defect."""

    name: str
    """What is wrong, in words."""
    base: str
    """The sound spec that it is planted in."""
    code: str
    """The gate that must fail."""
    also: frozenset[str]
    """Gates that may fail as well, because the same defect breaks what they look at."""
    edit: Edit
    """Plants it."""

    @property
    def pending(self) -> bool:
        """Whether its gate is still to come; then it is shown and not counted."""
        return self.code not in {item.code for item in all_gates()}

    def pair(self) -> Pair:
        """The spec with the defect.

        Raises:
            AssertionError: the edit changed nothing.
        """
        spec, task = BASES[self.base](0)
        found = self.edit(spec, task)
        assert found != (spec, task), f"{self.name} plants nothing"
        return found


PLANTS: list[Plant] = []
"""All planted defects, in order of their codes."""


def plant(name: str, base: str, code: str, *also: str) -> Callable[[Edit], Edit]:
    """Register an edit."""

    def register(edit: Edit) -> Edit:
        assert name not in {item.name for item in PLANTS}, name
        PLANTS.append(Plant(name, base, code, frozenset(also), edit))
        return edit

    return register


def replaced(text: str, old: str, new: str) -> str:
    """A text with a part that must be in it replaced."""
    assert old in text, f"{old!r} is not in {text[:300]!r}"
    return text.replace(old, new)


def task_with(task: TaskVersion, **fields: Any) -> TaskVersion:
    """A task with other fields."""
    return TaskVersion.parse({**task.model_dump(), **{key: _dumped(value) for key, value in fields.items()}})


def _dumped(value: Any) -> Any:
    return value.model_dump() if hasattr(value, "model_dump") else value


def rebased(spec: EnvironmentSpec, task: TaskVersion, **fields: Any) -> Pair:
    """Another environment version, and the task in it."""
    made = EnvironmentSpec.parse({**spec.model_dump(), **{key: _dumped(value) for key, value in fields.items()}})
    return made, task_with(task, environment=made.hash)


def with_tool(spec: EnvironmentSpec, task: TaskVersion, tool: str, **fields: Any) -> Pair:
    """One tool changed."""
    assert spec.tool(tool) is not None, tool
    tools = [{**item.model_dump(), **(fields if item.name == tool else {})} for item in spec.tools]
    return rebased(spec, task, tools=tools)


def with_source(spec: EnvironmentSpec, task: TaskVersion, tool: str, old: str, new: str) -> Pair:
    """A part of one tool's source replaced."""
    found = spec.tool(tool)
    assert found is not None, tool
    return with_tool(spec, task, tool, source=replaced(found.source, old, new))


def with_world(spec: EnvironmentSpec, task: TaskVersion, **fields: Any) -> Pair:
    """The world changed."""
    return rebased(
        spec, task, world={**spec.world.model_dump(), **{key: _dumped(value) for key, value in fields.items()}}
    )


def with_rows(spec: EnvironmentSpec, task: TaskVersion, table: str, *rows: tuple[Any, ...]) -> Pair:
    """Rows added in front of a table."""
    found = {**spec.world.rows, table: (*rows, *spec.world.rows.get(table, ()))}
    return with_world(spec, task, rows=found)


def with_prompt(spec: EnvironmentSpec, task: TaskVersion, old: str, new: str) -> Pair:
    """A part of the prompt replaced, and of each quote that holds it."""
    atoms = [{**atom.model_dump(), "quote": atom.quote.replace(old, new)} for atom in task.verifier.atoms]
    verifier = {**task.verifier.model_dump(), "atoms": atoms}
    return spec, task_with(task, prompt=replaced(task.prompt, old, new), verifier=verifier)


def with_solution(spec: EnvironmentSpec, task: TaskVersion, old: str, new: str) -> Pair:
    """A part of the solution replaced."""
    return spec, task_with(task, solution=replaced(task.solution, old, new))


def with_program(spec: EnvironmentSpec, task: TaskVersion, old: str, new: str) -> Pair:
    """A part of the verifier's program replaced."""
    program = replaced(task.verifier.program, old, new)
    return spec, task_with(task, verifier={**task.verifier.model_dump(), "program": program})


def with_atom(spec: EnvironmentSpec, task: TaskVersion, name: str, old: str, new: str) -> Pair:
    """A part of one atom's expression replaced."""
    atoms = [
        {**atom.model_dump(), "expression": replaced(atom.expression, old, new)}
        if atom.id == name
        else atom.model_dump()
        for atom in task.verifier.atoms
    ]
    return spec, task_with(task, verifier={**task.verifier.model_dump(), "atoms": atoms})


def with_definitions(spec: EnvironmentSpec, task: TaskVersion, old: str, new: str) -> Pair:
    """A part of the verifier's definitions replaced."""
    definitions = replaced(task.verifier.definitions, old, new)
    return spec, task_with(task, verifier={**task.verifier.model_dump(), "definitions": definitions})


def without_atom(spec: EnvironmentSpec, task: TaskVersion, name: str) -> Pair:
    """One atom left out."""
    atoms = [atom.model_dump() for atom in task.verifier.atoms if atom.id != name]
    return spec, task_with(task, verifier={**task.verifier.model_dump(), "atoms": atoms})


def and_atom(spec: EnvironmentSpec, task: TaskVersion, quote: str, expression: str) -> Pair:
    """One more atom on the answer."""
    more = GoalAtom(id="more", kind="answer", quote=quote, expression=expression)
    atoms = [*(atom.model_dump() for atom in task.verifier.atoms), more.model_dump()]
    return spec, task_with(task, verifier={**task.verifier.model_dump(), "atoms": atoms})
