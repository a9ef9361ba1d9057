"""The chat client against a scripted server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.chat import (
    Cassette,
    ChatBudget,
    ChatCall,
    ChatClient,
    ChatOptions,
    ChatReply,
    ChatRequest,
    DiskCache,
)
from envsynth.errors import ChatError

HELLO = ChatRequest(messages=({"role": "user", "content": "hello"},))


def completion(text: str = "hi", **message: Any) -> tuple[int, Any]:
    body = {"role": "assistant", "content": text} | message
    return 200, {
        "choices": [{"message": body, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }


def failure(status: int, message: str = "broken", code: str | None = None) -> tuple[int, Any]:
    return status, {"error": {"message": message, "code": code}}


class Provider:
    """Answers with a script: a list of (status, body), or a function of the request's body."""

    def __init__(self) -> None:
        self.script: list[tuple[int, Any]] | Callable[[dict[str, Any]], tuple[int, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with provider.lock:
                    provider.bodies.append(body)
                    provider.keys.append(self.headers["Authorization"])
                    script = provider.script
                    planned = None if callable(script) else script.pop(0)
                status, answer = planned or script(body)  # type: ignore[operator]
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in provider.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that gave up waiting is part of the tests."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


@pytest.fixture
def provider(shared_provider: Provider) -> Provider:
    shared_provider.script, shared_provider.bodies = [], []
    shared_provider.headers, shared_provider.keys = {}, []
    return shared_provider


@pytest.fixture
def make(provider: Provider) -> Iterator[Callable[..., tuple[ChatClient, list[float]]]]:
    clients: list[ChatClient] = []

    def build(*, memory: dict[str, Any] | None = None, **options: Any) -> tuple[ChatClient, list[float]]:
        sleeps: list[float] = []
        values = {
            "model": "m",
            "base_url": provider.url,
            "api_key": "secret",
            "timeout_s": 5.0,
        } | options
        client = ChatClient(ChatOptions(**values), sleep=sleeps.append, **(memory or {}))
        clients.append(client)
        return client, sleeps

    yield build
    for client in clients:
        client.close()


Make = Callable[..., tuple[ChatClient, list[float]]]


def test_complete_sends_model_messages_tools_and_options(provider: Provider, make: Make) -> None:
    provider.script = [completion()]
    client, _ = make(temperature=0.5, max_tokens=9, seed=10, extra={"top_k": 3})
    tool: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {}}}
    reply = client.complete(ChatRequest(messages=HELLO.messages, tools=(tool,), sample=2))
    assert reply == ChatReply(text="hi", prompt_tokens=3, completion_tokens=4)
    assert provider.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "hello"}],
            "tools": [tool],
            "temperature": 0.5,
            "max_tokens": 9,
            "seed": 12,
            "top_k": 3,
        }
    ]
    assert provider.keys == ["Bearer secret"]


def test_complete_reads_calls_and_keeps_thinking(provider: Provider, make: Make) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    provider.script = [completion(None, tool_calls=[call], reasoning_content="let me see")]  # type: ignore[arg-type]
    client, _ = make()
    reply = client.complete(HELLO)
    assert reply.calls == (ChatCall(id="c1", name="f", arguments='{"a": 1}'),)
    assert (reply.text, reply.thinking, reply.thinking_key) == (
        "",
        "let me see",
        "reasoning_content",
    )
    assert reply.message == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_complete_replaces_lone_surrogates(provider: Provider, make: Make) -> None:
    provider.script = [(200, '{"choices":[{"message":{"content":"a\\ud800b"}}]}')]
    client, _ = make()
    assert client.complete(HELLO).text == "a?b"


@pytest.mark.parametrize("bad", [failure(429), failure(500), failure(503), (200, "not json"), (200, {"choices": []})])
def test_complete_retries_what_may_help(provider: Provider, make: Make, bad: tuple[int, Any]) -> None:
    provider.script = [bad, bad, completion("at last")]
    client, sleeps = make(retries=2, backoff_s=1.0)
    assert client.complete(HELLO).text == "at last"
    assert len(sleeps) == 2
    assert 0.5 <= sleeps[0] <= 1.0 <= sleeps[1] <= 2.0
    assert client.budget.requests == 3


def test_complete_backoff_is_the_same_for_the_same_seed_and_request(provider: Provider, make: Make) -> None:
    runs: list[list[float]] = []
    for seed in (1, 1, 2):
        provider.script = [failure(500), failure(500), completion()]
        client, sleeps = make(seed=seed)
        client.complete(HELLO)
        runs.append(sleeps)
    assert runs[0] == runs[1] != runs[2]


def test_complete_waits_as_long_as_the_provider_says(provider: Provider, make: Make) -> None:
    provider.script = [failure(429), completion()]
    provider.headers = {"Retry-After": "7"}
    client, sleeps = make()
    client.complete(HELLO)
    assert sleeps == [7.0]


def test_complete_gives_up_after_the_retries(provider: Provider, make: Make) -> None:
    provider.script = [failure(500, "overloaded")] * 3
    client, _ = make(retries=2)
    with pytest.raises(ChatError, match=r"HTTP 500: .*overloaded.*tried 3 times") as caught:
        client.complete(HELLO)
    assert caught.value.retryable
    assert provider.url in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (failure(401, "who are you"), "check the API key"),
        (failure(404, "no such model"), "check base_url and model"),
        (failure(400, "bad tools"), "bad tools"),
        (failure(429, "pay first", "insufficient_quota"), "pay first"),
    ],
)
def test_complete_does_not_retry_what_cannot_help(
    provider: Provider, make: Make, answer: tuple[int, Any], text: str
) -> None:
    provider.script = [answer]
    client, sleeps = make()
    with pytest.raises(ChatError, match=text) as caught:
        client.complete(HELLO)
    assert not caught.value.retryable
    assert sleeps == []


def test_complete_takes_a_full_context_as_the_models_own_limit(provider: Provider, make: Make) -> None:
    provider.script = [failure(400, "too long", "context_length_exceeded")]
    client, _ = make()
    assert client.complete(HELLO).finish == "context_length"


def test_complete_retries_a_refused_connection(make: Make) -> None:
    client, sleeps = make(base_url="http://127.0.0.1:1/v1", retries=1)
    with pytest.raises(ChatError, match=r"no connection.*tried 2 times") as caught:
        client.complete(HELLO)
    assert caught.value.retryable
    assert len(sleeps) == 1


def test_complete_times_out(provider: Provider, make: Make) -> None:
    release = threading.Event()

    def slow(body: dict[str, Any]) -> tuple[int, Any]:
        release.wait(5)
        return completion()

    provider.script = slow
    client, _ = make(timeout_s=0.1, retries=0)
    with pytest.raises(ChatError, match="no connection") as caught:
        client.complete(HELLO)
    release.set()
    assert caught.value.retryable


def test_complete_without_key_says_what_to_set(provider: Provider, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    client, _ = make(api_key=None)
    with pytest.raises(ChatError, match="OPENAI_API_KEY"):
        client.complete(HELLO)


def test_complete_takes_endpoint_and_key_from_the_environment(
    provider: Provider, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    provider.script = [completion()]
    client, _ = make(api_key=None, base_url=None)
    assert client.complete(HELLO).text == "hi"
    assert provider.keys == ["Bearer from-environment"]


def test_budget_of_requests_counts_retries(provider: Provider, make: Make) -> None:
    provider.script = [failure(500), completion(), completion()]
    client, _ = make(memory={"budget": ChatBudget(max_requests=2)})
    client.complete(HELLO)
    with pytest.raises(ChatError, match="2 requests is spent") as caught:
        client.complete(HELLO)
    assert not caught.value.retryable
    assert len(provider.bodies) == 2


def test_budget_of_tokens_stops_the_next_request(provider: Provider, make: Make) -> None:
    provider.script = [completion(), completion(), completion()]
    client, _ = make(memory={"budget": ChatBudget(max_tokens=10)})
    client.complete(HELLO)
    client.complete(HELLO)
    assert client.budget.tokens == 14
    with pytest.raises(ChatError, match="10 tokens is spent"):
        client.complete(HELLO)


def test_budget_of_tokens_needs_a_provider_that_tells(provider: Provider, make: Make) -> None:
    provider.script = [(200, {"choices": [{"message": {"content": "x"}}]})]
    client, _ = make(memory={"budget": ChatBudget(max_tokens=10)})
    with pytest.raises(ChatError, match="use max_requests"):
        client.complete(HELLO)


def test_cache_answers_again_without_the_provider_and_never_holds_the_key(
    provider: Provider, make: Make, tmp_path: Path
) -> None:
    provider.script = [completion("first", reasoning="hm")]
    first = make(memory={"cache": DiskCache(tmp_path / "cache")})[0].complete(HELLO)
    client, _ = make(memory={"cache": DiskCache(tmp_path / "cache")})
    assert client.complete(HELLO) == first
    assert client.budget.requests == 0
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.name for path in files] == [f"{client.key(HELLO)}.json"]
    assert "secret" not in files[0].read_text()


def test_cache_separates_samples_options_and_tools(provider: Provider, make: Make) -> None:
    client, _ = make()
    other, _ = make(temperature=1.0)
    keys = [
        client.key(HELLO),
        client.key(ChatRequest(messages=HELLO.messages, sample=1)),
        client.key(ChatRequest(messages=HELLO.messages, tools=({"type": "function"},))),
        other.key(HELLO),
    ]
    assert len(set(keys)) == 4
    assert make()[0].key(HELLO) == keys[0]


def test_cache_tells_of_a_damaged_file(provider: Provider, make: Make, tmp_path: Path) -> None:
    client, _ = make(memory={"cache": DiskCache(tmp_path)})
    path = tmp_path / client.key(HELLO)[:2] / f"{client.key(HELLO)}.json"
    path.parent.mkdir()
    path.write_text('{"reply": {"text": 3}}')
    with pytest.raises(ChatError, match=r"damaged chat cache file .* delete it"):
        client.complete(HELLO)


def test_cassette_records_then_replays_without_network_or_key(
    provider: Provider, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chat.jsonl"
    provider.script = [completion("one"), completion("two")]
    recorder, _ = make(memory={"cassette": Cassette(path, replay=False)})
    second = ChatRequest(messages=({"role": "user", "content": "bye"},))
    recorded = [recorder.complete(HELLO), recorder.complete(second), recorder.complete(HELLO)]
    assert len(provider.bodies) == 2
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    player, _ = make(api_key=None, base_url=None, memory={"cassette": Cassette(path, replay=True)})
    assert [player.complete(HELLO), player.complete(second), player.complete(HELLO)] == recorded


def test_cassette_miss_names_the_hash(provider: Provider, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.touch()
    player, _ = make(memory={"cassette": Cassette(path, replay=True)})
    with pytest.raises(ChatError, match=player.key(HELLO)):
        player.complete(HELLO)
    assert provider.bodies == []


@pytest.mark.parametrize("line", ["{", '{"key": "a"}', '{"key": "a", "reply": {"text": "x", "odd": 1}}', "[]"])
def test_cassette_tells_of_a_damaged_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ChatError, match=r"damaged cassette .* line 1"):
        Cassette(path, replay=True)


def test_cassette_to_replay_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="record one first"):
        Cassette(tmp_path / "none.jsonl", replay=True)


def test_memory_on_a_bad_path_says_which(provider: Provider, make: Make, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ChatError, match=r"cannot make the chat cache folder .*file/inside"):
        DiskCache(file / "inside")
    with pytest.raises(ChatError, match="cannot read the cassette"):
        Cassette(tmp_path, replay=True)
    provider.script = [completion(), completion()]
    client, _ = make(memory={"cassette": Cassette(file / "inside", replay=False)})
    with pytest.raises(ChatError, match="cannot write the cassette"):
        client.complete(HELLO)
    client, _ = make(memory={"cache": DiskCache(tmp_path / "cache")})
    (tmp_path / "cache" / client.key(HELLO)[:2]).write_text("")
    with pytest.raises(ChatError, match="chat cache file"):
        client.complete(HELLO)


def test_complete_many_runs_together_and_keeps_order(provider: Provider, make: Make) -> None:
    together = threading.Barrier(4)

    def script(body: dict[str, Any]) -> tuple[int, Any]:
        together.wait(5)  # breaks unless four requests are here at the same time
        return completion(body["messages"][0]["content"].upper())

    provider.script = script
    client, _ = make(concurrency=4, retries=0)
    requests = [ChatRequest(messages=({"role": "user", "content": word},)) for word in "abcd"]
    replies = client.complete_many(requests)
    assert [reply.text for reply in replies if isinstance(reply, ChatReply)] == list("ABCD")


def test_complete_many_returns_errors_beside_replies(provider: Provider, make: Make) -> None:
    provider.script = lambda body: failure(400, "no") if body["messages"][0]["content"] == "b" else completion()
    client, _ = make()
    requests = [ChatRequest(messages=({"role": "user", "content": word},)) for word in ("a", "b", "c")]
    replies = client.complete_many(requests)
    assert [type(reply) for reply in replies] == [ChatReply, ChatError, ChatReply]


def test_options_hide_the_key() -> None:
    assert "secret" not in repr(ChatOptions(model="m", api_key="secret"))


@pytest.mark.parametrize("values", [{"concurrency": 0}, {"retries": -1}])
def test_client_refuses_impossible_counts(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        ChatClient(ChatOptions(model="m", **values))  # type: ignore[arg-type]


@given(
    reply=st.builds(
        ChatReply,
        text=st.text(),
        calls=st.lists(st.builds(ChatCall, id=st.text(), name=st.text(), arguments=st.text())).map(tuple),
        thinking=st.none() | st.text(),
        thinking_key=st.none() | st.just("reasoning"),
        finish=st.sampled_from(["stop", "length"]),
        prompt_tokens=st.none() | st.integers(0),
        completion_tokens=st.none() | st.integers(0),
    )
)
def test_reply_round_trip(reply: ChatReply) -> None:
    assert ChatReply.from_data(json.loads(json.dumps(reply.to_data()))) == reply
