"""Can a reader solve the prompts? Play them by hand with prompt and tool documentation alone; one answer each.

The 50 tasks are those of `docs/reference/prompts.md`. A server holds them in its memory and deletes the store file, so
that a reader (a person or a language model) has the first observation and the tools, and no file to look into. It
alone writes verdicts; a second answer to the same task is refused. `text` starts a task again, as often as wanted.

    python -m acceptance.foundation_prompts --store tasks.db         synthesize the tasks into a store
    python -m benchmarks.reader serve tasks.db door "who reads"      hold them behind the socket `door`
    python -m benchmarks.reader ask door 7 text                      read task 7
    python -m benchmarks.reader ask door 7 call TOOL '{"page": 1}'   use a tool
    python -m benchmarks.reader ask door 7 answer '{"n": 3}' NOTE    answer, once
    python -m benchmarks.reader count                                count the verdicts
"""

from __future__ import annotations

import json
import sys
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from envsynth.environments import ToolEnv, make_env
from envsynth.store import Store

RESULTS = Path(__file__).resolve().parent / "results" / "reader.json"
PROMPTS = RESULTS.with_name("prompts.json")


class Desk:
    """The tasks, in memory, with the verdicts.

    Args:
        store: The store that holds the tasks; its file is deleted.
        reader: Who reads.
    """

    def __init__(self, store: Path, reader: str) -> None:
        self.reader = reader
        self.hashes = [item["task"] for item in json.loads(PROMPTS.read_text())["tasks"]]
        self.envs: dict[int, ToolEnv] = {}
        self.calls: dict[int, int] = {}
        with Store.open(store, readonly=True) as opened:
            for number, digest in enumerate(self.hashes, 1):
                task = opened.task(digest)
                self.envs[number] = make_env(opened.environment(task.environment), task)
        for part in (store, *store.parent.glob(f"{store.name}-*")):
            part.unlink()

    def text(self, number: int) -> str:
        """Start a task, from its first observation."""
        self.calls[number] = 0
        return self.envs[number].reset(seed=0)[0]

    def call(self, number: int, tool: str, arguments: dict[str, Any]) -> str:
        """Call a tool; return what it gives, or the error it reports."""
        if number not in self.calls:
            return "read the task's text first"
        action = json.dumps({"tool": tool, "arguments": arguments})
        text, _, terminated, truncated, _ = self.envs[number].step(action)
        self.calls[number] += 1
        if terminated or truncated:
            del self.calls[number]
            return "the turn limit was reached: read the task's text to start again"
        return text

    def answer(self, number: int, fields: dict[str, Any], note: str) -> str:
        """Give the one answer; return `pass` or `fail`, and record it with what was unclear, in the reader's words."""
        found = results()
        if str(number) in found:
            return f"task {number} has been answered already"
        if number not in self.calls:
            return "read the task's text first"
        _, reward, _, _, info = self.envs[number].step(json.dumps({"answer": fields}))
        checks = (info.get("verdict") or {}).get("checks", [])
        failed = [check["id"] for check in checks if not check["ok"]]
        found[str(number)] = {
            "task": self.hashes[number - 1],
            "reader": self.reader,
            "passed": reward == 1.0,
            "failed_checks": failed,
            "calls": self.calls.pop(number),
            "note": note,
        }
        ordered = dict(sorted(found.items(), key=lambda item: int(item[0])))
        RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
        return "pass" if reward == 1.0 else f"fail: {failed}"

    def serve(self, door: str) -> None:
        """Answer requests, one connection each, until interrupted."""
        with Listener(door, "AF_UNIX") as listener:
            print(f"{len(self.envs)} tasks behind {door}", flush=True)
            while True:
                with listener.accept() as connection:
                    self._one(connection)

    def _one(self, connection: Connection) -> None:
        try:
            request = json.loads(connection.recv_bytes())
            number, what, rest = int(request["number"]), request["what"], request["rest"]
            if number not in self.envs:
                reply = f"there are tasks 1 to {len(self.envs)}"
            elif what == "text":
                reply = self.text(number)
            elif what == "call":
                reply = self.call(number, rest[0], json.loads(rest[1]) if len(rest) > 1 else {})
            elif what == "answer":
                reply = self.answer(number, json.loads(rest[0]), " ".join(rest[1:]))
            else:
                reply = "ask for text, call or answer"
        except (EOFError, LookupError, ValueError) as error:  # a malformed request is the reader's to mend
            reply = f"not understood: {error}"
        connection.send_bytes(reply.encode())


def results() -> dict[str, Any]:
    """Return the verdicts so far, by task number."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def main() -> int:
    """Serve, ask or count."""
    match sys.argv[1:]:
        case ["serve", store, door, reader]:
            Desk(Path(store), reader).serve(door)
        case ["ask", door, number, what, *rest]:
            with Client(door, "AF_UNIX") as connection:
                connection.send_bytes(json.dumps({"number": number, "what": what, "rest": rest}).encode())
                print(connection.recv_bytes().decode())
        case ["count"]:
            found = results()
            print(f"{sum(item['passed'] for item in found.values())} of {len(found)} solved")
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
