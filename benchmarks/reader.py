"""Can a reader solve the prompts? Play them by hand with prompt and tool documentation alone; one answer each.

The 50 tasks are those of `docs/reference/prompts.md`. A reader (a person, or a language model with this module as its
only access) calls `Session(number)`, reads `.text`, calls `.call(tool, **arguments)` as often as the turn limit allows,
and gives one `.answer(**fields)`. The verdict is written to the results file; a second answer to the same task is refused.

    python -m acceptance.foundation_prompts --store tasks.db     synthesize the tasks into a store
    READER_STORE=tasks.db python                                  >>> from benchmarks.reader import Session
    python -m benchmarks.reader                                   count the verdicts
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from envsynth.environments import make_env
from envsynth.store import Store

RESULTS = Path(os.environ.get("READER_RESULTS", "benchmarks/results/reader.json"))
STORE = Path(os.environ.get("READER_STORE", "tasks.db"))


class Session:
    """One attempt at one task.

    Args:
        number: 1 to 50, as in the documentation page.
        reader: Who reads.
    """

    def __init__(self, number: int, reader: str) -> None:
        self.number = number
        self.reader = reader
        if str(number) in _results():
            raise SystemExit(f"task {number} has been answered already")
        with Store.open(STORE, readonly=True) as store:
            digest = json.loads(Path("benchmarks/results/prompts.json").read_text())["tasks"][number - 1]["task"]
            task = store.task(digest)
            self._env = make_env(store.environment(task.environment), task)
        self.text, _ = self._env.reset(seed=0)
        self.calls = 0
        self.task = digest

    def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool; return what it gives, or the error it reports.

        Raises:
            SystemExit: the turn limit was reached.
        """
        text, _, terminated, truncated, _ = self._env.step(json.dumps({"tool": tool, "arguments": arguments}))
        if terminated or truncated:
            raise SystemExit("the episode is over: the turn limit was reached")
        self.calls += 1
        return json.loads(text)

    def answer(self, note: str = "", /, **fields: Any) -> str:
        """Give the one answer; return `pass` or `fail`.

        Args:
            note: What was unclear, in the reader's words.
            **fields: The fields of the answer.
        """
        _, reward, _, _, info = self._env.step(json.dumps({"answer": fields}))
        verdict = info.get("verdict") or {}
        failed = [check["id"] for check in verdict.get("checks", []) if not check["ok"]]
        found = _results()
        found[str(self.number)] = {
            "task": self.task,
            "reader": self.reader,
            "passed": reward == 1.0,
            "failed_checks": failed,
            "calls": self.calls,
            "note": note,
        }
        RESULTS.write_text(
            json.dumps(dict(sorted(found.items(), key=lambda item: int(item[0]))), indent=1, ensure_ascii=False) + "\n"
        )
        self._env.close()
        return "pass" if reward == 1.0 else f"fail: {failed}"


def _results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def main() -> int:
    """Count the verdicts."""
    found = _results()
    print(f"{sum(item['passed'] for item in found.values())} of {len(found)} solved")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
