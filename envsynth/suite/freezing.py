"""Freezes a query into a suite: what the query finds today is what the suite holds for ever."""

from __future__ import annotations

from collections.abc import Sequence

from envsynth.errors import SpecError, SuiteError
from envsynth.store.records import Suite, SuiteItem, TaskQuery
from envsynth.store.store import Store


def freeze(store: Store, name: str, query: TaskQuery | Sequence[str], description: str = "") -> Suite:
    """Freeze tasks into a named suite of the store.

    Freezing again under the same name gives the same suite when the tasks are the same, and is refused otherwise.

    Args:
        store: The store that holds the tasks.
        name: Name of the suite: lower-case letters, digits, `-`, `_`, `.`.
        query: Conditions, or references of tasks in order. A query orders by slug, depth and hash.
        description: What the suite is for.

    Returns:
        The suite.

    Raises:
        SuiteError: the query finds no task, the name is malformed, or a suite of that name holds other tasks.
        SpecNotFound: a reference names no task.
    """
    if isinstance(query, TaskQuery):
        items = [SuiteItem(environment=entry.environment, task=entry.hash) for entry in store.task_entries(query)]
    else:
        tasks = [store.task(ref) for ref in query]
        items = [SuiteItem(environment=task.environment, task=task.hash) for task in tasks]
    if not items:
        raise SuiteError(
            f"suite {name!r} would be empty: no task of store {store.where} fits {query}; "
            "`envsynth list` shows what is there"
        )
    try:
        suite = Suite.of(name, items, description)
    except SpecError as error:
        raise SuiteError(f"cannot freeze suite {name!r}: {error}") from error
    keep(store, suite)
    return suite


def keep(store: Store, suite: Suite) -> None:
    """Add a suite to a store that holds its tasks, unless it is there already.

    Args:
        store: The store.
        suite: The suite.

    Raises:
        SuiteError: another suite has that name.
    """
    check_name(store, suite)
    store.add_suite(suite)


def check_name(store: Store, suite: Suite) -> None:
    """Refuse a suite whose name belongs to another one in the store.

    Args:
        store: The store.
        suite: The suite.

    Raises:
        SuiteError: another suite has that name.
    """
    if suite.name not in store.suites():
        return
    kept = store.suite(suite.name)
    if kept != suite:
        raise SuiteError(
            f"suite {suite.name!r} in store {store.where} is frozen with {len(kept.items)} tasks (checksum "
            f"{kept.checksum}, description {kept.description!r}); this one has {len(suite.items)} (checksum "
            f"{suite.checksum}, description {suite.description!r}): a frozen suite never changes, so choose another name"
        )
