"""What goes to a chat model and what comes back, as data that does not depend on the provider."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from envsynth.errors import ChatError, SpecError
from envsynth.record import explain_validation

Message = dict[str, JsonValue]
"""One chat message in the wire format: `role`, `content`, `tool_calls` ..."""


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """One question to the model."""

    messages: tuple[Message, ...]
    """The conversation so far."""
    tools: tuple[dict[str, JsonValue], ...] = ()
    """Functions that the model may call, in the OpenAI format; empty for plain text."""
    sample: int = 0
    """Which of several independent answers to the same conversation is wanted; part of the cache key."""


@dataclass(frozen=True, kw_only=True)
class ChatCall:
    """One function call of the model."""

    id: str
    """The provider's id of the call; the result must quote it."""
    name: str
    """The function's name."""
    arguments: str
    """The arguments as the model wrote them: should be JSON, may be anything."""


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """The model's answer."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    text: str = ""
    """Visible text."""
    calls: tuple[ChatCall, ...] = ()
    """Function calls, in order."""
    thinking: str | None = None
    """Reasoning text, when the provider shows it."""
    thinking_key: str | None = None
    """The wire name under which the reasoning came, to send it back under."""
    finish: str = "stop"
    """Why the model stopped: `stop`, `tool_calls`, `length`, `content_filter`, `context_length`."""
    prompt_tokens: int | None = None
    """Tokens read, if the provider tells."""
    completion_tokens: int | None = None
    """Tokens written, if the provider tells."""

    @property
    def message(self) -> Message:
        """The reply without its reasoning, as a message of the conversation."""
        message: Message = {"role": "assistant", "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.calls
            ]
        return message

    def to_data(self) -> dict[str, JsonValue]:
        """Return plain data for a file."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: object) -> ChatReply:
        """Rebuild a reply.

        Args:
            data: What `to_data` returned.

        Returns:
            The reply.

        Raises:
            SpecError: the data is of another shape.
        """
        try:
            return _STORED.validate_python(data)
        except ValidationError as error:
            raise SpecError(explain_validation(error, "chat reply")) from error


_STORED = TypeAdapter(ChatReply)


class _Wire(BaseModel):
    # Providers add keys as they like; only what is read here must have its type.
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")


class _WireFunction(_Wire):
    name: str
    arguments: str | None = None


class _WireCall(_Wire):
    id: str | None = None
    function: _WireFunction


class _WireMessage(_Wire):
    content: JsonValue = None
    reasoning_content: JsonValue = None
    reasoning: JsonValue = None
    tool_calls: list[_WireCall] | None = None


class _WireChoice(_Wire):
    message: _WireMessage
    finish_reason: str | None = None


class _WireUsage(_Wire):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _WireReply(_Wire):
    choices: list[_WireChoice] = Field(min_length=1)
    usage: _WireUsage | None = None


def reply_from_wire(text: str) -> ChatReply:
    """Read the body of a chat completion, tolerating everything that we do not need.

    Args:
        text: The body of the response.

    Returns:
        The first choice as a reply.

    Raises:
        ChatError: the body is no chat completion (retryable).
    """
    try:
        # Models can emit half of a surrogate pair, which no file, hash or socket accepts.
        clean = json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError) as error:
        raise ChatError(f"malformed reply, not JSON: {text[:200]!r}", retryable=True) from error
    try:
        wire = _WireReply.model_validate_json(clean)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in problem["loc"])
        message = f"malformed reply, {path or 'body'}: {problem['msg']}, in {text[:200]!r}"
        raise ChatError(message, retryable=True) from error
    message = wire.choices[0].message
    thinking, key = None, None
    for name in ("reasoning_content", "reasoning"):
        value = getattr(message, name)
        if isinstance(value, str) and value:
            thinking, key = value, name
            break
    usage = wire.usage or _WireUsage()
    return ChatReply(
        text=message.content if isinstance(message.content, str) else "",
        calls=tuple(
            ChatCall(
                id=call.id or f"call_{position}",
                name=call.function.name,
                arguments=call.function.arguments or "{}",
            )
            for position, call in enumerate(message.tool_calls or [])
        ),
        thinking=thinking,
        thinking_key=key,
        finish=wire.choices[0].finish_reason or "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
