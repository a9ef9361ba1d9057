"""What registered ids call: load an example or a stored environment by slug and make it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envsynth.environments.env import ToolEnv, make_env
from envsynth.environments.examples import EXAMPLES
from envsynth.environments.making import vector_of
from envsynth.environments.vector import ToolVectorEnv
from envsynth.errors import SpecNotFound
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.loading import load_for_gym


def load(slug: str, store: str) -> tuple[EnvironmentSpec, Sequence[TaskVersion]]:
    """Load an environment with its tasks.

    Args:
        slug: Its slug.
        store: The store's file; empty for a built-in example.

    Returns:
        The environment version and its tasks.

    Raises:
        SpecNotFound: there is no such example, or the store has no such environment.
    """
    if store:
        return load_for_gym(store, slug)
    if slug not in EXAMPLES:
        raise SpecNotFound(f"no built-in example {slug!r}: there are {', '.join(EXAMPLES)}")
    spec, task = EXAMPLES[slug]()
    return spec, [task]


def make_single(slug: str, store: str, **options: Any) -> ToolEnv:
    """Make one environment; the entry point of registered ids.

    Args:
        slug: The environment's slug.
        store: The store's file; empty for a built-in example.
        **options: Of `make_env`, such as `max_turns` and `render_mode`.

    Returns:
        The environment.

    Raises:
        SpecNotFound: there is no such environment.
    """
    spec, tasks = load(slug, store)
    return make_env(spec, tasks, **options)


def make_vector(num_envs: int, slug: str, store: str, **options: Any) -> ToolVectorEnv:
    """Make our vector environment of `num_envs` slots; the vector entry point of registered ids.

    Args:
        num_envs: Slots.
        slug: The environment's slug.
        store: The store's file; empty for a built-in example.
        **options: Of `make_env`, and `autoreset_mode`.

    Returns:
        The vector environment.

    Raises:
        SpecNotFound: there is no such environment.
    """
    spec, tasks = load(slug, store)
    return vector_of(num_envs, spec, tasks, **options)
