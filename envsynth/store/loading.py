"""Loads one stored environment with its playable tasks, for `gymnasium.make`.

The standard library reads the store here, not SQLModel: this runs in every worker of a vector environment.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TypeVar

from envsynth.errors import SpecNotFound, StoreError
from envsynth.record import Record
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store.catalogue import reading, text_hash
from envsynth.store.schema import without_password

R = TypeVar("R", bound=Record)

_LEAVES = """
SELECT hash, json FROM task_version AS t
WHERE t.environment = ? AND t.status <> 'failed'
  AND NOT EXISTS (SELECT 1 FROM task_version AS c WHERE c.parent = t.hash AND c.status <> 'failed')
ORDER BY depth, hash
"""


def load_for_gym(path: str | Path, slug: str) -> tuple[EnvironmentSpec, list[TaskVersion]]:
    """Load an environment and its leaves: the tasks that have not failed and were not hardened further.

    Args:
        path: The store's file.
        slug: Slug of the environment.

    Returns:
        The environment, and its leaves ordered by depth and hash.

    Raises:
        StoreError: there is no store at that path, it is damaged, or the environment has no task to play.
        SpecNotFound: the store has no environment of that slug.
        SchemaTooNew: a newer envsynth wrote the store.
    """
    if "://" in str(path):
        raise StoreError(
            f"Gymnasium plays environments of a store file, not of {without_password(str(path))}: export a suite and "
            "import it into a file"
        )
    file = Path(path)
    if not file.is_file():
        raise StoreError(f"there is no store at {file}: set ENVSYNTH_STORE to the path of one")
    try:
        with reading(file) as connection:
            found = connection.execute("SELECT hash, json FROM environment WHERE slug = ?", (slug,)).fetchone()
            if found is None:
                raise SpecNotFound(f"no environment {slug!r} in store {file}: `envsynth list` shows the slugs")
            leaves = connection.execute(_LEAVES, (found[0],)).fetchall()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read environment {slug!r} in store {file}: {error}: restore a copy") from error
    if not leaves:
        raise StoreError(f"environment {slug!r} in store {file} has no task that passed: nothing to play")
    spec = _record(EnvironmentSpec, found, file)
    return spec, [_record(TaskVersion, row, file) for row in leaves]


def _record(record: type[R], row: tuple[str, str], file: Path) -> R:
    digest, text = row
    if text_hash(text) != digest:
        raise StoreError(f"{record.__name__} {digest} in store {file} is damaged: restore a copy of the store")
    return record.from_json(text)
