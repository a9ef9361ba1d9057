from __future__ import annotations

import copy
import json
import pickle

import pytest
from gymnasium.vector.utils import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)
from hypothesis import given
from hypothesis import strategies as st

from envsynth.environments.spaces import Facts, UnicodeText
from envsynth.trajectory import void_verdict


def test_contains_text_up_to_its_length():
    space = UnicodeText(3)
    assert "é漢🧭" in space
    assert "" in space
    assert "abcd" not in space
    assert b"abc" not in space
    assert 3 not in space


def test_samples_are_seeded_members():
    left, right = UnicodeText(20, seed=4), UnicodeText(20, seed=4)
    drawn = [left.sample() for _ in range(50)]
    assert drawn == [right.sample() for _ in range(50)]
    assert all(text in left for text in drawn)
    assert any(not text.isascii() for text in drawn)


def test_equality_hash_repr_and_pickle():
    space = UnicodeText(7)
    assert space == UnicodeText(7) != UnicodeText(8)
    assert hash(space) == hash(UnicodeText(7))
    assert repr(space) == "UnicodeText(7)"
    assert pickle.loads(pickle.dumps(space)) == space
    assert not space.is_np_flattenable


@given(st.lists(st.text(st.characters(), max_size=9), min_size=2, max_size=2))
def test_shared_memory_round_trip(texts):
    space = UnicodeText(9)
    memory = create_shared_memory(space, n=2)
    view = read_from_shared_memory(space, memory, n=2)
    for index, text in enumerate(texts):
        write_to_shared_memory(space, index, text, memory)
    assert list(view) == texts
    kept = copy.deepcopy(view)
    write_to_shared_memory(space, 0, "new", memory)
    assert kept == tuple(texts)
    assert (view[0], view[-1], view[:1]) == ("new", texts[1], ("new",))
    with pytest.raises(IndexError):
        view[2]


def test_facts_of_a_text_are_decoded_when_they_are_read():
    for use in (
        dict,
        copy.copy,
        copy.deepcopy,
        lambda facts: pickle.loads(pickle.dumps(facts)),
        lambda facts: dict(facts | {}),
    ):
        facts = Facts.of_text('{"a":[1]}')
        assert "data" not in vars(facts)
        assert use(facts) == {"a": [1]}
        assert facts == {"a": [1]}
    assert isinstance(copy.copy(Facts.of_text("{}")), Facts)
    with pytest.raises(AttributeError, match="no attribute 'text'"):
        Facts.of_text("{}").text  # noqa: B018


def test_facts_read_like_a_dictionary_but_are_none():
    facts = Facts({"a": [1]})
    assert facts == {"a": [1]}
    assert facts["a"] == [1]
    assert not isinstance(facts, dict)
    assert pickle.loads(pickle.dumps(facts)) == facts
    assert json.dumps(dict(facts)) == '{"a": [1]}'
    with pytest.raises(TypeError):
        hash(facts)


def test_facts_of_a_record_are_its_fields_as_json_has_them():
    record = void_verdict("it broke", "crash")
    wanted = record.model_dump(mode="json")
    for look in (dict, copy.copy, copy.deepcopy, lambda facts: pickle.loads(pickle.dumps(facts))):
        assert look(Facts.of_record(record)) == wanted
    first, second = Facts.of_record(record), Facts.of_record(record)
    assert (len(first), list(first), first == second, first["failure"]) == (len(wanted), list(wanted), True, "it broke")
    first["checks"].append("more")
    assert second["checks"] == []
    assert not hasattr(first, "_record")
