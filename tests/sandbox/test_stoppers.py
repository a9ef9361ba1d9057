from __future__ import annotations

import json
from pathlib import Path

import pytest

from envsynth.sandbox import CallResult, Failure
from tests.sandbox.hostile_programs import HOSTILE, MORE
from tests.sandbox.stoppers import (
    CALLS,
    DATABASE,
    FRAMES,
    HARD,
    LAYERS,
    MEMORY,
    MODULES,
    NOTHING,
    PATHS,
    PLAIN,
    PROCESS,
    SOFT,
    stopped_by,
)

RECORD = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "contained.json"


@pytest.mark.parametrize(
    ("status", "value", "message", "layers"),
    [
        (Failure.OK, {"a": "X PermissionError", "b": "X FileNotFoundError"}, "", [CALLS, PATHS]),
        (Failure.OK, {"socket": "E1", "openat": "E2"}, "", [CALLS, PATHS]),
        (Failure.OK, {"system": 32512}, "", [CALLS]),
        (Failure.OK, {"mb": 240, "err": "MemoryError"}, "", [MEMORY]),
        (Failure.OK, {"attach": "X DatabaseError not authorized"}, "", [DATABASE]),
        (Failure.OK, {"environ": {}}, "", [NOTHING]),
        (Failure.OK, [["attack", ["db"]]], "", [NOTHING]),
        (Failure.OK, "patched", "", [PROCESS]),
        (Failure.POLICY_VIOLATION, None, "not available in the sandbox: No module named 'ctypes'", [MODULES]),
        (Failure.SOFT_TIMEOUT, None, "", [SOFT]),
        (Failure.HARD_TIMEOUT, None, "", [HARD]),
        (Failure.PROTOCOL_VIOLATION, None, "40 bytes follow the frame", [FRAMES]),
        (Failure.BAD_RESULT, None, "the result is not plain JSON", [PLAIN]),
        (Failure.CRASH, None, "", [PROCESS]),
        (Failure.MEMORY, None, "", [MEMORY]),
    ],
)
def test_layer_is_read_from_evidence(status, value, message, layers):
    assert stopped_by(CallResult(status=status, value=value, message=message), "") == layers


def test_bare_error_needs_the_call_in_the_source():
    refused = CallResult(status=Failure.OK, value=["X RuntimeError"])
    assert stopped_by(refused, "threading.Thread(target=f).start()") == [CALLS]
    assert stopped_by(refused, "1 / 0") == [NOTHING]


def test_record_is_of_the_programs_and_layers_of_today():
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    assert recorded["layers"] == LAYERS
    assert {name: program["meaning"] for name, program in recorded["programs"].items()} == {
        name: text[1] for name, text in (HOSTILE | MORE).items()
    }
    for row in recorded["rows"]:
        assert list(row["found"]) == list(HOSTILE | MORE)
        assert all(set(found["stopped_by"]) <= set(LAYERS) and found["stopped_by"] for found in row["found"].values())
