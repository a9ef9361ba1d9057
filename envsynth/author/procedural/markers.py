"""Steps of a task program that ask for nothing: they say under which conditions the task is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Caution:
    """Tools may fail while the task is done: a change whose call timed out may have been made, or not."""


@dataclass(frozen=True)
class Budget:
    """Tool calls are limited; how many there may be is no part of the program."""
