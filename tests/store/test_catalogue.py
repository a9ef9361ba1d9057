"""What Gymnasium reads of a store while it is being imported."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from envsynth.errors import SchemaTooNew, SpecNotFound, StoreError
from envsynth.store import Store, catalogue
from envsynth.store.catalogue import load_for_gym, stored_slugs
from tests.store import factory
from tests.store.processes import in_child, open_folder, script


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Environment 1 has a root and its child, 2 only a failed task, 3 no task, 4 an unaudited one."""
    with Store.open(tmp_path / "s.db") as store:
        for number in range(1, 5):
            spec = factory.environment(number)
            store.add_environment(spec)
            task = factory.task(spec)
            if number == 1:
                store.add_task(task, factory.report(task))
                child = factory.task(spec, 1, task)
                store.add_task(child, factory.report(child))
            if number == 2:
                store.add_task(task, factory.report(task, ok=False))
            if number == 4:
                store.add_task(task)
    return tmp_path / "s.db"


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_slugs_of_environments_that_can_be_played(path: Path) -> None:
    assert stored_slugs(path) == ["library-1", "library-4"]
    assert stored_slugs(str(path)) == ["library-1", "library-4"]


def test_load_gives_the_environment_and_its_leaves(path: Path) -> None:
    spec, leaves = load_for_gym(path, "library-1")
    assert spec == factory.environment(1)
    assert leaves == [factory.task(spec, 1, factory.task(spec))]


def test_slugs_are_read_while_another_process_writes(path: Path) -> None:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    holder.execute("UPDATE environment SET slug = 'x' WHERE slug = 'library-1'")
    assert stored_slugs(path) == ["library-1", "library-4"]
    holder.execute("ROLLBACK")
    holder.close()


def test_nothing_there_is_nothing_to_say(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert stored_slugs(tmp_path / "no.db") == []
    assert stored_slugs(tmp_path) == []
    assert stored_slugs("postgresql://host/db") == []
    assert caplog.records == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("PRAGMA application_id = 7", "is no envsynth store"),
        ("UPDATE alembic_version SET version_num = '0999'", "written by a newer envsynth"),
        ("DROP TABLE alembic_version", "no such table"),
        ("DELETE FROM alembic_version", "carries no schema revision"),
        (None, "file is not a database"),
    ],
)
def test_a_damaged_store_costs_a_warning(
    path: Path, statement: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    if statement is None:
        path.write_bytes(b"x" * 5000)
    else:
        change(path, statement)
    with caplog.at_level(logging.WARNING):
        assert stored_slugs(path) == []
    assert "are not registered with gymnasium" in caplog.text
    assert why in caplog.text
    with pytest.raises(StoreError, match=why):
        load_for_gym(path, "library-1")


def test_loading_refuses_clearly(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*set ENVSYNTH_STORE"):
        load_for_gym(tmp_path / "no.db", "library-1")
    with pytest.raises(SpecNotFound, match="no environment 'library-9'"):
        load_for_gym(path, "library-9")
    for empty in ("library-2", "library-3"):
        with pytest.raises(StoreError, match=f"'{empty}' .* has no task that passed"):
            load_for_gym(path, empty)
    change(path, "UPDATE environment SET json = replace(json, 'Library', 'Lobrary')")
    with pytest.raises(StoreError, match=r"EnvironmentSpec \w{32} in store .* is damaged"):
        load_for_gym(path, "library-1")
    change(path, "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(SchemaTooNew):
        load_for_gym(path, "library-1")


def test_a_read_only_folder_is_no_obstacle() -> None:
    with open_folder() as folder:
        with Store.open(folder / "s.db") as store:
            spec = factory.environment()
            store.add_environment(spec)
            store.add_task(factory.task(spec))
        (folder / "s.db").chmod(0o444)
        folder.chmod(0o555)
        assert in_child(lambda: stored_slugs(folder / "s.db")) == "['library-0']"


def test_slugs_cost_neither_sqlmodel_nor_pydantic(path: Path) -> None:
    child = script(
        "import sys\n"
        "from envsynth.store.catalogue import stored_slugs\n"
        "print(len(stored_slugs(sys.argv[1])))\n"
        "print([name for name in ('sqlmodel', 'sqlalchemy', 'alembic', 'pydantic') if name in sys.modules])\n",
        path,
    )
    text, errors = child.communicate()
    assert (text, errors) == ("2\n[]\n", "")


def test_catalogue_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        catalogue.nothing  # noqa: B018


def test_a_database_url_is_refused_without_its_password() -> None:
    place = "postgresql+psycopg://u:s3cret@h/d?sslpassword=s3cret"
    assert stored_slugs(place) == []
    with pytest.raises(StoreError, match=r"plays environments of a store file, not of .*\*\*\*@h/d") as caught:
        load_for_gym(place, "library-1")
    assert "s3cret" not in str(caught.value)
