"""Finds tasks by the word that a person gives: a file, a suite, an environment, a task, or a built-in example."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from envsynth.environments.examples import EXAMPLE_SLUGS, EXAMPLES
from envsynth.errors import SpecError, SpecNotFound, StoreError
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, default_store_path
from envsynth.store.engine import locate
from envsynth.suite.jsonl import load_suite

Pair = tuple[EnvironmentSpec, TaskVersion]

T = TypeVar("T")

FILE_KEYS = ("environment", "task", "tasks")
"""Keys of a `.json` file: an environment with one task, or with several."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """An environment, or one task in its environment."""

    environment: EnvironmentSpec
    """The environment version."""
    task: TaskVersion | None
    """The task that was named; None when the environment was."""
    tasks: tuple[TaskVersion, ...]
    """That task alone, or all task versions of the environment by depth and hash."""
    stored: bool
    """Whether a store holds it; a built-in example need not be in one."""

    @property
    def pairs(self) -> list[Pair]:
        """The tasks with their environment, ready to be played."""
        return [(self.environment, task) for task in self.tasks]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Tasks that a word names."""

    pairs: tuple[Pair, ...]
    """The tasks with their environments."""
    stored: bool
    """Whether a store holds them."""


def find_target(ref: str, store: str | Path | None = None) -> Target:
    """Find an environment or a task.

    Args:
        ref: Hash, unique prefix of at least four digits, or slug, of the store; or the slug of a built-in example that
            the store does not hold.
        store: The store; the default store when None. For a built-in example it need not exist.

    Returns:
        What the reference names. A slug names the environment, not its only task.

    Raises:
        SpecNotFound: nothing has that name.
        StoreError: the reference names several records, or the store cannot be read.
    """
    place = locate(default_store_path() if store is None else store)
    if ref in EXAMPLE_SLUGS and isinstance(place, Path) and not place.exists():
        return _example(ref)
    with Store.open(store, readonly=True) as opened:
        found = _stored(opened, ref)
    if found is None and ref in EXAMPLE_SLUGS:
        return _example(ref)
    if found is None:
        raise SpecNotFound(
            f"no environment or task {ref!r} in store {opened.where}: give a hash, at least 4 digits of it, or a slug "
            f"(`envsynth list` shows them); built-in: {', '.join(EXAMPLE_SLUGS)}"
        )
    return found


def find_pairs(name: str, store: str | Path | None = None) -> Found:
    """Find tasks to check, play or evaluate.

    Args:
        name: A suite file (`.jsonl`), a `.json` file of an environment with its task, a frozen suite of the store, or
            what `find_target` takes.
        store: The store; the default store when None.

    Returns:
        The tasks; those of a suite in its order.

    Raises:
        SuiteError: a suite file cannot be read; the message names the line.
        SpecError: a `.json` file cannot be read, or the environment has no task.
        SpecNotFound: nothing has that name.
        StoreError: the reference names several records, or the store cannot be read.
    """
    path = Path(name)
    if path.suffix == ".jsonl":
        return Found(pairs=tuple(load_suite(path).pairs()), stored=False)
    if path.suffix == ".json":
        return Found(pairs=tuple(_json_file(path)), stored=False)
    if path.is_file():
        raise SpecError(f"{name} is a file, but neither .jsonl (a suite) nor .json (an environment with its task)")
    place = locate(default_store_path() if store is None else store)
    if not isinstance(place, Path) or place.exists():
        with Store.open(store, readonly=True) as opened:
            if name in opened.suites():
                return Found(pairs=_suite_pairs(opened, name), stored=True)
    target = find_target(name, store)
    if not target.tasks:
        raise SpecError(f"environment {target.environment.slug} has no task in the store, so there is nothing to play")
    return Found(pairs=tuple(target.pairs), stored=target.stored)


def _example(slug: str) -> Target:
    environment, task = EXAMPLES[slug]()
    return Target(environment=environment, task=None, tasks=(task,), stored=False)


def _stored(opened: Store, ref: str) -> Target | None:
    environment = _or_none(opened.environment, ref)
    exact = environment is not None and ref in (environment.slug, environment.hash)
    task = None if exact else _or_none(opened.task, ref)
    if environment is not None and task is not None:
        raise StoreError(
            f"{ref!r} names environment {environment.hash} {environment.slug} and task {task.hash} in store "
            f"{opened.where}: give more of the hash"
        )
    if environment is not None:
        tasks = tuple(opened.tasks(environment.hash))
        return Target(environment=environment, task=None, tasks=tasks, stored=True)
    if task is not None:
        return Target(environment=opened.environment(task.environment), task=task, tasks=(task,), stored=True)
    return None


def _or_none(find: Callable[[str], T], ref: str) -> T | None:
    try:
        return find(ref)
    except SpecNotFound:
        return None


def _suite_pairs(opened: Store, name: str) -> tuple[Pair, ...]:
    items = opened.suite(name).items
    homes = {digest: opened.environment(digest) for digest in dict.fromkeys(item.environment for item in items)}
    return tuple((homes[item.environment], opened.task(item.task)) for item in items)


def _json_file(path: Path) -> list[Pair]:
    value = _read_json(path)
    if not isinstance(value, dict):
        raise SpecError(f'{path} holds no object: give {{"environment": {{...}}, "task": {{...}}}}')
    content = cast("dict[str, Any]", value)
    if unknown := [key for key in content if key not in FILE_KEYS]:
        raise SpecError(f"{path}: unknown key {unknown[0]!r}: a file has {', '.join(FILE_KEYS)}")
    listed: Any = content.get("tasks", [content["task"]] if "task" in content else [])
    if "environment" not in content or not isinstance(listed, list) or not listed:
        raise SpecError(f'{path}: needs "environment" and "task" (or "tasks", a list)')
    environment = _record(path, EnvironmentSpec.parse, content["environment"])
    tasks = [_with_home(task, environment.hash) for task in cast("list[Any]", listed)]
    return [(environment, _record(path, TaskVersion.parse, task)) for task in tasks]


def _with_home(task: Any, home: str) -> Any:
    """A hand-written task need not name the hash of the environment that stands beside it."""
    return {"environment": home, **cast("dict[str, Any]", task)} if isinstance(task, dict) else task


def _record(path: Path, parse: Callable[[Any], T], value: Any) -> T:
    try:
        return parse(value)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes().decode())
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}: check the path") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except json.JSONDecodeError as error:
        raise SpecError(f"{path} line {error.lineno} column {error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise SpecError(f"{path} is nested too deeply to be a record") from error
