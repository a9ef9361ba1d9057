"""Traces of nano tasks for supervised training: the planner's episode, and the same with one mistake put right.

A nano task needs one or two calls, so its episode follows from the program and the rows without a sandbox; a test holds
every kind to the episode that the compiled solver plays through the tools. No generated source runs here.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from envsynth.actors.slots import action_text
from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.ir import Act, Const, Let, Of, Only, Operand, Task, To, from_json
from envsynth.author.procedural.mechanism import Row
from envsynth.environments.tools import compact_json
from envsynth.errors import SpecError
from envsynth.record import Scalar
from envsynth.spec import TaskVersion
from envsynth.trajectory import ToolCall, Turn


@dataclass(frozen=True)
class Trace:
    """An episode to learn from."""

    turns: tuple[Turn, ...]
    """Calls with what came back, then the answer."""
    mistakes: tuple[int, ...] = ()
    """Turns whose action is wrong on purpose: to be read, not to be learned."""


def gold_trace(world: Composition, task: TaskVersion) -> Trace:
    """The episode of the task's own solution.

    Args:
        world: The composition of its environment.
        task: A nano task.

    Returns:
        The trace.

    Raises:
        SpecError: the task's program is of another tier, or the calls do not lead to the oracle's outcome.
    """
    program = from_json(task.ir)
    if not isinstance(program, Task):
        raise SpecError(f"task {task.hash[:12]} has no task program")
    player = _Player(world)
    turns = player.play(program)
    player.compare(task)
    return Trace((*turns, _answer(task.oracle.answer)))


def _answer(answer: Mapping[str, JsonValue]) -> Turn:
    return Turn(action=action_text({"answer": dict(answer)}), observation=compact_json({"result": "answer received"}))


def _call(tool: str, arguments: Mapping[str, JsonValue], observation: JsonValue, error: str | None = None) -> Turn:
    call = ToolCall(tool=tool, arguments=dict(arguments))
    shown = compact_json({"result": observation} if error is None else {"error": {"code": error}})
    text = action_text({"tool": tool, "arguments": dict(arguments)})
    return Turn(action=text, call=call, observation=shown, error=error)


class _Player:
    """Works out the calls of a nano program on the rows."""

    def __init__(self, world: Composition) -> None:
        self.world = world
        self.rows: dict[str, tuple[str, Row]] = {}
        self.written: list[tuple[str, int | str, str, int | str]] = []

    def compare(self, task: TaskVersion) -> None:
        """Hold what was read and written against the oracle's outcome, which comes from SQL.

        Raises:
            SpecError: they differ.
        """
        read = [cell for _, row in self.rows.values() for cell in row.values()]
        if missing := [value for value in task.oracle.answer.values() if value not in read]:
            raise SpecError(f"task {task.hash[:12]}: the calls of its trace do not read {missing[0]!r}")
        changed: list[tuple[str, int | str, str, Scalar]] = []
        for change in task.oracle.changes:
            (name,) = [row["name"] for row in self.world.rows[change.table] if row["id"] == change.row["id"]]
            changed += [(change.table, name, column, cell) for column, cell in change.row.items() if column != "id"]
        if changed != self.written:
            raise SpecError(f"task {task.hash[:12]}: its trace writes {self.written}, the oracle {changed}")

    def play(self, program: Task) -> list[Turn]:
        turns: list[Turn] = []
        for step in program.steps:
            match step:
                case Let(var, Only(entity, (atom,))) if isinstance(atom.value, Const):
                    turns.append(
                        self.find(var, entity, self.world.col(entity, atom.attr.name).column, atom.value.value)
                    )
                case Let(var, To(source, relation)) if not isinstance(source, Const):
                    entity, row = self.rows[getattr(source, "var", "")]
                    column, key = self.world.fk(entity, relation)
                    turns.append(self.find(var, self.world.col(entity, relation).ref, key, row[column]))
                case Act(op, ((_, name), (_, value))):
                    turns.append(self.write(op, name, value))
                case _:
                    raise SpecError(f"no step of a nano task: {step!r}")
        return turns

    def find(self, var: str, entity: str, column: str, value: int | str) -> Turn:
        (row,) = [row for row in self.world.rows[entity] if row[column] == value]
        self.rows[var] = entity, row
        access = self.world.access[entity]
        shown: dict[str, JsonValue] = {name: row[name] for name in access.columns}
        return _call(access.list_tool, {column: value}, [shown])

    def write(self, op: str, name: Operand, value: Operand) -> Turn:
        action = self.world.actions[op]
        field = self.world.col(action.tables[0], action.params[1][1].detail).column
        tool = next(tool for tool in self.world.tools if tool.effect == "write" and _takes(tool.parameters, field))
        self.written.append((action.tables[0], self.value(name), field, self.value(value)))
        return _call(tool.name, {"name": self.value(name), field: self.value(value)}, True)

    def value(self, operand: Operand) -> int | str:
        match operand:
            case Const(value, _, _):
                return value
            case Of(var, attr):
                entity, row = self.rows[var]
                return row[self.world.col(entity, attr.name).column]
            case _:
                raise SpecError(f"no operand of a nano task: {operand!r}")


def _takes(parameters: Mapping[str, JsonValue], field: str) -> bool:
    properties = parameters["properties"]
    return isinstance(properties, dict) and field in properties


MISTAKES = ("other_verb", "other_key", "misspelled")
"""What can go wrong in a call: the verb, the name of an argument, the value that is looked up."""


def retry_traces(world: Composition, trace: Trace, rng: random.Random, *, count: int = 1) -> list[Trace]:
    """Put a rejected call before one of a trace's calls.

    Args:
        world: The composition.
        trace: A gold trace.
        rng: Source of the choices.
        count: How many variants.

    Returns:
        Traces with one mistake each; the call behind it is the right one.
    """
    found: list[Trace] = []
    calls = [index for index, turn in enumerate(trace.turns) if turn.call is not None]
    for _ in range(count):
        place = rng.choice(calls)
        wrong = _mistake(world, trace.turns[place], rng.choice(MISTAKES), rng)
        found.append(replace(trace, turns=(*trace.turns[:place], wrong, *trace.turns[place:]), mistakes=(place,)))
    return found


def _mistake(world: Composition, turn: Turn, kind: str, rng: random.Random) -> Turn:
    call = turn.call
    if call is None:
        raise SpecError("a mistake is made in a call")
    if kind == "other_verb":
        verbs = [tool.name for tool in world.tools]
        return _call(_altered(call.tool, verbs, rng), call.arguments, None, "unknown_tool")
    place = rng.choice(list(call.arguments)) if kind == "other_key" else next(iter(call.arguments))
    if kind == "other_key":
        keys = [*call.arguments, *_keys(world, call.tool)]
        wrong = {_altered(key, keys, rng) if key == place else key: value for key, value in call.arguments.items()}
        return _call(call.tool, wrong, None, "invalid")
    values = [str(cell) for rows in world.rows.values() for row in rows for cell in row.values()]
    wrong = {**call.arguments, place: _altered(str(call.arguments[place]), values, rng)}
    reads = any(tool.name == call.tool and tool.effect == "read" for tool in world.tools)
    return _call(call.tool, wrong, [] if reads else False)


def _keys(world: Composition, verb: str) -> list[str]:
    return [key for tool in world.tools if tool.name == verb for key in tool.parameters["properties"]]


def _altered(word: str, taken: Sequence[str], rng: random.Random) -> str:
    """The word with one letter replaced, so that it is none of those taken."""
    while True:
        place = rng.randrange(len(word))
        letter = rng.choice("aeiou" if word[place] in "aeiou" else "bdfgklmnprstvz")
        other = word[:place] + letter + word[place + 1 :]
        if other != word and other not in taken:
            return other
