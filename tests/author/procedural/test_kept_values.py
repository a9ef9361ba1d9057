"""Values of derived attributes that an oracle keeps are those that it would work out anew."""

from __future__ import annotations

import random

import pytest

from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.ir import Attr
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.oracle import Oracle, Reject
from envsynth.author.procedural.oracle.relations import OFTEN
from envsynth.author.procedural.sampling import Rejected, Sampler
from envsynth.errors import AuthorError
from tests.author.procedural.random_tasks import random_task, world
from tests.author.procedural.tiny_world import tiny_world

NAMES = sorted(MECHANISMS)


def forget(kept):
    """Forget rows that were asked for, so that they are asked again, of the kept values."""
    for key in [key for key in kept if not (isinstance(key, tuple) and key[0] == "uses")]:
        del kept[key]


def outcome(oracle, task):
    try:
        result = oracle.run(task)
    except Reject as reason:
        return reason.code
    return result.answer, result.changes, result.branches, result.sets


@pytest.mark.parametrize("name", NAMES)
def test_kept_and_fresh_answers_are_equal(name):
    composed = world((MECHANISMS[name],), f"kept/{name}")
    sampler = Sampler(composed, (), random.Random(f"kept/{name}"))
    tasks = []
    while len(tasks) < 12:
        try:
            tasks.append(random_task(sampler, changes=len(tasks) % 2))
        except Rejected:
            continue
    kept: dict = {}
    keeping = Oracle(composed, connect(composed), kept)
    for task in tasks:
        fresh = outcome(Oracle(composed, connect(composed)), task)
        for _ in range(OFTEN + 2):
            forget(kept)
            assert outcome(keeping, task) == fresh


@pytest.mark.parametrize("name", NAMES)
def test_kept_values_of_every_row(name):
    composed = world((MECHANISMS[name],), f"kept/{name}")
    plain = [key for key, derived in composed.derived.items() if not derived.params]
    kept: dict = {}
    keeping, fresh = Oracle(composed, connect(composed), kept), Oracle(composed, connect(composed))
    for entity, attribute in plain:
        wanted = fresh.values(entity, Attr(attribute))
        for _ in range(OFTEN + 2):
            forget(kept)
            for row_id, value in wanted.items():
                assert keeping.value(entity, row_id, Attr(attribute)) == fresh.value(entity, row_id, Attr(attribute))
                assert type(keeping.values(entity, Attr(attribute))[row_id]) is type(value)
    tables = keeping._connection.execute("SELECT name FROM temp.sqlite_master WHERE type = 'table'").fetchall()
    assert len(tables) >= len(plain), "the values were kept"


def test_rows_that_are_frozen_stay_so():
    composed = tiny_world()
    connection = connect(composed)
    connection.execute("PRAGMA query_only = ON")
    keeping = Oracle(composed, connection, {})
    for _ in range(OFTEN + 2):
        assert keeping.value("room", 60, Attr("quiet")) is True
    assert connection.execute("PRAGMA query_only").fetchone() == (1,)


def test_a_text_that_is_no_sql_is_the_authors_error():
    composed = tiny_world()
    relations = Oracle(composed, connect(composed), {})._relations
    for _ in range(OFTEN):
        relations._kept("room", "nonsense(")
    with pytest.raises(AuthorError, match="SQL of a mechanism failed"):
        relations._kept("room", "nonsense(")
