"""Three days out of Hangzhou: the paper's trip-planning environment, hand-written with invented data.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.3: 15 tools, three conditional budget tiers, any valid plan accepted.
What the published prompt leaves open (which tier 500 and 800 belong to, what happens below 200, whether the first day is
in Hangzhou, whether limits are strict) is said in plain words here.
"""

from __future__ import annotations

from envsynth.environments.examples.trip.load import trip_planning

__all__ = ["trip_planning"]
