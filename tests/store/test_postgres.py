"""A store in PostgreSQL promises what the file promises; refusals never show the password."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import socket
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, make_url

from acceptance.postgres_server import PASSWORD, Server, programs, server
from envsynth.errors import MissingExtra, SchemaTooNew, StoreError
from envsynth.store import Store, postgres
from envsynth.store.migrate import upgrade
from envsynth.store.postgres import postgres_engine
from envsynth.store.rows import Row
from envsynth.store.schema import HEAD, REVISIONS
from tests.store import factory, test_processes, test_store
from tests.store.processes import script

pytestmark = [
    pytest.mark.skipif(programs() is None, reason="the programs of a PostgreSQL server are not installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed (extra [postgres])"
    ),
]
QUOTED = quote(PASSWORD, safe="")
NUMBERS = itertools.count()
ON_FILES = ("tmp_path", "sqlite3")
"""Names in the source of tests that look into the file itself."""


def general() -> dict[str, object]:
    """Tests of the store that hold for any database: they know it by the fixture `store` alone."""
    found = {name: test for name, test in vars(test_store).items() if name.startswith("test_")}
    return {
        name: test
        for name, test in found.items()
        if not any(word in inspect.getsource(test) for word in ON_FILES) and not hasattr(test, "hypothesis")
    }


globals().update(general())


def test_most_tests_of_the_store_run_here_too() -> None:
    assert len(general()) >= 15


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server() as started:
        yield started


@pytest.fixture
def url(running: Server) -> str:
    return running.new_database(f"db{next(NUMBERS)}")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as opened:
        yield opened


def test_migrated_tables_are_those_of_the_rows(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Row.metadata) == []


def test_text_compares_by_bytes_whatever_the_locale(running: Server) -> None:
    # In a dictionary "a" stands before "B"; by bytes, and in SQLite, it stands after it.
    url = running.new_database("icu", options="TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'")
    assert running.sql("SELECT 'B' < 'a'", "icu") == "f"
    with Store.open(url) as store:
        for key in ("a", "B", "b"):
            store.start_run(key, "synthesize", {})
        assert [run.key for run in store.runs()] == ["B", "a", "b"]


def test_an_older_revision_is_upgraded_with_its_rows(url: str, running: Server) -> None:
    engine = postgres_engine(postgres_url(url), readonly=False, timeout_s=5)
    upgrade(engine, "s", target=REVISIONS[0])
    engine.dispose()
    with pytest.raises(StoreError, match=f"schema revision '{REVISIONS[0]}', .* reads '{HEAD}': open it once"):
        Store.open(url, readonly=True)
    with Store.open(url) as store:
        assert store.suites() == []
    database = url.rpartition("/")[2]
    assert running.sql("SELECT version_num FROM alembic_version", database) == HEAD
    running.sql("UPDATE alembic_version SET version_num = '0999'", database)
    with pytest.raises(SchemaTooNew, match="revision '0999'"):
        Store.open(url)


def postgres_url(url: str) -> URL:
    return make_url(url)


def test_another_database_is_no_store(url: str, running: Server) -> None:
    running.sql("CREATE TABLE song (id int)", url.rpartition("/")[2])
    with pytest.raises(StoreError, match=r"a database but no envsynth store \(tables: song\)"):
        Store.open(url)


def test_a_database_of_another_encoding_is_refused_and_left_empty(running: Server) -> None:
    url = running.new_database("latin", options="ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(StoreError, match="has the encoding LATIN1, in which not every text can be kept"):
        Store.open(url)
    assert running.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "latin") == "0"


def test_four_processes_make_and_fill_one_database(url: str) -> None:
    children = [script(test_processes.WRITER, url, part) for part in range(test_processes.N_WRITERS)]
    lines: list[tuple[int, bool]] = []
    for child in children:
        text, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        lines += [(int(unit), new == "1") for unit, new in map(str.split, text.splitlines())]
    units = {unit for unit, _ in lines}
    with Store.open(url) as store:
        assert store.done_units("shared") == units
        # Every unit was new to exactly one process.
        assert sorted(unit for unit, new in lines if new) == sorted(units)
        assert len(store.environment_entries()) == len(units)
        assert len(store.task_entries()) == 2 * len(units)
        assert len(store.rejections(run="shared")) == len(units)
        assert all(len(store.reports(task.hash)) == 1 for task in store.task_entries())


def test_a_writer_killed_in_its_transaction_leaves_nothing_and_holds_nobody_up(url: str) -> None:
    child = script(
        "import sys, time\n"
        "from envsynth.store import Store\n"
        "from tests.store import factory\n"
        "store = Store.open(sys.argv[1])\n"
        "from envsynth.store import batch\n"
        "write = batch.Batch.write\n"
        "def slow(self, session):\n"
        "    write(self, session)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "batch.Batch.write = slow\n"
        "store.add_environment(factory.environment(1))\n",
        url,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    with Store.open(url, busy_timeout_s=0.2) as store:
        assert store.environment_entries() == []  # readers neither wait nor see it
        with pytest.raises(StoreError, match="another process kept the store locked for too long"):
            store.add_environment(factory.environment(2))
    child.kill()
    child.communicate()
    with Store.open(url) as store:
        store.add_environment(factory.environment(2))
        assert [entry.slug for entry in store.environment_entries()] == ["library-2"]


def test_a_writer_that_stands_still_loses_its_turn(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(url) as store:
        # Short for this one writer alone: on a busy machine making tables may stand still as long.
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "STALLED_S", 1)
            with pytest.raises(StoreError, match=r"gave its turn to others|connection to the server was lost"):  # noqa: PT012, SIM117
                with store._session("stand still", write=True) as session:
                    time.sleep(2)
                    session.connection().exec_driver_sql("SELECT 1")
        store.add_environment(factory.environment(1))  # with a new connection
        assert len(store.environment_entries()) == 1


def test_threads_that_add_the_same_wait_for_each_other(url: str) -> None:
    with Store.open(url) as store:
        home = factory.environment()
        task = factory.task(home)
        failures: list[BaseException] = []

        def add() -> None:
            try:
                for _ in range(5):
                    store.add_environment(home)
                    store.add_task(task, factory.report(task))
            except BaseException as error:  # noqa: BLE001 - the test judges it
                failures.append(error)

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(store.reports(task.hash)) == 1


def test_readonly_is_refused_by_the_server_too(url: str) -> None:
    Store.open(url).close()
    with Store.open(url, readonly=True) as store:
        with pytest.raises(StoreError, match="was opened read-only"):
            store.add_environment(factory.environment())
        with pytest.raises(StoreError, match="the database takes no writes"), store._session("write") as session:
            session.connection().exec_driver_sql("DELETE FROM environment")


def test_a_lost_connection_is_named_and_replaced(url: str, running: Server) -> None:
    database = url.rpartition("/")[2]
    cut = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
    with Store.open(url) as store:
        with pytest.raises(StoreError, match=r"connection to the server was lost|server is being shut down"):  # noqa: PT012, SIM117
            with store._session("read") as session:
                running.sql(cut)
                session.connection().exec_driver_sql("SELECT 1")
        store.add_environment(factory.environment())
        running.sql(cut)
        assert len(store.environment_entries()) == 1  # a pooled connection is tried before it is used


# ------------------------------------------------------------------------------------------------------------- refusals


def test_hostile_urls_are_refused_without_the_password(running: Server) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound, but nobody listens
        closed = holder.getsockname()[1]
        cases = {
            running.url("nothing"): 'database "nothing" does not exist',
            running.url(password="wr0ng-s3cret"): "password authentication failed",
            f"postgresql+psycopg://envsynth:s3cret@127.0.0.1:{closed}/x": "the server cannot be reached",
            "postgresql+psycopg://envsynth:s3cret@no-such-host.invalid/x": "the server cannot be reached",
        }
        for place, message in cases.items():
            began = time.monotonic()
            with pytest.raises(StoreError, match=message) as caught:
                Store.open(place)
            assert "s3cret" not in str(caught.value)
            assert "\n" not in str(caught.value)
            assert time.monotonic() - began < 2 * postgres.CONNECT_S


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_schemes_of_postgresql_mean_the_same(url: str, scheme: str) -> None:
    with Store.open(url.replace("postgresql+psycopg", scheme)) as store:
        assert store.runs() == []


def test_a_socket_and_options_may_stand_in_the_query(running: Server, url: str) -> None:
    database = url.rpartition("/")[2]
    place = f"postgresql+psycopg://envsynth@/{database}?host={running.folder}&port={running.port}&password={QUOTED}"
    with Store.open(f"{place}&options=-c%20work_mem%3D7MB") as store:
        assert QUOTED not in store.where
        assert str(running.port) in store.where
        with store._engine.connect() as connection:
            assert connection.exec_driver_sql("SHOW work_mem").scalar() == "7MB"


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # what an import finds of a library that is not there
    with pytest.raises(MissingExtra, match=r"\*\*\*@h/d needs the driver psycopg.*pip install 'envsynth\[postgres\]'"):
        Store.open("postgresql+psycopg://u:s3cret@h/d")
