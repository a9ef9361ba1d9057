"""The episode loop, on real environments in the jail and on scripted ones where something must break."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from envsynth.actors import OracleActor, RandomActor, SlotActor, answer_move, call_move
from envsynth.environments import ToolEnv, make_env
from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.rollout import (
    Episode,
    EpisodeRequest,
    Move,
    Stage,
    groups,
    play,
    rollout,
)
from envsynth.sandbox import Jail
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import StopReason, Trajectory

LIST_FIRST = call_move("list_items", {"page": 1})
RIGHT = answer_move({"value": 774})


class Script(SlotActor):
    """Plays given moves; remembers everything that it saw."""

    def __init__(self, *moves: Move) -> None:
        super().__init__("script")
        self.moves = moves
        self.at: dict[int, int] = {}
        self.begun: list[tuple[int, Episode]] = []
        self.seen: list[str] = []

    def begin(self, slot: int, episode: Episode) -> None:
        self.at[slot] = 0
        self.begun.append((slot, episode))

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        self.seen.append(observation)
        self.at[slot] += 1
        return self.moves[self.at[slot] - 1]


class Faulty(ToolEnv):
    """Fails at the first resets, or at the first answers."""

    def __init__(self, *args: Any, bad_resets: int = 0, bad_answers: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.bad_resets, self.bad_answers, self.resets = bad_resets, bad_answers, 0

    def reset(self, **options: Any) -> tuple[str, dict[str, Any]]:
        self.resets += 1
        if self.bad_resets:
            self.bad_resets -= 1
            raise EnvironmentVoid("the disk is gone")
        return super().reset(**options)

    def step(self, action: str) -> Any:
        found = super().step(action)
        if found[2] and self.bad_answers:
            self.bad_answers -= 1
            return (*found[:2], False, True, {"void": "the verifier is gone"})
        return found


def test_play_records_exactly_what_the_actor_said_and_saw(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    spaced = Move('{ "tool": "list_items", "arguments": {"page": 9} }', "why not", (1, 2, 3), (-0.5, -0.25, 0.0))
    actor = Script(LIST_FIRST, spaced, Move("no json"), RIGHT)
    trajectory = play(shop, value_task, actor, seed=3, jail=jail)
    assert [trajectory.prompt, *(turn.observation for turn in trajectory.turns[:-1])] == actor.seen
    assert [turn.action for turn in trajectory.turns] == [move.text for move in actor.moves]
    assert [turn.error for turn in trajectory.turns] == [None, "bad_page", "malformed", None]
    assert [None if turn.call is None else turn.call.arguments for turn in trajectory.turns] == [
        {"page": 1},
        {"page": 9},
        None,
        None,
    ]
    second = trajectory.turns[1]
    assert (second.thinking, second.action_tokens, second.action_logprobs) == (
        "why not",
        (1, 2, 3),
        (-0.5, -0.25, 0.0),
    )
    assert json.loads(trajectory.turns[0].observation)["result"]["items"][1]["name"] == "nut"
    assert (trajectory.environment, trajectory.task, trajectory.seed) == (shop.hash, value_task.hash, 3)
    assert (trajectory.actor, trajectory.n_calls, trajectory.answer) == ("script", 2, {"value": 774})
    assert (trajectory.stop, trajectory.reward) == (StopReason.ANSWERED, 1.0)
    assert Trajectory.from_json(trajectory.to_json()) == trajectory


def test_play_tells_the_actor_the_public_half_only(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    actor = Script(RIGHT)
    play(shop, value_task, actor, jail=jail)
    (slot, episode) = actor.begun[0]
    assert slot == 0
    assert [tool["function"]["name"] for tool in episode.tools] == ["list_items", "set_qty"]  # type: ignore[index,call-overload]
    assert episode.answer_schema == value_task.answer_schema
    assert value_task.prompt in episode.prompt
    assert "774" not in repr(episode)


def test_play_of_a_wrong_answer_scores_zero_with_reasons(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    trajectory = play(shop, value_task, Script(answer_move({"value": 1})), jail=jail)
    assert (trajectory.stop, trajectory.reward) == (StopReason.ANSWERED, 0.0)
    assert trajectory.verdict.failed == ("value",)


def test_play_is_truncated_at_the_limit(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    trajectory = play(shop, value_task, Script(*[LIST_FIRST] * 6), jail=jail)
    assert (trajectory.stop, trajectory.reward, len(trajectory.turns)) == (StopReason.MAX_TURNS, 0.0, 6)
    short = play(shop, value_task, Script(LIST_FIRST, LIST_FIRST), jail=jail, max_turns=2)
    assert (short.stop, short.answer) == (StopReason.MAX_TURNS, None)


def test_play_of_an_actor_that_stops_fails(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    stop = Move("", stop=True, failure="out of ideas")
    trajectory = play(shop, value_task, Script(LIST_FIRST, stop), jail=jail)
    assert (trajectory.stop, trajectory.reward, len(trajectory.turns)) == (
        StopReason.ACTOR_STOPPED,
        0.0,
        1,
    )
    assert [(check.id, check.reason) for check in trajectory.verdict.checks] == [("actor.stopped", "out of ideas")]
    untouched = play(shop, value_task, Script(RIGHT), jail=jail)
    assert trajectory.final_state == untouched.final_state is not None


def test_play_final_state_tells_worlds_apart(jail: Jail, shop: EnvironmentSpec, restock_task: TaskVersion) -> None:
    wrong = call_move("set_qty", {"item_id": 2, "qty": 41})
    right = call_move("set_qty", {"item_id": 2, "qty": 42})
    answer = answer_move({"item_id": 2, "before": 9})
    played = [
        play(shop, restock_task, Script(*moves), jail=jail)
        for moves in ((wrong, answer), (right, answer), (right, answer), (answer,))
    ]
    assert [item.reward for item in played] == [0.0, 1.0, 1.0, 0.0]
    states = [item.final_state for item in played]
    assert states[1] == states[2]
    assert len(set(states)) == 3


def test_rollout_void_of_the_verifier_is_tried_again_then_recorded(
    jail: Jail, shop: EnvironmentSpec, broken_task: TaskVersion
) -> None:
    done: list[Trajectory] = []
    actor = Script(LIST_FIRST, RIGHT)
    env = make_env(shop, broken_task, jail=jail)
    (trajectory,) = rollout([env], actor, [EpisodeRequest(broken_task.hash)], done.append)
    env.close()
    assert (trajectory.stop, trajectory.reward, trajectory.void) == (StopReason.VOID, None, True)
    assert "ZeroDivisionError" in (trajectory.verdict.failure or "")
    assert len(trajectory.turns) == 2
    assert len(actor.begun) == 2
    assert done == [trajectory]


@pytest.mark.parametrize("fault", [{"bad_resets": 1}, {"bad_answers": 1}])
def test_rollout_void_that_passes_leaves_no_trace(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, fault: dict[str, int]
) -> None:
    env = Faulty(shop, [value_task], jail=jail, **fault)
    (trajectory,) = rollout([env], Script(RIGHT), [EpisodeRequest(value_task.hash)])
    env.close()
    assert (env.resets, trajectory.reward) == (2, 1.0)


@pytest.mark.parametrize(("retries", "resets"), [(0, 1), (2, 3)])
def test_rollout_void_of_reset_has_the_reason_and_no_turns(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, retries: int, resets: int
) -> None:
    env = Faulty(shop, [value_task], jail=jail, bad_resets=9)
    actor = Script(RIGHT)
    (trajectory,) = rollout([env], actor, [EpisodeRequest(value_task.hash, 5)], retries=retries)
    env.close()
    assert (env.resets, actor.begun) == (resets, [])
    assert (trajectory.stop, trajectory.reward) == (StopReason.VOID, None)
    assert trajectory.verdict.failure == "the disk is gone"
    assert (trajectory.environment, trajectory.seed, trajectory.turns) == (shop.hash, 5, ())


def test_rollout_of_a_world_that_cannot_be_built_is_void(
    jail: Jail, shop_factory: Callable[..., EnvironmentSpec], task_factory: Callable[..., TaskVersion]
) -> None:
    sound = shop_factory()
    table = sound.world.tables[0].model_copy(update={"checks": ("qty > 4",)})
    spec = shop_factory(world=sound.world.model_copy(update={"tables": (table,)}))
    trajectory = play(spec, task_factory(spec), Script(RIGHT), jail=jail)
    assert (trajectory.stop, trajectory.reward) == (StopReason.VOID, None)
    assert "items" in (trajectory.verdict.failure or "")


def test_rollout_of_an_actor_whose_provider_fails_is_void(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    stop = Move("", stop=True, failure="HTTP 500", void=True)
    trajectory = play(shop, value_task, Script(LIST_FIRST, stop), jail=jail)
    assert (trajectory.stop, trajectory.reward) == (StopReason.VOID, None)
    assert "HTTP 500" in (trajectory.verdict.failure or "")


def test_rollout_keeps_the_order_of_requests_over_slots(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion
) -> None:
    tasks = [value_task, restock_task]
    requests = [EpisodeRequest(tasks[i % 2].hash, i) for i in range(9)]
    done: list[int] = []
    envs = [make_env(shop, tasks, jail=jail) for _ in range(3)]
    actor = OracleActor({task.hash: task for task in tasks}, jail)
    played = rollout(envs, actor, requests, lambda item: done.append(item.seed))
    for env in envs:
        env.close()
    actor.close()
    assert [(item.task, item.seed) for item in played] == [(item.task, item.seed) for item in requests]
    assert [item.reward for item in played] == [1.0] * 9
    assert sorted(done) == list(range(9))
    assert done != sorted(done)  # the shorter task overtakes


def test_rollout_does_not_depend_on_the_number_of_slots(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, restock_task: TaskVersion
) -> None:
    requests = [EpisodeRequest(task.hash, seed) for task in (value_task, restock_task) for seed in range(6)]
    runs: list[list[Trajectory]] = []
    for slots in (1, 4):
        envs = [make_env(shop, [value_task, restock_task], jail=jail) for _ in range(slots)]
        runs.append(rollout(envs, RandomActor(7), requests))
        for env in envs:
            env.close()
    assert runs[0] == runs[1]
    assert len({item.hash for item in runs[0]}) == len(requests)


@pytest.mark.parametrize(
    "text",
    [
        '{"tool":"set_qty","arguments":{"item_id":1,"qty":1e999}}',
        '{"tool":"no_\\ud800_tool","arguments":{}}',
        '{"tool":"list_items","arguments":{"page":"\ud800"}}',
        '{"answer":{"value":1e999}}',
        '{"answer":{"value":"\\ud800"}}',
        "\udfff",
    ],
)
def test_rollout_records_hostile_actions_as_data(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion, text: str
) -> None:
    trajectory = play(shop, value_task, Script(Move(text), RIGHT), jail=jail)
    assert trajectory.reward in (0.0, 1.0)
    assert Trajectory.from_json(trajectory.to_json().encode()) == trajectory


def test_rollout_ctrl_c_delivers_what_was_finished(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    class Interrupted(Script):
        def act(self, slots: Sequence[int], observations: Sequence[str]) -> list[Move]:
            if len(self.begun) == 3:
                raise KeyboardInterrupt
            return super().act(slots, observations)

    done: list[Trajectory] = []
    with make_env(shop, value_task, jail=jail) as env, pytest.raises(KeyboardInterrupt):
        rollout([env], Interrupted(RIGHT), [EpisodeRequest(value_task.hash, i) for i in range(5)], done.append)
    assert [item.seed for item in done] == [0, 1]


def test_rollout_ctrl_c_during_delivery_delivers_again(
    jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion
) -> None:
    calls: list[int] = []

    def save(trajectory: Trajectory) -> None:
        calls.append(trajectory.seed)
        if calls == [0, 1]:
            raise KeyboardInterrupt

    with make_env(shop, value_task, jail=jail) as env, pytest.raises(KeyboardInterrupt):
        rollout([env], Script(RIGHT), [EpisodeRequest(value_task.hash, i) for i in range(5)], save)
    assert calls == [0, 1, 1]


def test_rollout_refuses_what_cannot_be_played(jail: Jail, shop: EnvironmentSpec, value_task: TaskVersion) -> None:
    class Silent(Script):
        def act(self, slots: Sequence[int], observations: Sequence[str]) -> list[Move]:
            return []

    request = EpisodeRequest(value_task.hash)
    assert rollout([], Script(), []) == []
    with pytest.raises(ValueError, match="needs an environment"):
        rollout([], Script(), [request])
    with make_env(shop, value_task, jail=jail) as env:
        with pytest.raises(ValueError, match="retries >= 0"):
            rollout([env], Script(), [request], retries=-1)
        with pytest.raises(ValueError, match="gave 0 moves for 1 slots"):
            rollout([env], Silent(), [request])
        with pytest.raises(SpecError, match="task hashes"):
            rollout([env], Script(), [EpisodeRequest("f" * 32)])


def test_stage_plays_tasks_of_several_environments(
    jail: Jail, shop_factory: Callable[..., EnvironmentSpec], task_factory: Callable[..., TaskVersion]
) -> None:
    specs = [shop_factory(f"shop-{i}") for i in range(3)]
    pairs = [(spec, task_factory(spec)) for spec in specs]
    actor = OracleActor({task.hash: task for _, task in pairs}, jail)
    stages = [Stage(pairs, jail=jail) for _ in range(2)]
    played = rollout(stages, actor, [EpisodeRequest(task.hash, i) for i in range(2) for _, task in pairs])
    assert [item.environment for item in played] == [spec.hash for spec in specs] * 2
    assert {item.reward for item in played} == {1.0}
    actor.close()
    for stage in stages:
        stage.close()
    with pytest.raises(EnvironmentVoid, match="no episode is running"):
        stages[0].step("{}")
    with pytest.raises(SpecError, match="on this stage"):
        stages[0].reset(seed=0, options={"task": "f" * 32})


def test_a_slot_prefers_the_world_that_it_holds(
    jail: Jail, shop_factory: Callable[..., EnvironmentSpec], task_factory: Callable[..., TaskVersion]
) -> None:
    specs = [shop_factory(f"shop-{i}") for i in range(2)]
    pairs = [(spec, task_factory(spec)) for spec in specs]
    asked: list[str] = []

    class Watched(Stage):
        def reset(self, **given: Any) -> tuple[str, dict[str, Any]]:
            asked.append(given["options"]["task"])
            return super().reset(**given)

    actor, stage = OracleActor({task.hash: task for _, task in pairs}, jail), Watched(pairs, jail=jail)
    requests = [EpisodeRequest(task.hash, i) for i in range(3) for _, task in pairs]
    played = rollout([stage], actor, requests)
    assert asked == [task.hash for _, task in pairs for _ in range(3)]
    assert [(item.task, item.seed) for item in played] == [(item.task, item.seed) for item in requests]
    actor.close()
    stage.close()


def test_groups_share_a_task_and_count_seeds(
    jail: Jail,
    shop: EnvironmentSpec,
    value_task: TaskVersion,
    broken_task: TaskVersion,
) -> None:
    stages = [Stage([(shop, value_task), (shop, broken_task)], jail=jail) for _ in range(2)]
    actor = Script(RIGHT)
    found = groups(stages, actor, [broken_task.hash, value_task.hash], 3, seed=10)
    assert [group.task for group in found] == [broken_task.hash, value_task.hash]
    assert [[item.seed for item in group.trajectories] for group in found] == [[10, 11, 12]] * 2
    assert [len(group.scored) for group in found] == [0, 3]
    with pytest.raises(ValueError, match="n=0"):
        groups(stages, actor, [value_task.hash], 0)
    for stage in stages:
        stage.close()
