"""The one episode loop of the house: any actor on any environments, batched over slots.

Gates, hardening, evaluation and training all play through `rollout`. It knows neither torch nor HTTP: an actor maps
observations to moves, many at a time, and that is all.

An episode that failed for reasons of infrastructure is VOID: a reset that failed, a broken verifier, a dead worker, an
actor whose provider or sandbox failed. It has no score, is tried again `retries` times, and is then recorded as void. An
actor that gives up by itself is not void: it failed.
"""

from __future__ import annotations

from envsynth.rollout.episodes import groups, play
from envsynth.rollout.loop import rollout
from envsynth.rollout.protocols import Actor, EpisodeRequest, Playable
from envsynth.rollout.stage import Stage, make_stages
from envsynth.trajectory import Episode, Move

__all__ = [
    "Actor",
    "Episode",
    "EpisodeRequest",
    "Move",
    "Playable",
    "Stage",
    "groups",
    "make_stages",
    "play",
    "rollout",
]
