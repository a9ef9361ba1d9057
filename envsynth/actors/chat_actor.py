"""A chat model plays, by native tool calling or by plain text."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from envsynth.chat import ChatCall, ChatClient, ChatReply, ChatRequest
from envsynth.errors import ChatError
from envsynth.trajectory import Episode, Move

Mode = Literal["tools", "text"]
"""`tools`: the provider's function calling. `text`: the model writes the JSON of its action."""

SUBMIT = "submit_answer"
"""The function that gives the final answer in mode `tools`; underscores are added while a tool has that name."""

SYSTEM = (
    "You act through function calls, one at a time. Where the task says to write the JSON of an action, call the "
    "function of that name instead; give the final answer by calling `{submit}` with the fields of the answer."
)
"""System message in mode `tools`."""

_LIMITS = {
    "length": "the reply was cut at max_tokens before it said anything",
    "content_filter": "the provider's content filter withheld the reply",
    "context_length": "the conversation is longer than the model's context",
}


@dataclass
class _Talk:
    """The conversation of one slot."""

    episode: Episode
    submit: str
    messages: list[dict[str, JsonValue]]
    tools: tuple[dict[str, JsonValue], ...]
    pending: deque[ChatCall] = field(default_factory=deque[ChatCall])
    answering: str | None = None
    begun: bool = False


class ChatActor:
    """Plays through a `ChatClient`; the requests of one batch run at the same time.

    When a model makes several calls in one reply, they are played one per turn, in order, before it is asked again. A
    reply that is neither a call nor the JSON of an action is played as it is: the environment answers what is wrong with
    it. A provider that fails makes the episode void; a limit of the model itself (context, length, content filter) makes
    the actor stop, and the episode fails.

    Args:
        client: The model; it belongs to the actor and is closed with it.
        mode: How the model acts.
        keep_thinking: Send reasoning back with the conversation, as models need that think across tool calls; turn it
            off for providers that refuse it.
    """

    def __init__(self, client: ChatClient, *, mode: Mode = "tools", keep_thinking: bool = True) -> None:
        self._client = client
        self._mode: Mode = mode
        self._keep_thinking = keep_thinking
        self._talks: dict[int, _Talk] = {}

    @property
    def name(self) -> str:
        """`chat:` and the model's name."""
        return f"chat:{self._client.options.model}"

    def start(self, slot: int, episode: Episode) -> None:
        """Begin a conversation.

        Args:
            slot: The slot.
            episode: What an actor may know of it.
        """
        submit, tools = _functions(episode) if self._mode == "tools" else (SUBMIT, ())
        messages: list[dict[str, JsonValue]] = [{"role": "user", "content": episode.prompt}]
        if tools:
            messages.insert(0, {"role": "system", "content": SYSTEM.format(submit=submit)})
        self._talks[slot] = _Talk(episode, submit, messages, tools)

    def act(self, slots: Sequence[int], observations: Sequence[str]) -> list[Move]:
        """Tell every slot's model what it sees, and return what it does.

        Args:
            slots: Slots with an episode under way.
            observations: What each of them shows.

        Returns:
            The moves, in the order of `slots`.
        """
        talks = [self._talks[slot] for slot in slots]
        for talk, observation in zip(talks, observations, strict=True):
            _hear(talk, observation)
        asked = [talk for talk in talks if not talk.pending]
        replies = self._client.complete_many(
            [ChatRequest(messages=tuple(talk.messages), tools=talk.tools, sample=talk.episode.seed) for talk in asked]
        )
        fresh = {id(talk): reply for talk, reply in zip(asked, replies, strict=True)}
        return [self._move(talk, fresh.get(id(talk))) for talk in talks]

    def _move(self, talk: _Talk, reply: ChatReply | ChatError | None) -> Move:
        if isinstance(reply, ChatError):
            return Move("", stop=True, failure=str(reply), void=True)
        if reply is None:
            return _play_call(talk, None)
        message = reply.message
        if self._keep_thinking and reply.thinking is not None and reply.thinking_key is not None:
            message[reply.thinking_key] = reply.thinking
        talk.messages.append(message)
        if reply.calls:
            talk.pending.extend(reply.calls)
            return _play_call(talk, reply.thinking)
        if not reply.text and reply.finish in _LIMITS:
            return Move("", reply.thinking, stop=True, failure=_LIMITS[reply.finish])
        return Move(find_action(reply.text), reply.thinking)

    def close(self) -> None:
        """Forget all conversations and close the client's connections."""
        self._talks.clear()
        self._client.close()


def _functions(episode: Episode) -> tuple[str, tuple[dict[str, JsonValue], ...]]:
    submit = SUBMIT
    names = [_name(tool) for tool in episode.tools]
    while submit in names:
        submit += "_"
    function: dict[str, JsonValue] = {
        "name": submit,
        "description": "Give the final answer; this ends the episode.",
        "parameters": episode.answer_schema,
    }
    return submit, (*episode.tools, {"type": "function", "function": function})


def _name(tool: dict[str, JsonValue]) -> str:
    function = tool["function"]
    return str(function["name"]) if isinstance(function, dict) else ""


def _hear(talk: _Talk, observation: str) -> None:
    if not talk.begun:  # the first observation is the prompt
        talk.begun = True
    elif talk.answering is not None:
        talk.messages.append({"role": "tool", "tool_call_id": talk.answering, "content": observation})
    else:
        talk.messages.append({"role": "user", "content": observation})
    talk.answering = None


def _play_call(talk: _Talk, thinking: str | None) -> Move:
    call = talk.pending.popleft()
    talk.answering = call.id
    # The arguments stay as the model wrote them: when they are no JSON, the environment says so.
    if call.name == talk.submit:
        return Move(f'{{"answer":{call.arguments}}}', thinking)
    name = json.dumps(call.name, ensure_ascii=False)
    return Move(f'{{"tool":{name},"arguments":{call.arguments}}}', thinking)


def find_action(text: str) -> str:
    """Find the JSON of an action in what a model wrote around it.

    Args:
        text: The visible text of a reply.

    Returns:
        The last JSON object with the key `tool` or `answer`, as it stands in the text; without one, the whole text.
    """
    decoder = json.JSONDecoder()
    found, position = text, text.find("{")
    while position >= 0:
        end = position + 1
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and ("tool" in value or "answer" in value):
            found = text[position:end]
        elif value is not None:
            end = position + 1
        position = text.find("{", end)
    return found
