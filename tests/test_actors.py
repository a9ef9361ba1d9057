"""Every actor, on the tiny shop in the real jail; the chat actor on scripted replies and on a server of this machine."""

from __future__ import annotations

import json
import pickle
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.actors import (
    AblatedActor,
    ChatActor,
    ConstantActor,
    HumanActor,
    NoisyActor,
    OracleActor,
    RandomActor,
    actor_factory,
    actor_names,
    command_to_action,
    echo_value,
    random_value,
    zero_value,
)
from envsynth.actors.chat_actor import find_action
from envsynth.chat import ChatCall, ChatClient, ChatOptions, ChatReply, ChatRequest
from envsynth.errors import ChatError, SandboxError, SpecError
from envsynth.rollout import Episode, play
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import StopReason, Trajectory
from envsynth.verifiers import schema_problem

Tasks = Callable[..., TaskVersion]

# ---------------------------------------------------------------------------------------------------------- solutions


def test_oracle_solves_every_sound_task(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion
) -> None:
    tasks = {task.hash: task for task in (value_task, restock_task)}
    actor = OracleActor(tasks, jail)
    played = [play(shop, task, actor, jail=jail) for task in tasks.values()]
    actor.close()
    assert [item.reward for item in played] == [1.0, 1.0]
    assert [item.n_calls for item in played] == [3, 2]
    assert played[0].turns[2].error == "bad_page"  # the solution caught it as CallError and went on
    assert played[0].actor == "oracle"


def test_oracle_interleaves_slots(jail: Jail, value_task: TaskVersion) -> None:
    actor = OracleActor({value_task.hash: value_task}, jail)
    for slot in (0, 1):
        actor.start(slot, Episode(environment="", task=value_task.hash, seed=0, prompt="", tools=(), answer_schema={}))
    item = {"qty": 1, "price": 1}
    actor.act([0, 1], ["", ""])
    pages = [json.dumps({"result": {"items": [item] * n, "pages": 1}}) for n in (3, 8)]
    actor.act([0], [pages[0]])
    actor.act([1], [pages[1]])
    error = '{"error":{"code":"bad_page"}}'
    assert [json.loads(move.text) for move in actor.act([1, 0], [error, error])] == [
        {"answer": {"value": 8}},
        {"answer": {"value": 3}},
    ]
    actor.close()


@pytest.mark.parametrize(
    ("solution", "reason"),
    [
        ("def solve(call): return 1 / 0", "the solution failed: tool_error: ZeroDivisionError"),
        ("def solve(call): return 774", "the solution returned int, not an object"),
        ("def solve(call): call('list_items', page=7)", "CallError"),
        ("def solve(call) return {}", "the solution does not load"),
        ("", "NameError"),
        ("def solve(call): return {'value': open('/etc/hostname').read()}", "policy_violation"),
    ],
)
def test_oracle_with_a_bad_solution_stops_and_fails(
    jail: Jail, shop: EnvironmentSpec, task_factory: Tasks, solution: str, reason: str
) -> None:
    task = task_factory(shop, solution=solution)
    actor = OracleActor({task.hash: task}, jail)
    trajectory = play(shop, task, actor, jail=jail)
    actor.close()
    assert (trajectory.stop, trajectory.reward) == (StopReason.ACTOR_STOPPED, 0.0)
    assert reason in trajectory.verdict.checks[0].reason


def test_oracle_without_a_sandbox_is_void(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    closed = Jail()
    closed.close()
    actor = OracleActor({value_task.hash: value_task}, closed)
    trajectory = play(shop, value_task, actor, jail=jail)
    assert (trajectory.stop, trajectory.reward) == (StopReason.VOID, None)
    assert "no solution worker" in (trajectory.verdict.failure or "")


def test_oracle_with_a_dead_worker_is_void(jail: Jail, value_task: TaskVersion) -> None:
    actor = OracleActor({value_task.hash: value_task}, jail)
    actor.start(0, Episode(environment="", task=value_task.hash, seed=0, prompt="", tools=(), answer_schema={}))
    actor.act([0], [""])
    worker = actor._plays[0].worker
    assert worker is not None
    worker.close()
    with pytest.raises(SandboxError):
        worker.reply(1)
    (move,) = actor.act([0], ['{"result":1}'])
    assert (move.stop, move.void) == (True, True)
    actor.close()


def test_oracle_needs_the_task(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    with pytest.raises(SpecError, match="was not given task"):
        play(shop, value_task, OracleActor({}, jail), jail=jail)


def test_ablated_lacks_one_skill_and_keeps_the_rest(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion
) -> None:
    actor = AblatedActor({task.hash: task for task in (value_task, restock_task)}, "no_pagination", jail)
    lame = play(shop, value_task, actor, jail=jail)
    assert (lame.actor, lame.reward, lame.n_calls) == ("ablated:no_pagination", 0.0, 2)
    assert lame.answer == {"value": 5 * 31 + 9 * 17}
    assert play(shop, restock_task, actor, jail=jail).reward == 1.0  # does not call for that skill
    actor.close()


def test_noisy_errs_more_often_the_larger_its_share(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion
) -> None:
    tasks = {task.hash: task for task in (value_task, restock_task)}

    def passes(share: str) -> float:
        actor = NoisyActor(tasks, share, jail)
        found = [play(shop, task, actor, seed=seed, jail=jail) for task in tasks.values() for seed in range(12)]
        actor.close()
        assert {item.actor for item in found} == {f"noisy:{share}"}
        return sum(item.reward or 0.0 for item in found)

    none, some, all_ = passes("0"), passes("0.3"), passes("1")
    assert none == 24 > some > all_
    assert some > 3


def test_noisy_plays_equal_episodes_for_equal_seeds(
    jail: Jail, shop: EnvironmentSpec, restock_task: TaskVersion
) -> None:
    def episodes(share: str) -> list[list[str]]:
        actor = NoisyActor({restock_task.hash: restock_task}, share, jail)
        # Another seed between two: what was played before does not matter.
        found = [play(shop, restock_task, actor, seed=seed, jail=jail) for seed in (3, 9, 4)]
        actor.close()
        return [[turn.action for turn in item.turns] for item in (found[0], found[2])]

    actor = NoisyActor({restock_task.hash: restock_task}, "0.6", jail)
    alone = [[turn.action for turn in play(shop, restock_task, actor, seed=seed, jail=jail).turns] for seed in (4, 3)]
    actor.close()
    assert episodes("0.6") == alone[::-1]
    assert episodes("0.6") != episodes("0.0")


def test_the_mistakes_of_noisy_are_plausible(jail: Jail, shop: EnvironmentSpec, restock_task: TaskVersion) -> None:
    """Each call has the type that its tool asks for, and both kinds of mistakes happen."""
    actor = NoisyActor({restock_task.hash: restock_task}, "0.5", jail)
    played = [play(shop, restock_task, actor, seed=seed, jail=jail) for seed in range(40)]
    actor.close()
    calls = [turn.call for item in played for turn in item.turns if turn.call is not None]
    values = [value for call in calls for value in call.arguments.values()]
    assert all(type(value) is int for value in values)
    written = {tuple(call.arguments.items()) for call in calls if call.tool == "set_qty"}
    assert (("item_id", 2), ("qty", 42)) in written
    assert len(written) > 1
    # A reply whose rows were overlooked looks whole in the record: the world did its part.
    missed = [item for item in played if not any(turn.call and turn.call.tool == "set_qty" for turn in item.turns)]
    assert any(turn.error is None and '"nut"' in turn.observation for item in missed for turn in item.turns)


# ------------------------------------------------------------------------------------------------- those who must fail


@pytest.mark.parametrize(
    ("name", "options", "answer"),
    [
        ("idle", {}, {}),
        ("empty", {}, {"value": 0}),
        ("echo", {}, {"value": 2025}),
        ("constant", {"answer": {"value": 12}}, {"value": 12}),
    ],
)
def test_actors_without_calls_score_zero(
    jail: Jail,
    shop: EnvironmentSpec,
    value_task: TaskVersion,
    restock_task: TaskVersion,
    name: str,
    options: dict[str, Any],
    answer: dict[str, Any],
) -> None:
    factory = actor_factory(name, [value_task], **options)
    played = [play(shop, task, factory(), jail=jail) for task in (value_task, restock_task)]
    assert [(item.reward, item.n_calls, item.actor) for item in played] == [(0.0, 0, name)] * 2
    assert played[0].answer == answer


def test_random_scores_zero_but_reaches_into_the_world(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion
) -> None:
    actor = RandomActor(1, max_calls=5)
    tasks = (value_task, restock_task)
    played = [play(shop, task, actor, seed, jail) for task in tasks for seed in range(15)]
    assert {item.reward for item in played} == {0.0}
    calls = [turn for item in played for turn in item.turns if turn.call is not None]
    assert {turn.error for turn in calls} >= {None, "not_found", "bad_page"}
    assert "invalid" not in {turn.error for turn in calls}  # arguments have the right types
    assert len({item.final_state for item in played}) > 1


def test_random_depends_on_seed_task_and_episode_only(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    def actions(seed: int, episode: int) -> list[str]:
        return [turn.action for turn in play(shop, value_task, RandomActor(seed), episode, jail).turns]

    assert actions(1, 2) == actions(1, 2)
    assert len({tuple(actions(seed, episode)) for seed in range(3) for episode in range(3)}) > 6


# --------------------------------------------------------------------------------------------------------------- values

SCALARS = st.one_of(
    st.just({"type": "string"}),
    st.just({"type": "string", "minLength": 2, "maxLength": 5}),
    st.just({"type": "string", "pattern": r"^\d\d\d\d-\d\d-\d\d$"}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["integer", "null"]}),
    st.just({"const": "fixed"}),
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.tuples(st.integers(-50, 50), st.integers(0, 50)).map(
        lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[0] + pair[1]}
    ),
    st.integers(-50, 50).map(lambda low: {"type": "number", "exclusiveMinimum": low}),
    st.integers(-50, 50).map(lambda high: {"type": "integer", "maximum": high}),
)


def containers(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def as_object(properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": sorted(properties)[::2],
            "additionalProperties": False,
        }

    return st.one_of(
        st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).map(as_object),
        st.tuples(inner, st.integers(0, 3)).map(
            lambda pair: {"type": "array", "items": pair[0], "minItems": pair[1], "maxItems": pair[1] + 2}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
    )


SCHEMAS = st.recursive(SCALARS, containers, max_leaves=6)


@given(schema=SCHEMAS, seed=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_values_fit_their_schema(schema: dict[str, Any], seed: int) -> None:
    seen = {"a": ["nut", 7, True], "b": [None, 3.5, "2025-01-01"]}
    assert schema_problem(schema, zero_value(schema)) is None
    assert schema_problem(schema, echo_value(schema, "Buy 12 nuts")) is None
    value = random_value(schema, random.Random(seed), seen)
    assert schema_problem(schema, value) is None
    assert value == random_value(schema, random.Random(seed), seen)


def test_values_follow_references_and_do_not_loop() -> None:
    schema: dict[str, Any] = {
        "$defs": {"id": {"type": "integer", "minimum": 5}},
        "type": "object",
        "properties": {"id": {"$ref": "#/$defs/id"}},
        "required": ["id"],
    }
    assert zero_value(schema) == {"id": 5}
    endless: dict[str, Any] = {"type": "array", "items": {"$ref": "#"}, "minItems": 1}
    assert zero_value(endless)


def test_random_values_repeat_what_was_seen() -> None:
    schema = {"type": "integer"}
    drawn = {
        random_value(
            {"type": "object", "properties": {"id": schema}, "required": ["id"]}, random.Random(i), {"id": [777]}
        )["id"]  # type: ignore[index,call-overload]
        for i in range(40)
    }
    assert 777 in drawn
    assert len(drawn) > 3


# ---------------------------------------------------------------------------------------------------------------- human


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ('{"tool": "x"}', '{"tool": "x"}'),
        ("list_items page=2", '{"tool":"list_items","arguments":{"page":2}}'),
        ("find name='big nut' exact=true", '{"tool":"find","arguments":{"name":"big nut","exact":true}}'),
        ("answer value=7 note=none", '{"answer":{"value":7,"note":"none"}}'),
        ("list_items", '{"tool":"list_items","arguments":{}}'),
        ("set x=NaN", '{"tool":"set","arguments":{"x":"NaN"}}'),
        ("what now", "what now"),
        ("open 'quote", "open 'quote"),
    ],
)
def test_command_to_action(line: str, action: str) -> None:
    assert command_to_action(line) == action


def test_human_plays_with_lines(jail: Jail, shop: EnvironmentSpec, restock_task: TaskVersion) -> None:
    lines = iter(["", "list_items page=1", "set_qty item_id=2 qty=42", "answer item_id=2 before=9"])
    shown: list[str] = []
    prompts: list[str] = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        return next(lines)

    trajectory = play(shop, restock_task, HumanActor(ask, shown.append), jail=jail)
    assert prompts == ["your turn>"] * 4
    assert (trajectory.reward, trajectory.actor) == (1.0, "human")
    assert shown[1] == trajectory.prompt
    assert "quit" in shown[0]
    assert shown[2:] == [turn.observation for turn in trajectory.turns[:-1]]


@pytest.mark.parametrize("leaving", ["quit", EOFError()])
def test_human_who_leaves_fails(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, leaving: str | EOFError
) -> None:
    def ask(prompt: str) -> str:
        if isinstance(leaving, EOFError):
            raise leaving
        return leaving

    trajectory = play(shop, value_task, HumanActor(ask, lambda text: None), jail=jail)
    assert (trajectory.stop, trajectory.reward) == (StopReason.ACTOR_STOPPED, 0.0)


# ----------------------------------------------------------------------------------------------------------------- chat


class ScriptedClient(ChatClient):
    """Replies from a list, and remembers the requests."""

    def __init__(self, *replies: ChatReply | ChatError) -> None:
        super().__init__(ChatOptions(model="m"))
        self.replies = list(replies)
        self.requests: list[ChatRequest] = []

    def complete_many(self, requests: Sequence[ChatRequest]) -> list[ChatReply | ChatError]:
        self.requests += requests
        return [self.replies.pop(0) for _ in requests]


def calling(*calls: tuple[str, str], **fields: Any) -> ChatReply:
    found = tuple(ChatCall(id=f"c{i}", name=name, arguments=text) for i, (name, text) in enumerate(calls))
    return ChatReply(calls=found, **fields)


def test_chat_plays_by_tool_calls_and_keeps_thinking(
    jail: Jail, shop: EnvironmentSpec, restock_task: TaskVersion
) -> None:
    client = ScriptedClient(
        calling(
            ("list_items", '{"page": 1}'),
            ("set_qty", '{"item_id": 2, "qty": 42}'),
            thinking="look first",
            thinking_key="reasoning_content",
        ),
        calling(("submit_answer", '{"item_id": 2, "before": 9}')),
    )
    trajectory = play(shop, restock_task, ChatActor(client), seed=4, jail=jail)
    assert (trajectory.reward, trajectory.actor, trajectory.n_calls) == (1.0, "chat:m", 2)
    assert [turn.thinking for turn in trajectory.turns] == ["look first", None, None]
    assert trajectory.turns[0].action == '{"tool":"list_items","arguments":{"page": 1}}'
    first, second = client.requests
    assert [tool["function"]["name"] for tool in first.tools] == ["list_items", "set_qty", "submit_answer"]  # type: ignore[index,call-overload]
    assert first.sample == 4
    roles = [message["role"] for message in second.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool"]
    assert second.messages[2]["reasoning_content"] == "look first"
    assert [message["content"] for message in second.messages[3:]] == [
        turn.observation for turn in trajectory.turns[:2]
    ]
    assert [message["tool_call_id"] for message in second.messages[3:]] == ["c0", "c1"]


def test_chat_can_leave_thinking_out(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    client = ScriptedClient(
        calling(("list_items", "{}"), thinking="hm", thinking_key="reasoning"),
        calling(("submit_answer", '{"value": 774}')),
    )
    trajectory = play(shop, value_task, ChatActor(client, keep_thinking=False), jail=jail)
    assert trajectory.turns[0].thinking == "hm"
    assert "reasoning" not in client.requests[1].messages[2]
    assert trajectory.reward == 1.0


def test_chat_plays_by_text(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    client = ScriptedClient(
        ChatReply(text='I look.\n```json\n{"tool": "list_items", "arguments": {"page": 1}}\n```'),
        ChatReply(text="now what?"),
        ChatReply(text='{"answer": {"value": 774}}'),
    )
    trajectory = play(shop, value_task, ChatActor(client, mode="text"), jail=jail)
    assert [turn.error for turn in trajectory.turns] == [None, "malformed", None]
    assert [turn.action for turn in trajectory.turns][1:] == ["now what?", '{"answer": {"value": 774}}']
    assert trajectory.reward == 1.0
    assert client.requests[0].tools == ()
    assert [message["role"] for message in client.requests[2].messages] == ["user", "assistant"] * 2 + ["user"]


def test_chat_with_broken_arguments_gets_an_error_observation(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    client = ScriptedClient(
        calling(("list_items", '{"page": 1')),
        calling(("no_such_tool", "{}")),
        calling(("submit_answer", "774")),
        calling(("submit_answer", '{"value": 774}')),
    )
    trajectory = play(shop, value_task, ChatActor(client), jail=jail)
    assert [turn.error for turn in trajectory.turns] == ["malformed", "unknown_tool", "malformed", None]
    assert trajectory.reward == 1.0


def test_chat_of_a_failing_provider_is_void_and_of_a_model_limit_is_not(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    failing = ScriptedClient(*[ChatError("HTTP 500", retryable=True)] * 2)
    trajectory = play(shop, value_task, ChatActor(failing), jail=jail)
    assert (trajectory.stop, trajectory.reward) == (StopReason.VOID, None)
    assert "HTTP 500" in (trajectory.verdict.failure or "")
    for finish in ("length", "content_filter", "context_length"):
        full = ScriptedClient(ChatReply(finish=finish))
        trajectory = play(shop, value_task, ChatActor(full), jail=jail)
        assert (trajectory.stop, trajectory.reward) == (StopReason.ACTOR_STOPPED, 0.0)


def test_chat_finds_another_name_when_a_tool_is_called_like_the_answer(
    jail: Jail, shop_factory: Callable[..., EnvironmentSpec], task_factory: Tasks
) -> None:
    tool = (
        shop_factory()
        .tools[0]
        .model_copy(update={"name": "submit_answer", "source": "def submit_answer(db, page=1):\n    return page\n"})
    )
    spec = shop_factory(tools=(tool,))
    client = ScriptedClient(calling(("submit_answer", "{}")), calling(("submit_answer_", '{"value": 774}')))
    trajectory = play(spec, task_factory(spec), ChatActor(client), jail=jail)
    assert (trajectory.reward, trajectory.n_calls) == (1.0, 1)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ('{"answer": {}}', '{"answer": {}}'),
        ('first {"tool": "a"} then {"tool": "b"}', '{"tool": "b"}'),
        ('{"note": {"tool": "inner"}}', '{"tool": "inner"}'),
        ('{"answer": {"tool": 1}}', '{"answer": {"tool": 1}}'),
        ("no action", "no action"),
        ("{broken", "{broken"),
        ("", ""),
    ],
)
def test_find_action(text: str, action: str) -> None:
    assert find_action(text) == action


@given(text=st.text(alphabet='{}[]":,ab tolanswer\\', max_size=60))
def test_find_action_is_part_of_the_text(text: str) -> None:
    assert find_action(text) in text


@pytest.fixture
def model_url() -> Iterator[str]:
    """A model that looks at page 1, then answers right: a server that speaks chat completions."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            done = body["messages"][-1]["role"] == "tool"
            function = (
                {"name": "submit_answer", "arguments": '{"value": 774}'}
                if done
                else {"name": "list_items", "arguments": '{"page": 1}'}
            )
            call = {"id": "c", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            data = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def test_chat_by_name_plays_a_server_and_its_cassette_plays_offline(
    jail: Jail,
    shop: EnvironmentSpec,
    value_task: TaskVersion,
    model_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(**options: Any) -> Trajectory:
        actor = actor_factory("chat:tiny", **options)()
        trajectory = play(shop, value_task, actor, jail=jail)
        actor.close()
        return trajectory

    cassette = str(tmp_path / "tiny.jsonl")
    live = run(base_url=model_url, api_key="any", cassette=cassette, retries=0)
    assert (live.reward, live.actor, live.n_calls) == (1.0, "chat:tiny", 1)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert run(cassette=cassette, replay=True) == live
    missed = run(cassette=cassette, replay=True, temperature=0.3)
    assert "holds no reply" in (missed.verdict.failure or "")
    assert missed.void


# -------------------------------------------------------------------------------------------------------------- factory


def test_factory_crosses_processes_and_names_its_actors(value_task: TaskVersion) -> None:
    for name in ("oracle", "idle", "empty", "echo", "random", "ablated:first_match", "chat:some/model:1"):
        factory = pickle.loads(pickle.dumps(actor_factory(name, [value_task])))
        assert factory.name == factory().name == name


def test_factory_gives_private_tasks_only_to_those_who_play_solutions(value_task: TaskVersion) -> None:
    assert actor_factory("oracle", [value_task]).tasks == {value_task.hash: value_task}
    assert actor_factory("ablated:x", {value_task.hash: value_task}).tasks == {value_task.hash: value_task}
    assert not actor_factory("random", [value_task]).tasks
    assert not actor_factory("chat:m", [value_task]).tasks


def test_factory_hides_keys() -> None:
    assert "secret" not in repr(actor_factory("chat:m", api_key="secret"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wizard", {}, "no actor is called 'wizard': use one of oracle"),
        ("ablated", {}, "no actor is called 'ablated'"),
        ("idle:x", {}, "no actor is called 'idle:x'"),
        ("idle", {"seed": 1}, "has no option 'seed': it has none"),
        ("random", {"sed": 1}, "has no option 'sed': it has seed, max_calls"),
        ("constant", {}, "needs the option 'answer'"),
        ("noisy", {}, "no actor is called 'noisy'"),
        ("noisy:2", {}, "from 0 to 1, got '2'"),
        ("noisy:nan", {}, "from 0 to 1, got 'nan'"),
        ("noisy:much", {}, "from 0 to 1, got 'much'"),
        ("human", {"ask": input}, "needs the option 'tell'"),
    ],
)
def test_factory_refuses_with_help(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        actor_factory(name, **options)


def test_actor_names_lists_all() -> None:
    assert actor_names() == [
        "oracle",
        "idle",
        "empty",
        "echo",
        "constant",
        "random",
        "human",
        "ablated:SKILL",
        "noisy:SHARE",
        "chat:MODEL",
    ]


def test_constant_is_the_same_in_every_task(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    assert play(shop, value_task, ConstantActor({"value": 774}), jail=jail).reward == 1.0


def test_random_refuses_negative_calls() -> None:
    with pytest.raises(ValueError, match="max_calls"):
        RandomActor(0, -1)
