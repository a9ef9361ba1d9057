"""Slugs of the built-in examples, readable without loading them."""

from __future__ import annotations

EXAMPLE_SLUGS = ("trip-planning",)
"""In the order of `EXAMPLES`."""
