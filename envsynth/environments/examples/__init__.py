"""Hand-written environments that ship with the package, by slug; loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from envsynth.environments.examples.slugs import EXAMPLE_SLUGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from envsynth.environments.examples.trip import trip_planning
    from envsynth.spec import EnvironmentSpec, TaskVersion

    EXAMPLES: dict[str, Callable[[], tuple[EnvironmentSpec, TaskVersion]]]

__all__ = ["EXAMPLES", "EXAMPLE_SLUGS", "trip_planning"]


def __getattr__(name: str) -> Any:
    """Load the examples on first use: `EXAMPLES` maps a slug to the function that returns spec and task.

    Raises:
        AttributeError: there is no such public name.
    """
    if name not in ("EXAMPLES", "trip_planning"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.trip.load")
    value = module.trip_planning if name == "trip_planning" else {"trip-planning": module.trip_planning}
    globals()[name] = value
    return value
