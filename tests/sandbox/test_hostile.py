from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from envsynth.sandbox import Jail
from tests.sandbox.containment import (
    ENV_CANARY,
    FILE_CANARY,
    LIMITS,
    MODES,
    Canaries,
    leaks_in,
    try_program,
)
from tests.sandbox.hostile_programs import HOSTILE, MORE
from tests.sandbox.plain_user import PlainPython, installed_pythons, plain_python


@pytest.fixture(scope="module")
def canaries() -> Iterator[Canaries]:
    with Canaries() as planted:
        yield planted


@pytest.fixture(scope="module")
def jails() -> Iterator[dict[str, Jail]]:
    opened: dict[str, Jail] = {}
    yield opened
    for jail in opened.values():
        jail.close()


def _opened(jails: dict[str, Jail], mode: str) -> Jail:
    if mode not in jails:
        jails[mode] = Jail(LIMITS, **MODES[mode])
    return jails[mode]


def test_programs_are_the_public_32() -> None:
    assert len(HOSTILE) == 32


@pytest.mark.parametrize("name", HOSTILE | MORE)
def test_program_is_contained(jails: dict[str, Jail], canaries: Canaries, name: str) -> None:
    finding = try_program(_opened(jails, "default"), canaries, name)
    assert not finding.leaks, finding


@pytest.mark.slow
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "default"])
@pytest.mark.parametrize("name", HOSTILE | MORE)
def test_program_is_contained_with_layers_missing(
    jails: dict[str, Jail], canaries: Canaries, name: str, mode: str
) -> None:
    finding = try_program(_opened(jails, mode), canaries, name)
    assert not finding.leaks, finding


def test_raw_system_calls_are_refused_one_by_one(canaries: Canaries) -> None:
    with Jail(LIMITS, **MODES["exposed"]) as jail:
        finding = try_program(jail, canaries, "ctypes_syscalls")
    assert finding.status == "ok", finding
    answers = json.loads(finding.evidence)[1]
    assert len(answers) == 15
    assert {name: answer for name, answer in answers.items() if answer != "E1"} == {"openat": "E2"}


def _run_as_plain_user(python: PlainPython, mode: str) -> None:
    done = python.run("-m", "tests.sandbox.containment", "--mode", mode, "--json")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [finding["name"] for finding in findings] == list(HOSTILE | MORE), done.stderr
    assert all(finding["uid"] != 0 for finding in findings)
    assert not [finding for finding in findings if finding["leaks"]]
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "seccomp only", "exposed"])
def test_programs_are_contained_as_plain_user(mode: str) -> None:
    with plain_python(installed_pythons) as python:
        _run_as_plain_user(python, mode)


@pytest.mark.slow
def test_programs_are_contained_as_plain_user_with_a_copied_interpreter() -> None:
    with plain_python(lambda: iter(())) as python:
        assert python.how == "a copy of this interpreter"
        _run_as_plain_user(python, "default")


@pytest.mark.parametrize(
    ("evidence", "leak"),
    [
        (f'["ok", "{FILE_CANARY}"]', "canary"),
        (f'["ok", {{"SECRET": "{ENV_CANARY}"}}]', "canary"),
        ('["ok", {"/tmp/x": "WROTE"}]', "evidence WROTE"),
        ('["ok", "root:x:0:0"]', "the password file"),
    ],
)
def test_runner_sees_leaks_in_evidence(evidence: str, leak: str) -> None:
    assert any(found.startswith(leak) for found in leaks_in(evidence))


def test_runner_sees_what_was_touched() -> None:
    with Canaries() as planted:
        planted.file.write_text("changed", encoding="ascii")
        (planted.file.parent / "pwned.txt").touch()
        planted.accepted.append("tcp")
        assert len(planted.touched()) == 3
        assert planted.touched() == []
