"""What registered ids call: make environments from the records' JSON, which travels inside Gymnasium's `EnvSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envsynth.environments.env import ToolEnv, make_env
from envsynth.environments.hosts import WORLDS_PER_WORKER, Reset, WorldHosts
from envsynth.environments.vector import ToolVectorEnv
from envsynth.sandbox import shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion


def make_single(environment: str, tasks: Sequence[str], **options: Any) -> ToolEnv:
    """Make one environment.

    Args:
        environment: JSON of the environment version.
        tasks: JSON of each task.
        **options: Of `make_env`, such as `max_turns` and `render_mode`.

    Returns:
        The environment.

    Raises:
        SpecError: a text is not such a record, or they do not belong together.
    """
    found = [TaskVersion.from_json(text) for text in tasks]
    return make_env(EnvironmentSpec.from_json(environment), found, **options)


def make_vector(num_envs: int, environment: str, tasks: Sequence[str], **options: Any) -> ToolVectorEnv:
    """Make our vector environment of `num_envs` equal slots; `gymnasium.make_vec` calls this by default.

    Args:
        num_envs: Slots.
        environment: JSON of the environment version.
        tasks: JSON of each task.
        **options: Of `make_env`, and `autoreset_mode`.

    Returns:
        The vector environment.

    Raises:
        SpecError: a text is not such a record, or they do not belong together.
    """
    spec = EnvironmentSpec.from_json(environment)
    found = [TaskVersion.from_json(text) for text in tasks]
    return vector_of(num_envs, spec, found, **options)


def vector_of(num_envs: int, spec: EnvironmentSpec, tasks: Sequence[TaskVersion], **options: Any) -> ToolVectorEnv:
    """Make `num_envs` slots of one environment that share this process's jail.

    Args:
        num_envs: Slots.
        spec: The environment version.
        tasks: Its tasks.
        **options: Of `make_env`, and `autoreset_mode`.

    Returns:
        The vector environment.

    Raises:
        SpecError: no slot, no task, or they do not belong together.
    """
    vector_options = {name: options.pop(name) for name in ("autoreset_mode",) if name in options}
    jail = options.setdefault("jail", shared_jail())
    if "hosts" not in options:
        mode: Reset = options.pop("reset_mode", "reload")
        options["hosts"] = WorldHosts(jail, spec, reset=mode, share=WORLDS_PER_WORKER)
    return ToolVectorEnv([make_env(spec, tasks, **options) for _ in range(num_envs)], **vector_options)
