"""Opening: migrations, files that are no store, read-only places, full disks, locks. Each refusal has its message."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from envsynth.errors import SchemaTooNew, StoreError
from envsynth.store import Store, default_store_path
from envsynth.store.engine import WRITE, sqlite_engine
from envsynth.store.migrate import alembic_config, upgrade
from envsynth.store.rows import Row
from envsynth.store.schema import APPLICATION_ID, HEAD, REVISIONS
from tests.store import factory
from tests.store.processes import in_child, open_folder, script


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as path:
        yield path


def filled(path: Path) -> Path:
    home = factory.environment()
    task = factory.task(home)
    with Store.open(path) as store:
        store.add_environment(home)
        store.add_task(task, factory.report(task))
    return path


def revision(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
    finally:
        connection.close()


def test_known_revisions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert tuple(item.revision for item in scripts.walk_revisions())[::-1] == REVISIONS
    assert scripts.get_current_head() == HEAD


def test_migrated_tables_are_those_of_the_rows(tmp_path: Path) -> None:
    with Store.open(filled(tmp_path / "s.db")) as store, store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Row.metadata) == []


def test_a_new_store_has_its_settings(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db") as store, store._engine.connect() as connection:

        def pragma(name: str) -> object:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar()

        assert pragma("journal_mode") == "wal"
        assert pragma("synchronous") == 2
        assert pragma("foreign_keys") == 1
        assert pragma("application_id") == APPLICATION_ID
    assert revision(tmp_path / "s.db") == HEAD


@pytest.mark.parametrize("old", REVISIONS[:-1])
def test_a_store_of_an_older_revision_is_upgraded_with_its_rows(tmp_path: Path, old: str) -> None:
    path = tmp_path / "s.db"
    engine = sqlite_engine(path, readonly=False, timeout_s=1)
    upgrade(engine, "s.db", target=old)
    engine.dispose()
    assert revision(path) == old
    home = factory.environment()
    row = ("l", "t", "c", "a", 1, 1, 3, "authored")
    with sqlite3.connect(path) as raw:
        raw.execute(
            "INSERT INTO environment (hash, json, slug, title, category, author, n_tools, n_tables, n_rows, origin) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (home.hash, home.to_json(), *row),
        )
    raw.close()
    with pytest.raises(StoreError, match=f"schema revision '{old}', .* reads '{HEAD}': open it once"):
        Store.open(path, readonly=True)
    with Store.open(path) as store:
        assert store.environment(home.hash) == home
        assert store.suites() == []
    assert revision(path) == HEAD


def test_a_failed_upgrade_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.db"
    engine = sqlite_engine(path, readonly=False, timeout_s=1)
    upgrade(engine, "s.db", target=REVISIONS[0])
    engine.dispose()
    with sqlite3.connect(path) as raw:  # the second table of the upgrade cannot be made
        raw.execute("CREATE TABLE suite_item (x)")
    raw.close()
    with pytest.raises(StoreError, match=f"bring the schema to revision '{HEAD}'.*suite_item already"):
        Store.open(path)
    assert revision(path) == REVISIONS[0]
    with sqlite3.connect(path) as raw:
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master")}
    raw.close()
    assert "suite" not in tables


def test_an_upgrade_that_would_break_references_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    engine = sqlite_engine(path, readonly=False, timeout_s=1)
    upgrade(engine, "s.db", target=REVISIONS[0])
    engine.dispose()
    with sqlite3.connect(path) as raw:  # foreign keys are off on this connection
        raw.execute("INSERT INTO gate_report (hash, task, ok, origin, json) VALUES ('h', 'x', 1, 'authored', '')")
    raw.close()
    with pytest.raises(StoreError, match=r"rows would break foreign keys.*gate_report.*nothing was changed"):
        Store.open(path)
    assert revision(path) == REVISIONS[0]


def test_a_newer_store_is_refused_by_both_doors(tmp_path: Path) -> None:
    path = filled(tmp_path / "s.db")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0999'")
    raw.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(SchemaTooNew, match=f"revision '0999'.*up to '{HEAD}'.*upgrade envsynth"):
            Store.open(path, readonly=readonly)
    assert path.read_bytes() == before


def test_a_store_only_moves_forward(tmp_path: Path) -> None:
    engine = sqlite_engine(filled(tmp_path / "s.db"), readonly=False, timeout_s=1)
    with engine.connect() as plain:
        connection = plain.execution_options(**{WRITE: True})
        with connection.begin():
            config = alembic_config(connection)
            with pytest.raises(NotImplementedError, match="only moves forward"):
                command.downgrade(config, "-1")
    engine.dispose()


def other_database(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def bad_places(folder: Path) -> dict[str, tuple[object, str]]:
    (folder / "text.db").write_text("this is no database, but it is long enough to be one")
    (folder / "empty.db").touch()
    other_database(folder / "other.db", "CREATE TABLE song (id INTEGER)")
    other_database(
        folder / "alembic.db",
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('0002')",
    )
    other_database(folder / "marked.db", f"PRAGMA application_id = {APPLICATION_ID}", "CREATE TABLE song (x)")
    damaged = filled(folder / "damaged.db")
    content = bytearray(damaged.read_bytes())
    content[100:4096] = b"\xff" * (4096 - 100)
    damaged.write_bytes(content)
    return {
        "folder": (folder, "is a folder: give the path of a file in it"),
        "missing folder": (folder / "no" / "s.db", "folder .*no does not exist: make it"),
        "text": (folder / "text.db", "is no SQLite database, so it is no envsynth store"),
        "other": (folder / "other.db", r"a database but no envsynth store \(tables: song\)"),
        "alembic": (folder / "alembic.db", "a database but no envsynth store"),
        "marked": (folder / "marked.db", "a database but no envsynth store"),
        "damaged": (folder / "damaged.db", "cannot open in store .*the file is damaged: restore a copy"),
        "memory": (":memory:", "a store is a file, not ':memory:'"),
        "memory url": ("sqlite://", "a store is a file"),
        "malformed url": ("://x", "malformed database URL '://x'"),
        "unknown url": ("nosuch://u:secret@h/d", r"no driver for store nosuch://u:\*\*\*@h/d"),
        "bad port": ("postgresql://u:secret@h:port/d", r"malformed database URL 'postgresql://\*\*\*@h:port/d'"),
        "bad password": ("postgresql://u:a@b/secret@h:x/d?password=secret", r"malformed .*//\*\*\*@h:x/d\?\*\*\*'"),
        "other driver": ("postgresql+asyncpg://u:secret@h/d", "no driver for store .* a database of PostgreSQL"),
        "other server": ("mysql://u:secret@h/d?password=secret", r"no driver for store mysql://u:\*\*\*@h/d:"),
    }


@pytest.mark.parametrize("readonly", [False, True], ids=["write", "read"])
@pytest.mark.parametrize(
    "case",
    [
        "folder",
        "missing folder",
        "text",
        "other",
        "alembic",
        "marked",
        "damaged",
        "memory",
        "memory url",
        "malformed url",
        "unknown url",
        "bad port",
        "bad password",
        "other driver",
        "other server",
    ],
)
def test_places_that_are_no_store(folder: Path, case: str, readonly: bool) -> None:
    place, message = bad_places(folder)[case]
    if case == "missing folder" and readonly:
        message = "there is no store at"
    before = {path: path.read_bytes() for path in folder.glob("*.db")}
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(place, readonly=readonly)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)
    assert {path: path.read_bytes() for path in folder.glob("*.db")} == before


def test_an_empty_file_becomes_a_store_but_not_read_only(folder: Path) -> None:
    (folder / "s.db").touch()
    with pytest.raises(StoreError, match="is empty, so it is no envsynth store"):
        Store.open(folder / "s.db", readonly=True)
    Store.open(folder / "s.db").close()
    assert revision(folder / "s.db") == HEAD


def test_nothing_is_made_when_reading_what_is_not_there(folder: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*s.db: make one with `envsynth synth"):
        Store.open(folder / "s.db", readonly=True)
    assert list(folder.iterdir()) == []


def test_urls_and_odd_names_open(folder: Path) -> None:
    path = folder / "a b#c?d%e.db"
    filled(path)
    assert sorted(item.name for item in folder.iterdir()) == [path.name]
    with Store.open(path, readonly=True) as store:
        assert len(store.tasks()) == 1
    with Store.open(f"sqlite:///{folder}/url.db") as store:
        assert store.where == str(folder / "url.db")


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENVSYNTH_STORE", raising=False)
    assert default_store_path() == "envsynth.db"
    monkeypatch.setenv("ENVSYNTH_STORE", str(tmp_path / "mine.db"))
    with Store.open() as store:
        assert store.where == str(tmp_path / "mine.db")


def test_readonly_refuses_writing(folder: Path) -> None:
    with Store.open(filled(folder / "s.db"), readonly=True) as store:
        assert store.readonly
        for write in (
            lambda: store.add_environment(factory.environment(1)),
            lambda: store.start_run("r", "c", {}),
            lambda: store.commit_unit("r", 0),
        ):
            with pytest.raises(StoreError, match="was opened read-only; open it with readonly=False"):
                write()
        assert len(store.environments()) == 1


def read_only_reader(path: Path) -> str:
    with Store.open(path, readonly=True) as store:
        return f"{len(store.tasks())} task"


def test_read_only_file_and_folder(folder: Path) -> None:
    path = filled(folder / "s.db")
    path.chmod(0o444)
    folder.chmod(0o555)
    assert in_child(lambda: read_only_reader(path)) == "1 task"
    text = in_child(lambda: Store.open(path))
    assert "StoreError: store" in text
    assert "may not be written: change its permissions, or open it with readonly=True" in text
    path.chmod(0o644 if os.getuid() else 0o666)
    text = in_child(lambda: Store.open(path))  # the folder cannot take the log
    assert "cannot open in store" in text
    assert "the file or its folder cannot be written" in text
    new = in_child(lambda: Store.open(folder / "new.db"))
    assert "cannot open in store" in new
    assert "check that its folder exists and that you may write there" in new
    path.chmod(0o000)
    assert "cannot be read: Permission denied" in in_child(lambda: Store.open(path))
    path.chmod(0o644)
    folder.chmod(0o777)
    with Store.open(path) as store:
        assert len(store.environment_entries()) == 1


def test_read_only_folder_with_a_log_that_is_not_folded_in(folder: Path) -> None:
    path = folder / "s.db"
    child = script(
        "import os, sys\n"
        "from envsynth.store import Store\n"
        "from tests.store import factory\n"
        "Store.open(sys.argv[1]).add_environment(factory.environment())\n"
        "os._exit(0)\n",  # dies without closing: the log stays
        path,
    )
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    (folder / "s.db-shm").unlink()
    for item in folder.iterdir():
        item.chmod(0o444)
    folder.chmod(0o555)
    text = in_child(lambda: read_only_reader(path))
    assert "s.db-wal holds changes that are not in the main file yet: open it once for writing" in text
    folder.chmod(0o777)
    for item in folder.iterdir():
        item.chmod(0o644)
    with Store.open(path) as store:
        assert len(store.environment_entries()) == 1


def test_a_locked_store_says_so(folder: Path) -> None:
    path = filled(folder / "s.db")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Store.open(path, busy_timeout_s=0.05) as store:
        assert len(store.environments()) == 1  # readers do not wait for a writer
        with pytest.raises(StoreError, match="another process kept the store locked for too long"):
            store.add_environment(factory.environment(1))
        holder.execute("ROLLBACK")
        store.add_environment(factory.environment(1))
    holder.close()


def fill_until_it_fails(path: Path) -> str:
    with Store.open(path) as store:
        store.start_run("r", "synthesize", {})
        for unit in range(1000):
            try:
                store.commit_unit("r", unit, environment=factory.environment(unit, rows=3000))
            except StoreError as error:
                return f"{len(store.done_units('r'))} {len(store.environment_entries())} {error}"
    return "never failed"


def check_full(path: Path, text: str, cause: str) -> None:
    n_units, n_environments, message = text.split(" ", 2)
    assert cause in message
    assert "nothing of this step was written" in message
    assert "commit unit" in message
    with Store.open(path) as store:  # what was accepted is there, and the store works again
        assert int(n_units) == int(n_environments) == len(store.environments()) > 0
        assert store.commit_unit("r", 999, environment=factory.environment(999))


def test_a_refusing_disk_loses_nothing(folder: Path) -> None:
    def limited() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))
        return fill_until_it_fails(folder / "s.db")

    text = in_child(limited, plain_user=False)
    check_full(folder / "s.db", text, "the disk refused to read or write")


def test_a_full_disk_loses_nothing(folder: Path) -> None:
    source = (
        "import sys, subprocess\n"
        "from pathlib import Path\n"
        "from tests.store.test_opening import check_full, fill_until_it_fails\n"
        "place = Path(sys.argv[1])\n"
        "if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'none', place]).returncode:\n"
        "    sys.exit(77)\n"
        "(place / 'ballast').write_bytes(bytes(1 << 20))\n"
        "text = fill_until_it_fails(place / 's.db')\n"
        "(place / 'ballast').unlink()\n"
        "check_full(place / 's.db', text, 'the disk is full')\n"
        "print(text)\n"
    )
    (folder / "disk").mkdir()
    child = script(source, folder / "disk", prefix=("unshare", "-rm"))
    text, errors = child.communicate()
    if child.returncode == 77 or "unshare" in errors:
        pytest.skip("this machine allows no mount namespace; the file-size limit above covers the path")
    assert child.returncode == 0, errors
    assert "the disk is full" in text
