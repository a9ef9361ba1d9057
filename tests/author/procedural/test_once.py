"""What verifiers remember of the initial rows is what they would work out again, over many ends of random tasks."""

from __future__ import annotations

import copy
import itertools
import random
from collections import Counter

import pytest

from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.sampling import Rejected, Sampler
from envsynth.verifiers import kernel
from tests.author.procedural.random_tasks import LocalTools, payload, prepare, random_task, world

OLDEST = ("booking", "inventory", "itinerary", "pricing")
GROUPS = [*((name,) for name in sorted(MECHANISMS)), *itertools.combinations(OLDEST, 2)]


class Forgetful(kernel.Initial):
    """Works everything out anew, on the rows of the episode itself."""

    def once(self, function):
        return function


def near_misses(rng, rows, answer, changes, count):
    """Ends that differ a little from the right one."""
    yield {"answer": answer, "changes": changes}
    yield {"answer": answer, "changes": []}
    filled = [table for table, found in rows.items() if found]
    for _ in range(count):
        end = copy.deepcopy({"answer": answer, "changes": changes})
        stated = end["changes"]
        kinds = ["stray", "delete", *(["value"] if answer else []), *(["drop", "cell", "twice"] if stated else [])]
        kind = rng.choice(kinds)
        if kind == "drop":
            del stated[rng.randrange(len(stated))]
        elif kind == "twice":
            stated.append(copy.deepcopy(rng.choice(stated)))
        elif kind == "cell":
            change = rng.choice(stated)
            column = rng.choice([name for name in change["row"] if name != "id"])
            change["row"][column] = rng.choice([row[column] for row in rows[change["table"]]])
        elif kind == "value":
            field = rng.choice(list(answer))
            others = [row.get("name", row["id"]) for row in rows[rng.choice(filled)]]
            value = answer[field]
            end["answer"][field] = value + 1 if type(value) is int else [rng.choice(others)]
        else:
            table = rng.choice(filled)
            row = dict(rng.choice(rows[table]))
            if kind == "stray":
                del row["id"]
            stated.append({"op": "insert" if kind == "stray" else "delete", "table": table, "row": row})
        yield end


@pytest.mark.parametrize("names", GROUPS, ids="+".join)
def test_remembered_is_recomputed(names, monkeypatch):
    seen = Counter()
    for seed in range(12):
        rng = random.Random(f"once/{names}/{seed}")
        mechanisms = tuple(MECHANISMS[name] for name in names)
        sampler = Sampler(world(mechanisms, f"once/{names}/{seed % 3}"), (), rng)
        try:
            case = prepare(sampler, random_task(sampler, seed % 3))
        except (Reject, Rejected):
            continue
        database = LocalTools(sampler).database
        changes = [{"op": op, "table": table, "row": row} for op, table, row in case.result.changes]
        ends = list(near_misses(rng, kernel.read_rows(database), case.result.answer, changes, 30))
        task = payload(case.verifier)
        together = kernel.judge_outcomes(database, task, ends)
        alone = [kernel.judge_outcomes(database, task, [end])[0] for end in ends]
        with monkeypatch.context() as patched:
            patched.setattr(kernel, "Initial", Forgetful)
            anew = kernel.judge_outcomes(database, task, ends)
        assert list(map(verdict, together)) == list(map(verdict, alone)) == list(map(verdict, anew))
        seen.update(verdict(found)[0] for found in together)
    assert seen["pass"]
    assert seen["fail"]


def verdict(found):
    """The verdict with its checks; of a broken one what broke, but not where."""
    if found["broken"] is not None:
        return "broken", found["broken"].split(" (at ")[0]
    return "pass" if all(ok for _, ok, _ in found["checks"]) else "fail", found["checks"]
