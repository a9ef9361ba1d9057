"""Lessons: what is imitated, what is read, and what is another's mistake."""

from __future__ import annotations

import pytest

from envsynth.errors import SpecError
from envsynth.policy.tokens import CALL, END, VOCABULARY, decode, encode
from envsynth.train.traces import (
    ACTION,
    CONTEXT,
    ECHO,
    MISTAKE,
    echo_positions,
    lesson_of,
    lessons_hash,
    many_lessons,
    nano_lessons,
)
from envsynth.trajectory import Turn

CALLED = Turn(action='{"tool":"mok","arguments":{"name":"teza"}}', observation='{"result":true}')
WRONG = Turn(
    action='{"tool":"mak","arguments":{}}', observation='{"error":{"code":"unknown_tool"}}', error="unknown_tool"
)
ANSWERED = Turn(action='{"answer":{}}', observation="")


def spans(lesson, mark: int) -> list[str]:
    """Texts of the runs of tokens with a mark."""
    found: list[list[int]] = []
    for index, (token, own) in enumerate(zip(lesson.ids, lesson.marks, strict=True)):
        if own != mark:
            continue
        if not index or lesson.marks[index - 1] != mark:
            found.append([])
        found[-1].append(token)
    return [decode(ids) for ids in found]


def test_lesson_marks_actions_with_their_end_and_nothing_else():
    lesson = lesson_of("do it", [CALLED, ANSWERED])
    assert spans(lesson, ACTION) == ["<|call|>mok name teza<|end|>", "<|answer|><|end|>"]
    assert spans(lesson, MISTAKE) == []
    assert lesson.marks.count(ACTION) == sum(own == ACTION for own in lesson.marks)


def test_lesson_reads_a_mistake_without_imitating_it():
    lesson = lesson_of("do it", [WRONG, CALLED, ANSWERED])
    assert spans(lesson, MISTAKE) == ["<|call|>mak<|end|>"]
    assert spans(lesson, ACTION) == ["<|call|>mok name teza<|end|>", "<|answer|><|end|>"]
    assert "unknown_tool" in "".join(spans(lesson, CONTEXT))


def test_lesson_does_not_imitate_a_search_that_found_nothing_on_purpose():
    missed = Turn(action=CALLED.action.replace("teza", "tezo"), call=CALLED.call, observation='{"result":[]}')
    lesson = lesson_of("do it", [missed, CALLED, ANSWERED], mistakes=(0,))
    assert spans(lesson, MISTAKE) == ["<|call|>mok name tezo<|end|>"]
    assert spans(lesson, ACTION) == ["<|call|>mok name teza<|end|>", "<|answer|><|end|>"]


def test_lessons_with_a_mistake_imitate_what_lessons_without_do():
    """The planner's actions of a task do not depend on the mistake that stands before them."""
    right = nano_lessons(40, "wrong", mistakes=0.0, max_tokens=256)
    wrong = nano_lessons(40, "wrong", mistakes=1.0, max_tokens=256)
    assert [spans(item, ACTION) for item in wrong] == [spans(item, ACTION) for item in right]
    assert all(spans(item, MISTAKE) for item in wrong)


def test_echoes_are_the_words_that_stood_earlier():
    ids = encode("kelo muni kel kelo (muni) x x")
    texts = [VOCABULARY[ids[place]] for place in sorted(echo_positions(ids))]
    assert texts == ["start:k", "inner:e", "inner:l", "inner:o", "start:m", "inner:u", "inner:n", "inner:i"]
    assert len(texts) == len(echo_positions(encode("kelo muni kelo muni")))
    assert echo_positions(encode("kelo muni kel mun x x 7 7")) == set()
    lesson = lesson_of("say kelo or kelo", [Turn(action="kelo", observation="")])
    assert spans(lesson, ECHO) == ["kelo"]
    assert spans(lesson, ACTION) == ["kelo<|end|>"]


def test_lesson_of_nothing_is_refused():
    with pytest.raises(SpecError):
        lesson_of("do it", [])


def test_nano_lessons_follow_from_the_seed_and_hold_their_share_of_mistakes():
    lessons = nano_lessons(60, "a", mistakes=0.5, max_tokens=400)
    assert lessons == nano_lessons(60, "a", mistakes=0.5, max_tokens=400)
    assert lessons_hash(lessons) != lessons_hash(nano_lessons(60, "b", mistakes=0.5, max_tokens=400))
    share = sum(MISTAKE in lesson.marks for lesson in lessons) / len(lessons)
    assert 0.25 < share < 0.75
    assert all(lesson.ids[-1] == END and lesson.marks[-1] == ACTION for lesson in lessons)
    assert all(CALL in lesson.ids for lesson in lessons)
    assert not any(MISTAKE in lesson.marks for lesson in nano_lessons(10, "a", mistakes=0.0, max_tokens=400))


def test_nano_lessons_leave_out_what_is_too_long():
    lessons = nano_lessons(20, "a", mistakes=0.0, max_tokens=400)
    limit = sorted(len(lesson) for lesson in lessons)[10]
    assert nano_lessons(20, "a", mistakes=0.0, max_tokens=limit) == [item for item in lessons if len(item) <= limit]


@pytest.mark.slow
def test_many_lessons_do_not_depend_on_the_number_of_processes():
    told: list[int] = []
    one = many_lessons(300, 1, max_tokens=256, workers=1, on_chunk=told.append)
    assert one == many_lessons(300, 1, max_tokens=256, workers=2)
    assert sorted(told) == [50, 250]
    assert len({lesson.ids for lesson in one}) > 0.98 * len(one)
