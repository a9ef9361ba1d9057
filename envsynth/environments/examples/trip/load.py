"""The trip-planning records."""

from __future__ import annotations

import functools

from envsynth.environments.examples.trip.goal import (
    ABLATIONS,
    ANSWER_SCHEMA,
    PROMPT,
    SOLUTION,
    trip_verifier,
)
from envsynth.environments.examples.trip.probes import ORACLE, trip_probes
from envsynth.environments.examples.trip.tools import trip_tools
from envsynth.environments.examples.trip.world import trip_world
from envsynth.spec import EnvironmentSpec, Provenance, TaskVersion

_PROVENANCE = Provenance(author="hand/1", category="planning a travel itinerary", seed="1")


@functools.cache
def trip_planning() -> tuple[EnvironmentSpec, TaskVersion]:
    """Return the trip-planning environment with its task.

    Returns:
        The environment version and the task version.
    """
    spec = EnvironmentSpec(
        slug="trip-planning",
        title="Three days out of Hangzhou",
        world=trip_world(),
        tools=trip_tools(),
        policy=("Names of hotels, restaurants and attractions occur once in the world.",),
        error_style="verbose",
        provenance=_PROVENANCE,
    )
    task = TaskVersion(
        environment=spec.hash,
        kind="act",
        prompt=PROMPT,
        answer_schema=ANSWER_SCHEMA,
        max_turns=120,
        solution=SOLUTION,
        ablations=ABLATIONS,
        verifier=trip_verifier(),
        oracle=ORACLE,
        probes=trip_probes(),
        provenance=_PROVENANCE,
    )
    return spec, task
