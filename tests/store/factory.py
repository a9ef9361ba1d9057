"""Small valid records for the tests of the store."""

from __future__ import annotations

from envsynth.report import Finding, GateReport, GateResult
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Rejection
from envsynth.trajectory import Trajectory

PROVENANCE = {"author": "test/1", "category": "lending books", "seed": "env/1"}


def environment(number: int = 0, *, category: str = "lending books", rows: int = 3) -> EnvironmentSpec:
    return EnvironmentSpec.parse(
        {
            "slug": f"library-{number}",
            "title": f"Library {number}",
            "world": {
                "tables": [
                    {
                        "name": "book",
                        "columns": [
                            {"name": "book_id", "type": "INTEGER"},
                            {"name": "title", "type": "TEXT"},
                        ],
                        "primary_key": ["book_id"],
                    }
                ],
                "rows": {"book": [[index, f"Bücher {number}/{index}"] for index in range(rows)]},
                "now": "2030-01-01",
            },
            "tools": [
                {
                    "name": "list_books",
                    "effect": "read",
                    "description": "Lists all books.",
                    "parameters": {
                        "type": "object",
                        "properties": {},
                        "additionalProperties": False,
                    },
                    "source": "def list_books(db):\n    return db.execute('SELECT * FROM book').fetchall()\n",
                }
            ],
            "provenance": {**PROVENANCE, "category": category},
        }
    )


def task(
    home: EnvironmentSpec, number: int = 0, parent: TaskVersion | None = None, *, kind: str = "read"
) -> TaskVersion:
    lineage = {}
    if parent is not None:
        lineage = {
            "parent": parent.hash,
            "operator": "constraint",
            "params": {"number": number},
            "depth": parent.lineage.depth + 1,
        }
    return TaskVersion.parse(
        {
            "environment": home.hash,
            "kind": kind,
            "prompt": f"How many books are there? ({number})",
            "answer_schema": {"type": "object", "properties": {"count": {"type": "integer"}}},
            "max_turns": 5,
            "solution": "def solve(call):\n    return {'count': len(call('list_books'))}\n",
            "verifier": {
                "form": "atoms",
                "atoms": [
                    {
                        "id": "count",
                        "kind": "answer",
                        "quote": "How many",
                        "expression": "answer['count'] == len(db['book'])",
                    }
                ],
            },
            "oracle": {"answer": {"count": 3}},
            "lineage": lineage,
            "provenance": PROVENANCE,
        }
    )


def report(of: TaskVersion, *, ok: bool = True, note: str = "") -> GateReport:
    finding = Finding(code="VF301", message=f"the idle actor passes {note}".strip())
    return GateReport(
        environment=of.environment,
        task=of.hash,
        results=(
            GateResult(
                code="VF301",
                status="pass" if ok else "fail",
                findings=() if ok else (finding,),
                evidence={"note": note},
            ),
        ),
    )


def rejection(home: EnvironmentSpec | None = None, code: str = "tie", **keys: object) -> Rejection:
    digest = None if home is None else home.hash
    return Rejection.parse({"environment": digest, "stage": "oracle", "code": code, "message": "two best rows", **keys})


def trajectory(of: TaskVersion, seed: int = 0, actor: str = "oracle") -> Trajectory:
    return Trajectory.parse(
        {
            "environment": of.environment,
            "task": of.hash,
            "actor": actor,
            "seed": seed,
            "prompt": "prompt",
            "turns": [
                {
                    "action": '{"tool":"list_books","arguments":{}}',
                    "call": {"tool": "list_books", "arguments": {}},
                    "observation": '{"result":[]}',
                },
                {"action": '{"answer":{"count":3}}', "observation": ""},
            ],
            "answer": {"count": 3},
            "stop": "answered",
            "verdict": {"status": "pass", "score": 1.0},
        }
    )
