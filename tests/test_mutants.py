"""The runner of planted bugs, on a tiny project: what is killed, what survives, and what cannot be judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).resolve().parents[1] / "scripts" / "mutants.py"

CODE = "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n"
TESTS = """
import pytest
from tiny import double, half


@pytest.fixture
def three():
    return double(3) and 3


def test_double():
    assert double(2) == 4


def test_half():
    assert half(0) == 0


def test_setup(three):
    assert three
"""


def mutant(name, find, replace, tests="test_tiny.py::test_double", file="tiny.py"):
    fields = {"name": name, "row": "T1", "file": file, "find": find, "replace": replace, "tests": tests}
    return "[[mutant]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


KILLED = mutant("killed", "2 * x", "3 * x")
SURVIVOR = mutant("survivor", "x / 2", "x / 3", "test_tiny.py::test_half")


@pytest.fixture
def judge(tmp_path):
    """Write a project with these mutants and judge them; gives exit code, summary, verdicts, what went to stderr."""

    def run(*mutants, options=(), code=CODE):
        (tmp_path / "tiny.py").write_text(code)
        (tmp_path / "test_tiny.py").write_text(TESTS)
        (tmp_path / ".venv").mkdir(exist_ok=True)
        (tmp_path / ".venv" / "conftest.py").write_text("raise RuntimeError('copied')\n")
        folder = tmp_path / "tests" / "mutants"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny.toml").write_text("\n".join(mutants))
        command = [sys.executable, str(RUNNER), "--root", str(tmp_path), *options]
        # The tiny tests need no plugin, and loading them takes longer than everything else here.
        environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert (tmp_path / "tiny.py").read_text() == code, "the project itself was touched"
        return done

    return run


def statuses(done):
    answer = json.loads(done.stdout)
    return {verdict["name"]: (verdict["status"], verdict["detail"]) for verdict in answer["mutants"]}


def test_mutants_are_killed_or_survive(judge):
    done = judge(KILLED, SURVIVOR)
    assert done.returncode == 1
    first, second, last = done.stdout.splitlines()
    assert first.startswith("KILLED")
    assert first.endswith("T1   killed: test_double")
    assert second.startswith("SURVIVED")
    assert last == "2 mutants: 1 killed, 1 survived, 0 broken"


def test_mutants_all_killed_is_success(judge):
    done = judge(KILLED, SURVIVOR, options=["--only", "killed", "--json"])
    assert done.returncode == 0
    assert statuses(done) == {"killed": ("KILLED", "test_double")}


def test_mutants_without_a_verdict_are_broken(judge):
    """A missing text, a text that is there twice, a missing file, a syntax error, a failing fixture: none is a kill."""
    done = judge(
        KILLED,
        mutant("absent", "4 * x", "5 * x"),
        mutant("twice", "return", "yield"),
        mutant("no-file", "a", "b", file="other.py"),
        mutant("syntax", "2 * x", "2 * * x"),
        mutant("fixture", "2 * x", "1 / 0", "test_tiny.py::test_setup"),
        options=["--json", "--workers", "2"],
    )
    assert done.returncode == 1
    found = statuses(done)
    assert list(found) == ["killed", "absent", "twice", "no-file", "syntax", "fixture"]
    assert {name: status for name, (status, _) in found.items() if name != "killed"} == dict.fromkeys(
        ["absent", "twice", "no-file", "syntax", "fixture"], "BROKEN"
    )
    assert found["killed"][0] == "KILLED"
    assert "find occurs 0 times in tiny.py" in found["absent"][1]
    assert "find occurs 2 times in tiny.py" in found["twice"][1]
    assert "no file other.py" in found["no-file"][1]
    assert "no failed test" in found["syntax"][1]
    assert "no failed test" in found["fixture"][1]


def test_mutants_need_tests_that_pass_without_them(judge):
    done = judge(KILLED, code=CODE.replace("2 * x", "2 + x + 1"))
    assert done.returncode == 2
    assert "without any bug, the named tests must pass, but: test_double" in done.stderr


def test_mutants_need_tests_that_exist(judge):
    done = judge(mutant("lost", "2 * x", "3 * x", "test_tiny.py::test_gone"))
    assert done.returncode == 2
    assert "pytest ended with 4" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[mutant]]\nname = 'x'\n", "missing fields ['file', 'find', 'replace', 'tests']"),
        (KILLED + "weight = '3'\n", "unknown fields ['weight']"),
        (KILLED + KILLED, "twice: killed"),
        (mutant("same", "2", "2"), "find and replace differ"),
        (mutant("idle", "2", "3", " "), "at least one test"),
        ("[[mutant]", "tiny.toml"),
        ("", "no mutants"),
    ],
)
def test_mutants_refuse_a_malformed_file(judge, text, message):
    done = judge(text)
    assert done.returncode == 2
    assert message in done.stderr


def test_mutants_refuse_an_unknown_name(judge):
    done = judge(KILLED, options=["--only", "other"])
    assert (done.returncode, "no such mutants: other" in done.stderr) == (2, True)
