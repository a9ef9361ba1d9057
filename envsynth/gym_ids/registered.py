"""Importing this module registers all ids; for `gymnasium.make("envsynth.gym_ids.registered:envsynth/<slug>-v1")`."""

from __future__ import annotations

from envsynth.gym_ids.ids import register_all

REGISTERED = tuple(register_all())
"""The ids that were registered when this module was imported."""
