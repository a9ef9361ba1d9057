"""The nano tier: small, proven, the same from the same seed, and its traces are what the solver does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from envsynth.actors import OracleActor
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.ir import Attr, Const, Of, Ref, Task, from_json, walk
from envsynth.author.procedural.nano import (
    KINDS,
    NanoAuthor,
    NanoTask,
    gold_trace,
    nano_kind,
    nano_tasks,
    retry_traces,
)
from envsynth.author.procedural.nano.names import (
    HELD_OUT_FIELDS,
    HELD_OUT_NOUNS,
    TRAIN_FIELDS,
    TRAIN_NOUNS,
    Namer,
    values,
)
from envsynth.author.procedural.nano.prose import write
from envsynth.author.procedural.nano.traces import MISTAKES
from envsynth.author.procedural.parse import ParseError, parse
from envsynth.author.procedural.render import REGISTERS, render
from envsynth.environments import make_env
from envsynth.environments.actions import first_observation
from envsynth.environments.compact import compact_first, expand_first
from envsynth.errors import AuthorError, Rejected, SpecError
from envsynth.hardening import Step, audit
from envsynth.lengths import character_length, spread, token_length
from envsynth.pipeline import UnitRequest, make_unit, synthesize
from envsynth.policy.template import episode_messages, episode_tokens, read_action
from envsynth.policy.tokens import encode
from envsynth.policy.words import whole_words
from envsynth.rollout import EpisodeRequest, rollout
from envsynth.sandbox import Jail
from envsynth.spec import Outcome
from envsynth.store import Store

WINDOW = 256


@pytest.fixture(scope="module")
def drawn() -> list[NanoTask]:
    """300 tasks, half of them held out."""
    return [*nano_tasks(150, "test/nano"), *nano_tasks(150, "test/nano", held_out=True)]


def names_of(item: NanoTask) -> list[str]:
    docs = item.environment.public_docs
    labels = [label for _, name, label, *_ in docs["attrs"] if name not in ("id", "name", "relation")]
    return [*(singular for singular, _ in docs["entities"].values()), *labels]


def test_episodes_fit_in_the_window(drawn: list[NanoTask]) -> None:
    lengths = [token_length(first_observation(item.environment, item.task), item.trace.turns) for item in drawn]
    assert len(lengths) == 300
    assert max(lengths) <= WINDOW
    assert spread(lengths).median < 145
    characters = [character_length(first_observation(item.environment, item.task), item.trace.turns) for item in drawn]
    assert spread(characters).median > 5 * spread(lengths).median


def test_held_out_words_fit_in_the_window() -> None:
    tasks = [item for item in nano_tasks(200, "test/longest", held_out=True) if item.kind in ("hop", "copy")]
    lengths = [token_length(first_observation(item.environment, item.task), item.trace.turns) for item in tasks]
    assert max(lengths) <= WINDOW - 32


def test_kinds_come_in_turn_and_tasks_are_distinct(drawn: list[NanoTask]) -> None:
    assert Counter(item.kind for item in drawn) == dict.fromkeys(KINDS, 60)
    assert len({item.task.hash for item in drawn}) == 300
    assert all(1 <= sum(turn.call is not None for turn in item.trace.turns) <= 2 for item in drawn)
    assert all(not isinstance(item.value, int) for drawn_ in drawn for item in consts(drawn_))


def consts(item: NanoTask) -> list[Const]:
    return [node for node in walk(from_json(item.task.ir)) if isinstance(node, Const)]


def test_many_tasks_of_one_world_are_distinct() -> None:
    programs = [str(item.task.ir) for item in nano_tasks(40, 1, per_world=40)]
    assert len(dict.fromkeys(programs)) == 40


def test_worlds_have_two_tables_and_three_or_four_tools(drawn: list[NanoTask]) -> None:
    assert {len(item.environment.world.tables) for item in drawn} == {2}
    assert {len(item.environment.tools) for item in drawn} == {3, 4}
    assert all(len(rows) > 64 for item in drawn for rows in item.environment.world.rows.values())


def test_verbs_are_coined_anew_in_each_world(drawn: list[NanoTask]) -> None:
    verbs = [tuple(tool.name for tool in item.environment.tools) for item in drawn[::5]]
    assert all(left != right for left, right in pairwise(verbs))
    listed = dict.fromkeys((*TRAIN_NOUNS, *TRAIN_FIELDS, *HELD_OUT_NOUNS, *HELD_OUT_FIELDS))
    coined = [verb for world in verbs for verb in world if verb not in listed]
    assert len(coined) > 0.9 * sum(map(len, verbs))
    assert len(dict.fromkeys(coined)) > 100


def test_held_out_names_are_in_no_training_world(drawn: list[NanoTask]) -> None:
    held_out = dict.fromkeys((*HELD_OUT_NOUNS, *HELD_OUT_FIELDS))
    assert not [word for word in (*TRAIN_NOUNS, *TRAIN_FIELDS) if word in held_out]
    train = [word for item in drawn[:150] for word in names_of(item)]
    assert not [word for word in train if word in held_out]
    assert all(word in held_out for item in drawn[150:] for word in names_of(item))
    coined = [word for word in train if word not in (*TRAIN_NOUNS, *TRAIN_FIELDS)]
    assert 0.6 < len(coined) / len(train) < 0.8


def test_names_are_spelled_by_the_tokenizer() -> None:
    whole = whole_words()
    assert not [w for w in (*TRAIN_NOUNS, *TRAIN_FIELDS, *HELD_OUT_NOUNS, *HELD_OUT_FIELDS) if w in whole]
    drawn = []
    for number in range(300):
        namer = Namer(random.Random(f"names/{number}"), held_out=False)
        drawn += [*(namer.verb() for _ in range(4)), *namer.noun(), namer.field(), namer.field()]
    assert not [word for word in drawn if word in whole]
    assert len(dict.fromkeys(drawn)) > 500


def test_values_are_different_and_limited() -> None:
    drawn = values(random.Random(1), 500)
    assert len(dict.fromkeys(drawn)) == 500
    assert all(len(value) == 3 for value in drawn)
    assert not [value for value in values(random.Random(1), 800) if value in whole_words()]
    with pytest.raises(AuthorError, match="different values"):
        values(random.Random(1), 10_000)


def test_nano_tasks_refuses_empty_requests() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(nano_tasks(0, 1))
    with pytest.raises(ValueError, match="at least 1"):
        next(nano_tasks(1, 1, per_world=0))


HASHES = """
from envsynth.author.procedural.nano import nano_tasks
for held_out in (False, True):
    for item in nano_tasks(10, 5, held_out=held_out):
        print(item.environment.hash, item.task.hash, [turn.action for turn in item.trace.turns])
"""


def test_equal_seeds_give_equal_hashes_in_any_process() -> None:
    texts = [
        subprocess.run(
            [sys.executable, "-c", HASHES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "77")
    ]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 20


@pytest.mark.parametrize("held_out", [False, True])
def test_all_gates_pass(held_out: bool) -> None:
    unit = make_unit(
        UnitRequest(category="small tables", seed="1", index=0, lineages=5, tier="nano", held_out=held_out)
    )
    assert Counter(nano_kind(task) for task, _ in unit.tasks) == dict.fromkeys(KINDS, 1)
    for task, report in unit.tasks:
        assert report.ok
        passed = {result.code for result in report.results if result.status == "pass"}
        assert {"SP106", "EX201", "EX202", "EX203", "DF401", "SE501", "VF305"} <= passed
        assert ("VF308" in passed) == (task.kind == "read")
        assert report.evidence("VF305")["total"]


def test_a_task_whose_oracle_is_wrong_is_refused(jail: Jail) -> None:
    author = NanoAuthor("small tables", 3)
    draft = author.draft(0)
    good, other = (item.task for item in nano_tasks(10, 3) if item.kind == "search")
    task = author.root(draft, [nano_kind(author.root(draft, n, 0)) for n in range(5)].index("search"), 0)
    wrong = task.model_copy(update={"oracle": other.oracle})
    assert isinstance(audit(draft, author, task, jail, None), Step)
    outcome = audit(draft, author, wrong, jail, None)
    assert not isinstance(outcome, Step)
    assert outcome.code == "EX202"
    assert good.oracle != other.oracle


def test_gold_traces_are_what_the_solver_plays(jail: Jail) -> None:
    for item in nano_tasks(10, "test/traces"):
        env = make_env(item.environment, item.task, jail=jail)
        actor = OracleActor({item.task.hash: item.task}, jail)
        run = rollout([env], actor, [EpisodeRequest(item.task.hash, 0)])[0]
        actor.close()
        env.close()
        assert run.verdict.status == "pass"
        assert run.prompt == first_observation(item.environment, item.task)
        assert run.turns == item.trace.turns


def test_retry_traces_are_what_the_environment_says_and_still_pass(jail: Jail) -> None:
    rng, errors = random.Random("retry"), Counter[str | None]()
    for item in nano_tasks(5, "test/retry"):
        env = make_env(item.environment, item.task, jail=jail)
        for trace in retry_traces(item.composition, item.trace, rng, count=6):
            env.reset(seed=0)
            (place,) = trace.mistakes
            errors[trace.turns[place].error] += 1
            assert len(trace.turns) == len(item.trace.turns) + 1
            learned = episode_tokens(first_observation(item.environment, item.task), trace.turns, given=trace.mistakes)
            gold = episode_tokens(first_observation(item.environment, item.task), item.trace.turns)
            assert sum(learned.sampled) == sum(gold.sampled)
            assert len(learned) > len(gold)
            assert trace.turns[:place] + trace.turns[place + 1 :] == item.trace.turns
            for turn in trace.turns:
                observation, reward, *_, info = env.step(turn.action)
                assert observation == turn.observation
                assert info["error"] == turn.error
            assert reward == 1.0
        env.close()
    assert set(errors) == {"unknown_tool", "invalid", None}
    assert len(MISTAKES) == 3


def test_traces_refuse_programs_of_another_tier() -> None:
    item = next(nano_tasks(1, 1))
    with pytest.raises(SpecError, match="no step of a nano task"):
        gold_trace(
            item.composition, item.task.model_copy(update={"ir": ["Task", ["()", ["Act", "x", ["()"]]], ["()"]]})
        )
    with pytest.raises(SpecError, match="no task program"):
        gold_trace(item.composition, item.task.model_copy(update={"ir": None}))


def test_traces_are_held_against_the_oracle(drawn: list[NanoTask]) -> None:
    by_kind = {item.kind: item for item in drawn}
    for kind in ("read", "hop", "search", "copy"):
        item = by_kind[kind]
        wrong = item.task.model_copy(update={"oracle": Outcome(answer={"name": "nowhere"})})
        with pytest.raises(SpecError, match="do not read 'nowhere'"):
            gold_trace(item.composition, wrong)
    item = by_kind["copy"]
    (change,) = item.task.oracle.changes
    field = next(column for column in change.row if column != "id")
    wrong_change = change.model_copy(update={"row": {**change.row, field: "nowhere"}})
    wrong = item.task.model_copy(update={"oracle": Outcome(answer={}, changes=(wrong_change,))})
    with pytest.raises(SpecError, match="its trace writes"):
        gold_trace(item.composition, wrong)


def test_a_world_that_gives_no_task_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Rejected("tie", "always")

    monkeypatch.setattr(NanoAuthor, "root", refuse)
    with pytest.raises(AuthorError, match="tie: always"):
        next(nano_tasks(1, 1))


def test_an_actor_reads_the_same_text_of_a_fresh_and_a_stored_record(drawn: list[NanoTask]) -> None:
    for item in drawn[::50]:
        text = first_observation(item.environment, item.task)
        again = type(item.environment).from_json(item.environment.to_json())
        assert first_observation(again, type(item.task).from_json(item.task.to_json())) == text
        system, prompt = compact_first(text)
        assert prompt == item.task.prompt
        assert expand_first(system, prompt) == text
        assert "~" not in system


def test_prompts_parse_back(drawn: list[NanoTask]) -> None:
    for item in drawn:
        assert parse(item.task.prompt, item.environment.public_docs) == from_json(item.task.ir)


@pytest.mark.parametrize("register", REGISTERS)
def test_the_longer_language_says_the_same(drawn: list[NanoTask], register: str) -> None:
    for variant, item in enumerate(drawn[:30]):
        program: Task = from_json(item.task.ir)
        docs = {key: value for key, value in item.environment.public_docs.items() if key != "language"}
        if program.report:
            assert parse(render(program, docs, register, variant % 3), docs) == program


def test_every_edit_of_a_word_is_another_task_or_none(drawn: list[NanoTask]) -> None:
    """A prompt with one word left out, doubled or exchanged for another of its words states something else, or nothing."""
    read = 0
    for item in drawn[:60]:
        docs, program = item.environment.public_docs, from_json(item.task.ir)
        words = item.task.prompt.removesuffix(".").split()
        edits = [[*words[:place], *words[place + 1 :]] for place in range(len(words))]
        edits += [[*words[:place], word, *words[place:]] for place, word in enumerate(words)]
        edits += [
            [*words[:place], other, *words[place + 1 :]]
            for place in range(len(words))
            for other in dict.fromkeys(words)
            if other != words[place]
        ]
        for edited in edits:
            text = " ".join(edited) + "."
            try:
                found = parse(text, docs)
            except ParseError:
                continue
            read += 1
            assert found != program, text
    assert read > 30


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "Read .",
        "Read de of.",
        "Read de of .",
        "Find with.",
        "read the book.",
        "Set to.",
        "Read name of name of.",
        "Find\n.",
    ],
)
def test_what_is_no_brief_prompt_is_refused(drawn: list[NanoTask], text: str) -> None:
    with pytest.raises(ParseError):
        parse(text, drawn[0].environment.public_docs)


def test_the_brief_language_refuses_programs_of_another_tier(drawn: list[NanoTask]) -> None:
    docs = drawn[0].environment.public_docs
    two = next(item for item in drawn if item.kind == "hop")
    program: Task = from_json(two.task.ir)
    for wrong in (
        replace(program, report=(*program.report, ("other", Of("X1", Attr("name"))))),
        replace(program, report=((program.report[0][0], Ref("X1")),)),
        replace(program, report=()),
    ):
        with pytest.raises(SpecError, match="nano t"):
            write(wrong, two.environment.public_docs)
    assert docs["language"] == "brief"


def test_turns_pass_the_policys_door_unchanged(drawn: list[NanoTask]) -> None:
    """What a trace says in tokens is what the environment gets as JSON, and every name is spelled as it was read."""
    for item in drawn[::10]:
        messages = episode_messages(first_observation(item.environment, item.task), item.trace.turns)
        said = [read_action(message.tokens).text for message in messages if message.role == "assistant"]
        assert said == [turn.action for turn in item.trace.turns]
        seen = episode_tokens(first_observation(item.environment, item.task), item.trace.turns).ids
        for turn in item.trace.turns:
            for value in turn.call.arguments.values() if turn.call else ():
                ids = tuple(encode(str(value)))
                places = [start for start in range(len(seen)) if seen[start : start + len(ids)] == ids]
                assert len(places) >= 2


def test_nano_environments_are_not_composed_again_by_the_full_author(drawn: list[NanoTask]) -> None:
    with pytest.raises(SpecError, match="procedural-nano/2"):
        ProceduralAuthor.again(drawn[0].environment)


def test_synthesize_stores_nano_tasks_and_resumes(tmp_path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        first = synthesize("small tables", count=1, seed=2, store=store, lineages=2, tier="nano")
        again = synthesize("small tables", count=1, seed=2, store=store, lineages=2, tier="nano")
        assert (again.resumed, again.tasks) == (1, first.tasks)
        held_out = synthesize("small tables", count=1, seed=2, store=store, lineages=1, tier="nano", held_out=True)
        assert held_out.run != first.run
        assert [store.task(digest).lineage.depth for digest in first.tasks] == [0, 0]
        assert store.environment(first.environments[0]).provenance.author == NanoAuthor.name
    with pytest.raises(ValueError, match="nano tier"):
        synthesize("small tables", count=1, held_out=True)
