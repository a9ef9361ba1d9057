"""The mechanisms: each is a package that exports `MECHANISM`; the registry names them all."""

from __future__ import annotations

from envsynth.author.procedural.mechanism import Mechanism
from envsynth.author.procedural.mechanisms.allocation import MECHANISM as ALLOCATION
from envsynth.author.procedural.mechanisms.approval import MECHANISM as APPROVAL
from envsynth.author.procedural.mechanisms.booking import MECHANISM as BOOKING
from envsynth.author.procedural.mechanisms.config import MECHANISM as CONFIG
from envsynth.author.procedural.mechanisms.eligibility import MECHANISM as ELIGIBILITY
from envsynth.author.procedural.mechanisms.identity import MECHANISM as IDENTITY
from envsynth.author.procedural.mechanisms.inventory import MECHANISM as INVENTORY
from envsynth.author.procedural.mechanisms.itinerary import MECHANISM as ITINERARY
from envsynth.author.procedural.mechanisms.ledger import MECHANISM as LEDGER
from envsynth.author.procedural.mechanisms.permissions import MECHANISM as PERMISSIONS
from envsynth.author.procedural.mechanisms.pricing import MECHANISM as PRICING
from envsynth.author.procedural.mechanisms.recipes import MECHANISM as RECIPES
from envsynth.author.procedural.mechanisms.routing import MECHANISM as ROUTING
from envsynth.author.procedural.mechanisms.scheduling import MECHANISM as SCHEDULING
from envsynth.author.procedural.mechanisms.subscription import MECHANISM as SUBSCRIPTION
from envsynth.author.procedural.mechanisms.telemetry import MECHANISM as TELEMETRY
from envsynth.author.procedural.mechanisms.tickets import MECHANISM as TICKETS

MECHANISMS: dict[str, Mechanism] = {
    mechanism.name: mechanism
    for mechanism in (
        BOOKING,
        INVENTORY,
        PRICING,
        ITINERARY,
        LEDGER,
        APPROVAL,
        ROUTING,
        ELIGIBILITY,
        CONFIG,
        TELEMETRY,
        RECIPES,
        IDENTITY,
        TICKETS,
        PERMISSIONS,
        SCHEDULING,
        SUBSCRIPTION,
        ALLOCATION,
    )
}
"""Every mechanism by name."""
