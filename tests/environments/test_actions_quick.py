"""Actions read the quick way are what the slow way reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.environments import actions
from envsynth.environments.actions import parse_action

TEXTS = st.sampled_from(["", "x", 'a"b', '"":', "é", "\u0000", "\ud800", "y" * 1_001])
SCALARS = st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats() | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
ACTIONS = st.fixed_dictionaries({}, optional={"tool": VALUES, "arguments": VALUES, "answer": VALUES, "other": VALUES})


def slowly(text: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actions, "_quickly", lambda _: None)
        return parse_action(text)


@given(ACTIONS | VALUES, st.booleans(), st.sampled_from([None, (",", ":"), (" , ", " : ")]))
def test_both_ways_agree(value: Any, ascii_only: bool, separators: Any) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    assert repr(parse_action(text)) == repr(slowly(text))


@pytest.mark.parametrize(
    "text",
    [
        '{"tool":"x","arguments":{"a":1,"a":2}}',
        '{"tool":"x","tool":"y"}',
        '{"tool":"x","arguments":{"a":"\\"b\\":","a":2}}',
        '{"tool":"x","arguments":{"a":[{"b":1,"b":1}]}}',
        '{"tool":"x","arguments":{"a":99999999999999999999999}}',
        '{"tool":"x","arguments":{"a":9223372036854775808}}',
        '{"tool":"x","arguments":{"a":[18446744073709551615]}}',
        '{"tool":9223372036854775808}',
        "9223372036854775808",
        '{"tool":"x","arguments":{"a":[9223372036854775807,-9223372036854775808]}}',
        '{"tool":"x","arguments":{"a":1e999}}',
        '{"tool":"x","arguments":{"a":NaN}}',
        '{"answer":{"a":1.5}}',
        '{"tool" :"x","arguments":{}}',
        "[" * 2_000,
        '{"tool":"x"} ',
        '\ufeff{"tool":"x"}',
        '{"tool":"x","arguments":{"a":"\\ud800"}}',
        "",
    ],
)
def test_both_ways_agree_on_odd_texts(text: str) -> None:
    assert repr(parse_action(text)) == repr(slowly(text))


def test_the_usual_action_is_read_quickly() -> None:
    text = '{"tool":"browse","arguments":{"name":"Sorano","page":2,"all":true,"list":[1,null]}}'
    assert actions._quickly(text) == json.loads(text)
