"""The template: a conversation as tokens, and for each token whether the policy sampled it.

    <|system|> text  <|user|> text  <|assistant|> ACTION  <|result|> text  <|assistant|> ACTION ...
    ACTION = [<|think|> text <|/think|>] (<|call|> | <|answer|>) text <|end|>

The policy samples the whole ACTION with its end of turn; everything else is injected. Tokens go in as they came out: a
turn is never decoded and encoded again, so appending a turn changes no earlier token. The one exception is the thinking
rule: reasoning is kept across tool results and dropped when a new user message arrives; calls and results always stay.

Source: DeepSeek-V3.2, arXiv:2512.02556, section 3.2.1, thinking in tool use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from envsynth.environments.compact import (
    compact_action,
    compact_first,
    compact_observation,
    expand_action,
)
from envsynth.errors import SpecError
from envsynth.policy.tokens import (
    ANSWER,
    ASSISTANT,
    CALL,
    END,
    END_THINK,
    RESULT,
    SYSTEM,
    THINK,
    USER,
    decode,
    encode,
)
from envsynth.trajectory import Turn

Role = Literal["system", "user", "assistant", "result"]
"""Who speaks."""

_MARKERS: dict[Role, int] = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "result": RESULT}


@dataclass(frozen=True)
class Message:
    """One message of a conversation."""

    role: Role
    """Who speaks."""
    tokens: tuple[int, ...]
    """Its ids without the marker of the role; an assistant's exactly as sampled, end of turn included."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as the policy sees it."""

    ids: tuple[int, ...]
    """Token ids."""
    sampled: tuple[bool, ...]
    """Whether the policy sampled the token: the loss is on these."""

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.ids)


@dataclass(frozen=True)
class Said:
    """What a sampled turn says."""

    text: str
    """The action's text, for the environment: JSON, or whatever was sampled when it is no action."""
    thinking: str | None
    """Reasoning, if there was any."""


def system(text: str) -> Message:
    """What holds for the whole conversation: tools, rules, the form of the answer."""
    return Message("system", tuple(encode(text)))


def user(text: str) -> Message:
    """A request."""
    return Message("user", tuple(encode(text)))


def result(text: str) -> Message:
    """What a tool gave back, as compact text."""
    return Message("result", tuple(encode(text)))


def sampled(tokens: Iterable[int]) -> Message:
    """A turn as the policy sampled it, end of turn included."""
    return Message("assistant", tuple(tokens))


def action(text: str, thinking: str | None = None) -> Message:
    """A turn that another actor took, as the policy would say it.

    Args:
        text: Compact text of the action, from `compact_action`.
        thinking: Reasoning before it.

    Returns:
        The message, with end of turn.
    """
    thought = [] if thinking is None else [THINK, *encode(thinking), END_THINK]
    if text.startswith("? "):
        said = encode(text.removeprefix("? "))
    elif text.startswith("="):
        said = [ANSWER, *encode(text.removeprefix("=").removeprefix(" "))]
    else:
        said = [CALL, *encode(text)]
    return Message("assistant", (*thought, *said, END))


def read_action(tokens: Sequence[int]) -> Said:
    """Read a sampled turn.

    Args:
        tokens: As sampled; the end of turn may be missing when a limit cut it off.

    Returns:
        The action's text for the environment. A turn that is no action keeps its text, which the environment will
        call malformed.

    Raises:
        SpecError: an id is not in the vocabulary.
    """
    rest = list(tokens)
    if END in rest:
        rest = rest[: rest.index(END)]
    thinking = None
    if rest[:1] == [THINK]:
        stop = rest.index(END_THINK) if END_THINK in rest else len(rest)
        thinking = decode(rest[1:stop])
        rest = rest[stop + 1 :]
    kind, body = rest[:1], decode(rest[1:])
    if kind == [ANSWER]:
        body = f"= {body}" if body else "="
    if kind in ([CALL], [ANSWER]):
        try:
            return Said(expand_action(body), thinking)
        except SpecError:
            return Said(body, thinking)
    return Said(decode(rest), thinking)


def without_thinking(tokens: tuple[int, ...]) -> tuple[int, ...]:
    """Drop the reasoning of a sampled turn; a turn that never stopped thinking keeps its end alone."""
    if tokens[:1] != (THINK,):
        return tokens
    if END_THINK in tokens:
        return tokens[tokens.index(END_THINK) + 1 :]
    return (END,) if END in tokens else ()


def render(messages: Sequence[Message], *, reply: bool = False) -> Rendered:
    """Turn a conversation into tokens.

    Args:
        messages: In order.
        reply: Append the marker behind which the policy samples its next turn.

    Returns:
        Ids, and which of them were sampled. Turns before the last user message lost their reasoning; training takes
        them from the rendering in which they were sampled.
    """
    last_user = max((index for index, message in enumerate(messages) if message.role == "user"), default=0)
    ids: list[int] = []
    marks: list[bool] = []
    for index, message in enumerate(messages):
        own = message.role == "assistant"
        tokens = without_thinking(message.tokens) if own and index < last_user else message.tokens
        ids += [_MARKERS[message.role], *tokens]
        marks += [False, *[own] * len(tokens)]
    if reply:
        ids.append(ASSISTANT)
        marks.append(False)
    return Rendered(tuple(ids), tuple(marks))


def opening(first_observation: str) -> tuple[Message, ...]:
    """The messages that an episode begins with.

    Args:
        first_observation: The text that `reset` gives.

    Returns:
        System and user message; the user message alone when the text has a form of its own.
    """
    shared, prompt = compact_first(first_observation)
    return (system(shared), user(prompt)) if shared else (user(prompt),)


def turn_messages(turn: Turn) -> tuple[Message, Message]:
    """The messages of one turn: what was done, and what came back.

    Args:
        turn: A policy's turn keeps its sampled tokens; another actor's text is encoded.

    Returns:
        An assistant's message and a result.
    """
    said = (
        action(compact_action(turn.action), turn.thinking)
        if turn.action_tokens is None
        else sampled(turn.action_tokens)
    )
    return said, result(compact_observation(turn.observation))


def episode_messages(first_observation: str, turns: Sequence[Turn]) -> tuple[Message, ...]:
    """A whole episode as a conversation.

    Args:
        first_observation: The text that `reset` gave.
        turns: Its turns.

    Returns:
        The messages. What came back after the last turn is left out: nobody acts on it.
    """
    found = [*opening(first_observation)]
    for turn in turns:
        found += turn_messages(turn)
    return tuple(found[:-1] if turns else found)


def episode_tokens(first_observation: str, turns: Sequence[Turn], *, given: Sequence[int] = ()) -> Rendered:
    """A whole episode as tokens.

    Args:
        first_observation: The text that `reset` gave.
        turns: Its turns.
        given: Indices of turns that are to be read but not learned, such as mistakes made on purpose: their actions
            count as injected.

    Returns:
        The tokens.
    """
    ids: list[int] = []
    marks: list[bool] = []
    turn = -1
    for message in episode_messages(first_observation, turns):
        turn += message.role == "assistant"
        part = render((message,))  # with one user message at the start, no reasoning is ever dropped
        ids += part.ids
        marks += [mark and turn not in given for mark in part.sampled]
    return Rendered(tuple(ids), tuple(marks))
