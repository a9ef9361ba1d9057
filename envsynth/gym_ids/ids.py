"""Register the ids of built-in examples and of a store. Runs inside `import gymnasium`, so it is cheap and never raises."""

from __future__ import annotations

from pathlib import Path

from envsynth.environments.examples.slugs import EXAMPLE_SLUGS
from envsynth.environments.registration import register_id
from envsynth.store.catalogue import default_store_path, stored_slugs

__all__ = ["register_all", "register_store"]

MAKER = "envsynth.gym_ids.making"
"""Module of the functions that registered ids call."""


def register_all() -> list[str]:
    """Register the built-in examples and the environments of the user's store.

    The store is `$ENVSYNTH_STORE`, or `envsynth.db` in the working folder. Its environments win over examples of the
    same slug. An absent or damaged store registers nothing.

    Returns:
        The ids.
    """
    ids = [register_id(slug, MAKER, {"slug": slug, "store": ""}) for slug in EXAMPLE_SLUGS]
    return list(dict.fromkeys([*ids, *register_store(default_store_path())]))


def register_store(path: str | Path) -> list[str]:
    """Register the environments of a store, so that `gymnasium.make("envsynth/<slug>-v1")` finds them.

    Args:
        path: The store's file.

    Returns:
        The ids; empty when there is no readable store.
    """
    if "://" in str(path):
        return []
    # Absolute, because a spawned worker may have another working folder.
    store = str(Path(path).absolute())
    return [register_id(slug, MAKER, {"slug": slug, "store": store}) for slug in stored_slugs(store)]
