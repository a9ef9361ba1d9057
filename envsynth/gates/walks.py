"""Tool calls in bulk: random walks through a world, and single calls with what the prompt names.

Cheap: worlds share a worker, the calls of all of them travel together, and all endings are judged at once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import JsonValue

from envsynth.actors import RandomPlay
from envsynth.environments import ToolRuntime, tool_docs
from envsynth.environments.plays import Play, run_all
from envsynth.environments.tools import Call
from envsynth.gates.answers import told
from envsynth.gates.case import Case
from envsynth.record import Scalar, canonical_json
from envsynth.spec import Tool
from envsynth.trajectory import Verdict
from envsynth.verifiers import Ending

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 64)
"""Calls of walks, drawn for each: most are short, because a walk through a world that it has long disturbed can only
fail, and so tests little."""
N_ANSWERS = 4
"""Answers at the end of each walk."""
N_SINGLE_CALLS = 48
"""Single calls that are tried."""
_AT_A_TIME = 32


@dataclass(frozen=True)
class Walk:
    """A random walk."""

    calls: int
    """Its length."""
    verdicts: tuple[Verdict, ...]
    """On its different answers."""

    @property
    def passes(self) -> bool:
        """Whether one of its answers passes."""
        return any(verdict.status == "pass" for verdict in self.verdicts)


def play_walks(case: Case, numbers: Sequence[int]) -> list[Walk]:
    """Play random walks and judge their answers.

    Args:
        case: The task.
        numbers: Which walks; each is the same whenever it is played.

    Returns:
        The walks.

    Raises:
        EnvironmentVoid: a tools worker died.
    """
    tools = tool_docs(case.spec, case.task.delivery)
    lengths: list[int] = []
    walks: list[list[Ending]] = []
    for batch in (numbers[start : start + _AT_A_TIME] for start in range(0, len(numbers), _AT_A_TIME)):
        players = [RandomPlay(case.rng(f"walk/{number}")) for number in batch]
        drawn = [player.rng.choice(LENGTHS) for player in players]
        lengths += drawn
        with _Runtimes(case, len(batch)) as runtimes:
            given = zip(runtimes, players, drawn, strict=True)
            ends = run_all([_walk(runtime, case, player, tools, length) for runtime, player, length in given])
        for player, end in zip(players, ends, strict=True):
            walks.append([(end, answer) for answer in _answers(case, player)])
    verdicts = iter(case.judge_endings([ending for endings in walks for ending in endings]))
    return [
        Walk(length, tuple(itertools.islice(verdicts, len(endings))))
        for length, endings in zip(lengths, walks, strict=True)
    ]


def _walk(
    runtime: ToolRuntime, case: Case, player: RandomPlay, tools: list[dict[str, JsonValue]], length: int
) -> Play[bytes]:
    yield from runtime.reset(case.task.hash, case.image, case.task.faults, case.task.delivery)
    writes = {tool.name for tool in case.spec.tools if tool.effect == "write"}
    touched = case.thorough  # then tools are not believed that they only read
    for _ in range(length):
        call = Call(*player.call(tools))
        result, _ = yield from runtime.call(call)
        player.see(result.text)
        touched = touched or (call.tool in writes and result.error is None)
    return (yield from runtime.image()) if touched else case.image


def _answers(case: Case, player: RandomPlay) -> list[dict[str, JsonValue]]:
    drawn = (player.answer(case.task.answer_schema) for _ in range(N_ANSWERS))
    different = {canonical_json(answer): answer for answer in drawn if isinstance(answer, dict)}
    return list(different.values())


class _Runtimes:
    """Some runtimes of a case, closed at the end."""

    def __init__(self, case: Case, count: int) -> None:
        self._runtimes = [ToolRuntime(case.hosts, case.spec) for _ in range(count)]

    def __enter__(self) -> list[ToolRuntime]:
        return self._runtimes

    def __exit__(self, *_: object) -> None:
        for runtime in self._runtimes:
            runtime.close()


# -------------------------------------------------------------------------------------------------------- single calls


def single_calls(case: Case) -> list[Call]:
    """Calls of reading tools with arguments that the prompt names, few of each tool."""
    named = told(case)
    tools = [tool for tool in case.spec.tools if tool.name not in case.task.delivery.withheld]
    each = [list(itertools.islice(_calls_of(tool, named), N_SINGLE_CALLS)) for tool in tools]
    turns = itertools.zip_longest(*(calls for tool, calls in zip(tools, each, strict=True) if tool.effect == "read"))
    return list(itertools.islice((call for turn in turns for call in turn if call is not None), N_SINGLE_CALLS))


def _calls_of(tool: Tool, named: Sequence[Scalar]) -> Iterator[Call]:
    properties = cast("dict[str, dict[str, Any]]", tool.parameters.get("properties") or {})
    required = cast("list[str]", tool.parameters.get("required") or [])
    needed = [[(name, value) for value in _values(properties.get(name, {}), named)] for name in required]
    optional = [
        (name, value) for name in properties if name not in required for value in _values(properties[name], named)
    ]
    for chosen in itertools.product(*needed):
        yield Call(tool.name, dict(chosen))
    for extra in optional:
        for chosen in itertools.islice(itertools.product(*needed), 4):
            yield Call(tool.name, {**dict(chosen), extra[0]: extra[1]})


def _values(schema: dict[str, Any], named: Sequence[Scalar]) -> list[JsonValue]:
    """Arguments for a parameter: what the prompt names, of its type."""
    kinds = schema.get("type")
    kinds = cast("list[str]", kinds) if isinstance(kinds, list) else [kinds]
    found = [value for value in named if ("string" if isinstance(value, str) else "integer") in kinds]
    options = schema.get("enum")
    return [value for value in found if not isinstance(options, list) or value in options]


def play_single_calls(case: Case, calls: Sequence[Call]) -> list[JsonValue]:
    """Make calls in one fresh world, one after the other.

    Returns:
        Their results; None for a call that was refused.

    Raises:
        EnvironmentVoid: the tools worker died.
    """

    def play(runtime: ToolRuntime) -> Play[list[JsonValue]]:
        # Each stands for an episode of its own, so that a limit of calls is none here.
        delivery = case.task.delivery.model_copy(update={"max_calls": None})
        yield from runtime.reset(case.task.hash, case.image, case.task.faults, delivery)
        found: list[JsonValue] = []
        for call in calls:
            result, _ = yield from runtime.call(call)
            found.append(json.loads(result.text)["result"] if result.error is None else None)
        return found

    with _Runtimes(case, 1) as runtimes:
        return run_all([play(runtime) for runtime in runtimes])[0]


def tells_all(result: JsonValue, answer: dict[str, JsonValue]) -> bool:
    """Whether a result is the answer: its only record holds every field, or its records' column is the list asked for.

    A text and a number of four digits and more may stand under any key; a smaller number, which stands everywhere by
    chance, only under the key that the field is named after.
    """
    records = _records(result)
    if not records or not answer:
        return False
    for name, value in answer.items():
        if isinstance(value, list):
            keys = dict.fromkeys(key for record in records for key in record)
            if not value or not any([record.get(key) for record in records] == value for key in keys):
                return False
        elif len(records) != 1 or not any(_same_field(name, value, key, cell) for key, cell in records[0].items()):
            return False
    return True


def _same_field(name: str, value: JsonValue, key: str, cell: JsonValue) -> bool:
    if type(cell) is not type(value) or cell != value:
        return False
    telling = (isinstance(value, str) and len(value) > 1) or (type(value) is int and abs(value) >= 1000)
    return telling or name == key or name.endswith(f"_{key}")


def _records(result: JsonValue) -> list[dict[str, JsonValue]]:
    """The records of a result: those of its only list of records, else itself."""
    if isinstance(result, list):
        return [item for item in result if isinstance(item, dict)]
    if not isinstance(result, dict):
        return []
    lists = [value for value in result.values() if isinstance(value, list)]
    if len(lists) == 1:
        return [item for item in lists[0] if isinstance(item, dict)]
    return [result]
