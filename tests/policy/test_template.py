"""The template: which tokens are sampled, what a new turn leaves alone, and when reasoning is dropped."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.environments.compact import compact_action
from envsynth.policy.template import (
    Message,
    action,
    episode_messages,
    episode_tokens,
    opening,
    read_action,
    render,
    result,
    sampled,
    system,
    user,
)
from envsynth.policy.tokens import (
    ANSWER,
    ASSISTANT,
    CALL,
    END,
    END_THINK,
    RESULT,
    SPECIALS,
    SYSTEM,
    THINK,
    USER,
    VOCABULARY_SIZE,
    encode,
)
from envsynth.trajectory import ToolCall, Turn

CALL_TEXT = '{"tool":"vok","arguments":{"name":"Kelo"}}'
ANSWER_TEXT = '{"answer":{"colour":"red"}}'

texts = st.text(max_size=12)
turns = st.builds(action, texts, st.none() | texts)
messages = st.lists(turns | st.builds(result, texts) | st.builds(user, texts), max_size=8)


def thinking_turn() -> Message:
    return action(compact_action(CALL_TEXT), "look it up")


def test_render_marks_the_action_with_its_end_as_sampled_and_nothing_else() -> None:
    talk = [system("tool vok (name) Find."), user("Which one?"), thinking_turn(), result("[]")]
    found = render(talk, reply=True)
    own = [token for token, mine in zip(found.ids, found.sampled, strict=True) if mine]
    assert own == list(thinking_turn().tokens)
    assert own[0] == THINK
    assert own[-1] == END
    assert [token for token in found.ids if token in (SYSTEM, USER, ASSISTANT, RESULT)] == [
        *(SYSTEM, USER, ASSISTANT, RESULT),
        ASSISTANT,
    ]
    assert len(found) == len(found.sampled)


def test_calls_and_answers_begin_with_their_own_token() -> None:
    assert action(compact_action(CALL_TEXT)).tokens[0] == CALL
    assert action(compact_action(ANSWER_TEXT)).tokens[0] == ANSWER
    assert action(compact_action('{"answer":{}}')).tokens == (ANSWER, END)


@settings(max_examples=200, deadline=None)
@given(messages, turns | st.builds(result, texts))
def test_an_appended_turn_or_result_changes_no_earlier_token(talk: list[Message], more: Message) -> None:
    before, after = render(talk), render([*talk, more])
    assert after.ids[: len(before)] == before.ids
    assert after.sampled[: len(before)] == before.sampled
    assert render(talk, reply=True).ids == (*before.ids, ASSISTANT)


def test_reasoning_stays_across_results_and_goes_with_a_new_user_message() -> None:
    talk = [system("s"), user("u"), thinking_turn(), result("[]"), thinking_turn()]
    assert render(talk).ids.count(THINK) == 2
    later = render([*talk, user("and now?"), thinking_turn()])
    assert later.ids.count(THINK) == later.ids.count(END_THINK) == 1
    assert later.ids.count(CALL) == 3
    assert later.ids.count(RESULT) == 1
    assert later.ids.count(END) == 3


def test_a_turn_that_never_stopped_thinking_keeps_its_end_alone() -> None:
    endless = sampled((THINK, *encode("hm"), END))
    assert render([user("u"), endless, user("v")]).ids.count(END) == 1
    assert THINK not in render([user("u"), endless, user("v")]).ids
    assert read_action(endless.tokens).thinking == "hm"
    assert read_action(endless.tokens).text == ""


@settings(max_examples=200, deadline=None)
@given(st.text() | st.sampled_from([CALL_TEXT, ANSWER_TEXT]), st.none() | st.text())
def test_read_action_gives_back_what_another_actor_did(text: str, thinking: str | None) -> None:
    said = read_action(action(compact_action(text), thinking).tokens)
    assert (said.text, said.thinking) == (text, thinking)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY_SIZE - 1) | st.integers(0, len(SPECIALS) - 1), max_size=20))
def test_read_action_reads_whatever_a_policy_samples(ids: list[int]) -> None:
    said = read_action(ids)
    assert isinstance(said.text, str)


def test_a_call_that_cannot_be_read_reaches_the_environment_as_it_is() -> None:
    said = read_action((CALL, *encode("vok name"), END))
    assert said.text == "vok name"


def test_sampled_tokens_are_never_encoded_again() -> None:
    odd = (CALL, *encode("br"), *encode("in"), END)
    turn = Turn(action="whatever", observation='{"error":"malformed"}', action_tokens=odd)
    assert episode_messages("Hello", [turn])[-1].tokens == odd


def test_an_episode_ends_with_its_last_action() -> None:
    call = Turn(
        action=CALL_TEXT,
        call=ToolCall.parse({"tool": "vok", "arguments": {"name": "Kelo"}}),
        observation='{"result":[]}',
    )
    answer = Turn(action=ANSWER_TEXT, observation=json.dumps({"result": "answer received"}))
    talk = episode_messages("Hello", [call, answer])
    assert [message.role for message in talk] == ["user", "assistant", "result", "assistant"]
    assert opening("Hello") == (user("Hello"),)


def test_given_turns_are_read_and_not_learned() -> None:
    odd = Turn(action=CALL_TEXT, observation='{"error":404}', thinking="hm")
    talk = [odd, Turn(action=CALL_TEXT, observation='{"result":[]}'), Turn(action=ANSWER_TEXT, observation="{}")]
    whole = episode_tokens("Hello", talk)
    assert whole == render(episode_messages("Hello", talk))
    part = episode_tokens("Hello", talk, given=(0,))
    assert part.ids == whole.ids
    first = len(action(compact_action(CALL_TEXT), "hm").tokens)
    assert sum(part.sampled) == sum(whole.sampled) - first
    assert not any(part.sampled[: len(render(opening("Hello"))) + 1 + first])
