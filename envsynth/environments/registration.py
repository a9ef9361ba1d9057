"""Register Gymnasium ids. Cheap to import: it runs while Gymnasium itself is being imported.

Entry points are text and arguments are plain data, so that an `EnvSpec` pickles into spawned vector workers, which need
no registry of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gymnasium.envs.registration import (
    register,  # pyright: ignore[reportUnknownVariableType] - Gymnasium leaves a dictionary untyped
    registry,
)

if TYPE_CHECKING:
    from envsynth.spec import EnvironmentSpec, TaskVersion

__all__ = ["gym_id", "register_environment", "register_id"]


def gym_id(slug: str) -> str:
    """Return the id of a slug: `envsynth/<slug>-v1`."""
    return f"envsynth/{slug}-v1"


def register_id(slug: str, maker: str, arguments: dict[str, str | list[str]]) -> str:
    """Register one id; an earlier registration of that id is replaced silently.

    Args:
        slug: The environment's slug.
        maker: Module with the functions `make_single` and `make_vector`, which take `arguments`.
        arguments: Plain data for them.

    Returns:
        The id.
    """
    name = gym_id(slug)
    registry.pop(name, None)  # Gymnasium warns about replacements, but a re-opened store is no mistake
    register(
        id=name,
        entry_point=f"{maker}:make_single",
        vector_entry_point=f"{maker}:make_vector",
        kwargs=dict(arguments),
    )
    return name


def register_environment(spec: EnvironmentSpec, tasks: TaskVersion | Sequence[TaskVersion]) -> str:
    """Register an environment of this process, so that `gymnasium.make` and `make_vec` find it.

    Args:
        spec: The environment version.
        tasks: Its tasks.

    Returns:
        The id, `envsynth/<slug>-v1`.

    Raises:
        SpecError: a record holds what JSON cannot.
    """
    found = list(tasks) if isinstance(tasks, Sequence) else [tasks]
    texts = [task.to_json() for task in found]
    return register_id(
        spec.slug,
        "envsynth.environments.making",
        {"environment": spec.to_json(), "tasks": texts},
    )
