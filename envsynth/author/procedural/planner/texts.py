"""Which functions of the mechanisms' planner texts a solver needs."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from envsynth.author.procedural.ir import Act, Attr, ForEach, Schema, Task, walk
from envsynth.author.procedural.mechanism import (
    Action,
    Col,
    Composed,
    Derived,
    EntityAccess,
    InterfaceStyle,
)
from envsynth.author.procedural.planner.prelude import DEFINED
from envsynth.errors import AuthorError


class PlannerWorld(Composed, Schema, Protocol):
    """What the planner must know of a composition."""

    style: InterfaceStyle

    @property
    def tables(self) -> Mapping[str, tuple[Col, ...]]:
        """Columns by entity."""
        ...

    @property
    def derived(self) -> Mapping[tuple[str, str], Derived]:
        """Derived attributes by entity and name."""
        ...

    @property
    def actions(self) -> Mapping[str, Action]:
        """Actions by name."""
        ...

    @property
    def access(self) -> Mapping[str, EntityAccess]:
        """How rows of each entity are read through tools."""
        ...


def needed_texts(world: PlannerWorld, task: Task) -> list[str]:
    """Return the mechanisms' functions that a task's solver calls, directly or not.

    Args:
        world: The composition.
        task: A well-typed program.

    Returns:
        One source per function, in the order of the mechanisms.

    Raises:
        AuthorError: a planner text is malformed or lacks its function.
    """
    texts = [item.plan for item in (*world.derived.values(), *world.actions.values())]
    derived = dict.fromkeys(name for _, name in world.derived)
    roots: list[str] = []
    for node in walk(task):
        if isinstance(node, Attr) and node.name in derived:
            roots.append(f"d_{node.name}")
        elif isinstance(node, (Act, ForEach)):
            roots.append(f"a_{node.op}")
    return _plan_texts(tuple(texts)).needed(roots)


def changing_tools(world: PlannerWorld, task: Task) -> dict[str, list[str]]:
    """Return the changing tools that a task's actions call, each with the entities whose rows those actions change.

    Args:
        world: The composition.
        task: A well-typed program.

    Returns:
        Entities by tool.

    Raises:
        AuthorError: a planner text does not name the tool that it calls.
    """
    found: dict[str, dict[str, None]] = {}
    for op in dict.fromkeys(node.op for node in walk(task) if isinstance(node, (Act, ForEach))):
        for tool in world.actions[op].calls:
            found.setdefault(tool, {}).update(dict.fromkeys(world.actions[op].tables))
    return {tool: [*entities] for tool, entities in found.items()}


@functools.lru_cache(maxsize=16)
def _plan_texts(texts: tuple[str, ...]) -> PlanTexts:
    """The planner texts of a world, which all its tasks share."""
    return PlanTexts(texts, DEFINED)


class PlanTexts:
    """The top-level definitions of planner texts, each once, with what they refer to.

    Args:
        texts: Sources in order; the same function may stand in several of them, word for word.
        reserved: Names of the prelude, which no text may define again.

    Raises:
        AuthorError: a text is no Python, defines a reserved name, or two texts define a name differently.
    """

    def __init__(self, texts: Iterable[str], reserved: Sequence[str] = ()) -> None:
        self._sources: dict[str, str] = {}
        self._uses: dict[str, tuple[str, ...]] = {}
        for text in texts:
            for name, source, uses in _definitions(text):
                if name in reserved:
                    raise AuthorError(f"planner text defines {name!r}, a name of the prelude: rename it")
                if self._sources.setdefault(name, source) != source:
                    raise AuthorError(f"two planner texts define {name!r} differently: rename one")
                self._uses[name] = uses

    def needed(self, roots: Iterable[str]) -> list[str]:
        """Return the sources that the named functions need, transitively, in the order of the texts.

        Args:
            roots: Names of functions that the solver calls.

        Returns:
            One source per definition.

        Raises:
            AuthorError: no text defines one of the roots.
        """
        todo = list(dict.fromkeys(roots))
        if missing := [name for name in todo if name not in self._sources]:
            raise AuthorError(f"no planner text defines {missing}")
        found: dict[str, None] = {}
        while todo:
            name = todo.pop()
            if name not in found:
                found[name] = None
                todo += [used for used in self._uses[name] if used in self._sources]
        return [source for name, source in self._sources.items() if name in found]


@functools.lru_cache(maxsize=1024)
def _definitions(text: str) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise AuthorError(f"planner text is no Python ({error}): {text[:200]}") from error
    found: list[tuple[str, str, tuple[str, ...]]] = []
    lines = text.split("\n")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            name = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        else:
            raise AuthorError(f"planner text may hold functions and constants only: {text[:200]}")
        used = tuple(item.id for item in ast.walk(node) if isinstance(item, ast.Name))
        found.append((name, _segment(lines, node), used))
    return tuple(found)


def _segment(lines: Sequence[str], node: ast.stmt) -> str:
    """Source of a top-level statement; `ast.get_source_segment` cuts the whole text into lines for each."""
    last = node.end_lineno or node.lineno
    end = lines[last - 1].encode()[: node.end_col_offset].decode()
    return "\n".join([*lines[node.lineno - 1 : last - 1], end])


def mentions(sources: Iterable[str], name: str) -> bool:
    """Whether one of the sources refers to a name."""
    return any(name in _names(source) for source in sources)


@functools.lru_cache(maxsize=1024)
def _names(source: str) -> frozenset[str]:
    return frozenset(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
