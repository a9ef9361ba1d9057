"""Actors: oracle, skill-ablated, noisy, idle, empty, constant, echo, random, human and chat.

An actor that needs the private half of tasks (oracle, ablated, noisy) gets it by its constructor, never by an observation.
"""

from __future__ import annotations

from envsynth.actors.chat_actor import ChatActor
from envsynth.actors.factory import ActorFactory, actor_factory, actor_names
from envsynth.actors.guesses import GUESS_LIMIT, columns_of, guess_share, guess_shares, guess_value
from envsynth.actors.human import HumanActor, command_to_action
from envsynth.actors.noisy import NoisyActor
from envsynth.actors.random_play import RandomActor, RandomPlay
from envsynth.actors.scripted import ConstantActor, EchoActor, EmptyActor, IdleActor
from envsynth.actors.slots import SlotActor, answer_move, call_move
from envsynth.actors.solution import AblatedActor, OracleActor
from envsynth.actors.values import echo_value, random_value, zero_value

__all__ = [
    "GUESS_LIMIT",
    "AblatedActor",
    "ActorFactory",
    "ChatActor",
    "ConstantActor",
    "EchoActor",
    "EmptyActor",
    "HumanActor",
    "IdleActor",
    "NoisyActor",
    "OracleActor",
    "RandomActor",
    "RandomPlay",
    "SlotActor",
    "actor_factory",
    "actor_names",
    "answer_move",
    "call_move",
    "columns_of",
    "command_to_action",
    "echo_value",
    "guess_share",
    "guess_shares",
    "guess_value",
    "random_value",
    "zero_value",
]
