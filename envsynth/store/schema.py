"""Facts about a store that need no library: its default path, its mark in the file, and the revisions of its tables."""

from __future__ import annotations

import os
import re
from pathlib import Path

from envsynth.errors import SchemaTooNew

REVISIONS = ("0001", "0002", "0003")
"""Revisions of the tables that this build knows, oldest first; each is a file in `migrations/versions`."""

HEAD = REVISIONS[-1]
"""The revision that this build writes."""

APPLICATION_ID = 0x656E7673
"""SQLite's `application_id` of every store ("envs"): tells a store from any other database file."""


def default_store_path() -> str:
    """Return where the user's store is: `$ENVSYNTH_STORE` (a path or a database URL), else `envsynth.db` here."""
    return os.environ.get("ENVSYNTH_STORE") or str(Path("envsynth.db"))


def without_password(place: str) -> str:
    """Return a path, or a database URL without what may be a password, well formed or not.

    Args:
        place: What a user gave.

    Returns:
        The text for messages.
    """
    scheme, mark, rest = place.partition("://")
    if not mark:
        return place
    # A query may hold a password too, and a bad URL an @ or a ? within it.
    return f"{scheme}://" + re.sub(r"\?.*", "?***", re.sub(r".*@", "***@", rest, flags=re.DOTALL), flags=re.DOTALL)


def refuse_newer(revision: str, where: str) -> None:
    """Refuse a store whose tables this build does not know.

    Args:
        revision: The revision that the store carries.
        where: The store, for the message.

    Raises:
        SchemaTooNew: the revision is none of `REVISIONS`.
    """
    if revision not in REVISIONS:
        raise SchemaTooNew(
            f"store {where} has schema revision {revision!r}; this envsynth knows revisions up to {HEAD!r}: "
            "it was written by a newer envsynth, so upgrade envsynth, or give another path"
        )
