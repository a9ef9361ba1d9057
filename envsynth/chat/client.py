"""The client: one request or many at once, with retries, budget, cache and cassette."""

from __future__ import annotations

import importlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from envsynth.chat.memory import Cassette, DiskCache
from envsynth.chat.messages import ChatReply, ChatRequest, reply_from_wire
from envsynth.errors import ChatError, MissingExtra
from envsynth.record import content_hash

if TYPE_CHECKING:
    import openai

_RETRYABLE_STATUS = frozenset({408, 409, 425, 429})
_BACKOFF_CAP_S = 60.0


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How to reach a model and how it samples."""

    model: str
    """The provider's name of the model."""
    base_url: str | None = None
    """Endpoint; None: the environment variable OPENAI_BASE_URL, else the library's default."""
    api_key: str | None = field(default=None, repr=False)
    """Key; None: the environment variable OPENAI_API_KEY. Never written to cache or cassette."""
    temperature: float | None = None
    """Sampling temperature; None: the provider's default."""
    max_tokens: int | None = None
    """Longest reply in tokens; None: the provider's default."""
    seed: int | None = None
    """Sent as `seed + sample`, for providers that honour it; it also seeds the jitter of the backoff."""
    extra: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """More keys of the request's body, for one provider's own options."""
    timeout_s: float = 120.0
    """Seconds that one attempt may take."""
    retries: int = 4
    """Further attempts after a retryable failure (count)."""
    backoff_s: float = 1.0
    """Seconds before the first further attempt; doubled each time, at most 60."""
    concurrency: int = 8
    """Requests at the same time in `complete_many` (count, >= 1)."""


class ChatBudget:
    """A limit on requests and tokens, shared by all threads of a client; cached replies cost nothing.

    The limit on tokens is looked at before each request, so replies that are under way may pass it.

    Args:
        max_requests: Attempts that may leave this machine, retries included; None: no limit.
        max_tokens: Tokens read and written; None: no limit.
    """

    def __init__(self, max_requests: int | None = None, max_tokens: int | None = None) -> None:
        self.max_requests = max_requests
        self.max_tokens = max_tokens
        self.requests = 0
        self.tokens = 0
        self._lock = threading.Lock()

    def take_request(self) -> None:
        """Count one attempt.

        Raises:
            ChatError: the budget is spent.
        """
        with self._lock:
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise ChatError(f"the chat budget of {self.max_requests} requests is spent: raise max_requests")
            if self.max_tokens is not None and self.tokens >= self.max_tokens:
                raise ChatError(
                    f"the chat budget of {self.max_tokens} tokens is spent ({self.tokens} used): raise max_tokens"
                )
            self.requests += 1

    def add_tokens(self, reply: ChatReply) -> None:
        """Count the tokens of a reply.

        Raises:
            ChatError: there is a limit, and the provider does not tell the tokens.
        """
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            if self.max_tokens is not None:
                raise ChatError("the provider reports no token usage, so max_tokens cannot hold: use max_requests")
            return
        with self._lock:
            self.tokens += reply.prompt_tokens + reply.completion_tokens


class ChatClient:
    """A chat model. Threads may share a client; processes make their own.

    Args:
        options: Endpoint and sampling.
        budget: Limit on requests and tokens; None: unlimited, but still counted in `.budget`.
        cache: Replies kept on disk.
        cassette: Recorded replies; in replay mode nothing else is ever asked.
        sleep: Waits for some seconds; tests pass their own.

    Raises:
        ValueError: concurrency < 1 or retries < 0.
    """

    def __init__(
        self,
        options: ChatOptions,
        *,
        budget: ChatBudget | None = None,
        cache: DiskCache | None = None,
        cassette: Cassette | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if options.concurrency < 1 or options.retries < 0:
            raise ValueError(
                f"concurrency must be >= 1 and retries >= 0, got {options.concurrency} and {options.retries}"
            )
        self.options = options
        self.budget = budget or ChatBudget()
        self._cache = cache
        self._cassette = cassette
        self._sleep = sleep
        self._lock = threading.Lock()
        self._library: openai.OpenAI | None = None

    def payload(self, request: ChatRequest) -> dict[str, Any]:
        """Return the body of the request as it is sent."""
        options = self.options
        body: dict[str, Any] = {"model": options.model, "messages": list(request.messages)}
        if request.tools:
            body["tools"] = list(request.tools)
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if options.max_tokens is not None:
            body["max_tokens"] = options.max_tokens
        if options.seed is not None:
            body["seed"] = options.seed + request.sample
        return body | options.extra

    def key(self, request: ChatRequest) -> str:
        """Return the hash of model, parameters, messages, tools and sample: the name of the reply on disk."""
        return content_hash({"payload": self.payload(request), "sample": request.sample})

    def complete(self, request: ChatRequest) -> ChatReply:
        """Ask the model.

        Args:
            request: The question.

        Returns:
            The reply. A conversation that is longer than the model's context gives an empty reply with `finish`
            `context_length`, because that limit is the model's own.

        Raises:
            ChatError: the provider failed after all retries, the budget is spent, or a replayed cassette does not
                hold this request; `.retryable` says whether trying later may help.
        """
        return self._complete(request, threading.Event())

    def _complete(self, request: ChatRequest, cancelled: threading.Event) -> ChatReply:
        """Answer one request.

        Raises:
            ChatError: as `complete` says.
        """
        key = self.key(request)
        for memory in (self._cassette, self._cache):
            if memory is not None and (found := memory.get(key)) is not None:
                return found
        if self._cassette is not None and self._cassette.replay:
            raise ChatError(
                f"the cassette {str(self._cassette.path)!r} holds no reply for request {key}: record it again"
            )
        body = self.payload(request)
        reply = self._ask(body, key, cancelled)
        self.budget.add_tokens(reply)
        for memory in (self._cassette, self._cache):
            if memory is not None:
                memory.put(key, body, reply)
        return reply

    def complete_many(self, requests: Sequence[ChatRequest]) -> list[ChatReply | ChatError]:
        """Ask several questions at the same time.

        Args:
            requests: The questions.

        Returns:
            For each question its reply, or the error that it met.
        """
        cancelled = threading.Event()

        def answer(request: ChatRequest) -> ChatReply | ChatError:
            try:
                return self._complete(request, cancelled)
            except ChatError as error:
                return error

        if len(requests) == 1:
            return [answer(requests[0])]
        pool = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="envsynth-chat")
        try:
            return list(pool.map(answer, requests))
        finally:
            # On Ctrl-C nothing new is sent and nothing is tried again; what is under way is not waited for.
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, body: dict[str, Any], key: str, cancelled: threading.Event) -> ChatReply:
        jitter = random.Random(f"{self.options.seed}/{key}")
        attempt = 0
        while True:
            self.budget.take_request()
            try:
                return self._attempt(body)
            except _FailedAttemptError as failed:
                last = attempt >= self.options.retries or cancelled.is_set()
                if last or not failed.error.retryable:
                    tries = f" (tried {attempt + 1} times)" if attempt else ""
                    raise ChatError(f"{failed.error}{tries}", failed.error.retryable) from failed
                delay = min(_BACKOFF_CAP_S, self.options.backoff_s * 2**attempt) * (0.5 + jitter.random() / 2)
                self._sleep(max(delay, min(failed.wait_s, _BACKOFF_CAP_S)))
                attempt += 1

    def _attempt(self, body: dict[str, Any]) -> ChatReply:
        library = _openai()
        create = cast("Any", self._connect().chat.completions.with_raw_response.create)
        known = {name: body[name] for name in ("model", "messages")}
        rest = {name: value for name, value in body.items() if name not in known}
        try:
            # `extra_body` sends every option as it is, also those that the library does not know.
            text = str(create(**known, extra_body=rest).text)
        except library.APIStatusError as error:
            return self._refused(error)
        except library.APIConnectionError as error:
            cause = error.__cause__ or error
            raise _FailedAttemptError(self._error(f"no connection: {cause}", retryable=True)) from error
        except library.OpenAIError as error:
            raise _FailedAttemptError(self._error(str(error), retryable=False)) from error
        try:
            return reply_from_wire(text)
        except ChatError as error:
            raise _FailedAttemptError(self._error(str(error), error.retryable)) from error

    def _refused(self, error: openai.APIStatusError) -> ChatReply:
        """Classify an HTTP error status: the model's own limit is a reply, everything else a failure.

        Raises:
            _FailedAttemptError: a failure.
        """
        if error.status_code == 400 and error.code == "context_length_exceeded":
            return ChatReply(finish="context_length", prompt_tokens=0, completion_tokens=0)
        retryable = error.status_code in _RETRYABLE_STATUS or error.status_code >= 500
        if error.code == "insufficient_quota":
            retryable = False
        advice = {401: ": check the API key", 404: ": check base_url and model"}.get(error.status_code, "")
        try:
            wait_s = float(error.response.headers.get("retry-after", "0"))
        except ValueError:  # a date instead of seconds: our own backoff is good enough
            wait_s = 0.0
        failure = self._error(f"HTTP {error.status_code}: {error.message}{advice}", retryable)
        raise _FailedAttemptError(failure, wait_s) from error

    def _error(self, what: str, retryable: bool) -> ChatError:
        where = self.options.base_url or "the endpoint of OPENAI_BASE_URL or the library's default"
        return ChatError(f"chat model {self.options.model!r} at {where}: {what}", retryable)

    def _connect(self) -> openai.OpenAI:
        library = _openai()
        with self._lock:
            if self._library is not None:
                return self._library
            try:
                connection: openai.OpenAI = library.OpenAI(
                    base_url=self.options.base_url,
                    api_key=self.options.api_key,
                    timeout=self.options.timeout_s,
                    max_retries=0,  # ours are seeded, counted in the budget, and told in the message
                )
            except library.OpenAIError as error:
                raise ChatError(
                    "no API key: set OPENAI_API_KEY or pass api_key (a local server takes any text)"
                ) from error
            self._library = connection
            return connection

    def close(self) -> None:
        """Close the connections; the client may be used again."""
        with self._lock:
            if self._library is not None:
                self._library.close()
                self._library = None


class _FailedAttemptError(Exception):
    """One attempt failed."""

    def __init__(self, error: ChatError, wait_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


def _openai() -> ModuleType:
    """Load the library late: it costs a second, and most actors are no chat models.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("openai")
    except ImportError as error:
        raise MissingExtra("chat models need the library `openai`: pip install openai") from error
