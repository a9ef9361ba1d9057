"""Plays: what many ask of workers travels together, and each gets what is its own."""

from __future__ import annotations

import pytest

from envsynth.environments.plays import Errand, reset_of, run, run_all, step_of
from envsynth.errors import EnvironmentVoid
from envsynth.sandbox import Jail, Limits
from envsynth.sandbox.requests import call

SOURCE = "import os\n\ndef say(text):\n    return text\n\ndef leave():\n    os._exit(3)\n"


@pytest.fixture
def workers(jail: Jail):
    made = [jail.worker("tools") for _ in range(2)]
    for worker in made:
        worker.load(SOURCE)
    yield made
    for worker in made:
        worker.close()


def saying(worker, *rounds, limits=None):
    heard = []
    for texts in rounds:
        results = yield Errand(worker, [call("say", {"text": text}) for text in texts], limits)
        heard.append([result.value for result in results])
    return heard


def test_each_play_gets_its_own_results(workers) -> None:
    one, two = workers
    rounds = [(one, [["a", "b"], ["c"]]), (two, [["d"]]), (one, [["e"], ["f", "g", "h"]]), (one, [[]])]
    assert run_all([saying(worker, *texts) for worker, texts in rounds]) == [texts for _, texts in rounds]


def test_one_frame_for_all_errands_to_a_worker(workers, monkeypatch) -> None:
    posted = []
    monkeypatch.setattr(type(workers[0]), "post", counting(posted, type(workers[0]).post))
    run_all([saying(workers[number % 2], ["x"], ["y"]) for number in range(10)])
    assert sorted(posted) == [5, 5, 5, 5]


def counting(posted, post):
    def counted(self, requests, limits=None):
        posted.append(len(requests))
        return post(self, requests, limits)

    return counted


def test_other_limits_get_a_frame_of_their_own(workers) -> None:
    one = workers[0]
    limits = Limits(soft_s=2.0, hard_s=3.0)
    plays = [saying(one, ["a"]), saying(one, ["b"], limits=limits), saying(one, ["c", "d"])]
    assert run_all(plays) == [[["a"]], [["b"]], [["c", "d"]]]


def test_dead_worker_voids_the_plays_that_ask_it(workers) -> None:
    one, two = workers
    one.close()

    def careful(worker):
        try:
            return (yield from saying(worker, ["a"]))
        except EnvironmentVoid as void:
            return void.failure

    assert run_all([careful(one), careful(two)]) == ["sandbox_unavailable", [["a"]]]


def test_death_under_way_is_seen_by_all_who_asked(workers) -> None:
    def leaving(worker):
        results = yield Errand(worker, [call("leave", {})])
        return results[0].status.value

    assert run_all([saying(workers[0], ["a"]), leaving(workers[0])]) == [[[None]], "crash"]


def test_play_without_questions_ends_at_once() -> None:
    def silent():
        return 7
        yield

    assert run(silent()) == 7
    assert run_all([]) == []


class Both:
    def reset(self, **options):
        return ("reset", options)

    def step(self, action):
        return ("step", action)

    def play_reset(self, **options):
        return ("play_reset", options)
        yield

    def play_step(self, action):
        return ("play_step", action)
        yield


class Overriding(Both):
    def step(self, action):
        return ("other", action)


class Plain:
    def reset(self, **options):
        return ("plain", options)

    def step(self, action):
        return ("plain", action)


def test_play_is_used_only_where_it_does_what_the_method_does() -> None:
    assert [run(step_of(env, "x"))[0] for env in (Both(), Overriding(), Plain())] == ["play_step", "other", "plain"]
    assert [run(reset_of(env, seed=1))[0] for env in (Both(), Overriding(), Plain())] == [
        "play_reset",
        "play_reset",
        "plain",
    ]
