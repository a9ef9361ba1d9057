"""The mechanisms: each is a package that exports `MECHANISM`; the registry names them all."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Mechanism
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.config import MECHANISM as CONFIG
from envsynth.author.procedural.mechanisms.inventory import MECHANISM as INVENTORY
from envsynth.author.procedural.mechanisms.itinerary import MECHANISM as ITINERARY
from envsynth.author.procedural.mechanisms.pricing import MECHANISM as PRICING

MECHANISMS: dict[str, Mechanism] = {
    mechanism.name: mechanism for mechanism in (BOOKING, INVENTORY, PRICING, ITINERARY, CONFIG)
}
"""Every mechanism by name."""
