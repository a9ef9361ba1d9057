"""Planted defects that show when the task is played: EX2xx and DF4xx."""

from __future__ import annotations

import itertools

from acceptance.defects.making import Pair
from acceptance.defects.plants import (
    and_atom,
    plant,
    task_with,
    with_rows,
    with_solution,
    with_source,
)
from envsynth.spec import EnvironmentSpec, TaskVersion


@plant("the solution reads one page only", "optimise_atoms", "EX201")
def _one_page(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_solution(spec, task, "PAGES = True", "PAGES = False")


@plant("a tool hides the rows that are needed", "act_program", "EX201")
def _hidden(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_source(
        spec, task, "list_bookings", "SELECT * FROM bookings", "SELECT * FROM bookings WHERE status <> 'tentative'"
    )


@plant("a tool that is needed breaks", "act_atoms", "EX201", "EX209")
def _breaks(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_source(spec, task, "reserve", "free - ? WHERE", "free - ? WHERE nowhere = 0 AND")


@plant("two conditions contradict each other", "plan_atoms", "EX201", "EX202", "VF306")
def _contradiction(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return and_atom(spec, task, "Choose 4 different pieces of gear", "len(set(names)) == 3")


@plant("the oracle counts one too many", "read_atoms", "EX202", "VF303")
def _oracle_count(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    answer = {**task.oracle.answer, "parts_counted": int(str(task.oracle.answer["parts_counted"])) + 1}
    return spec, task_with(task, oracle={"answer": answer, "changes": ()})


@plant("the oracle forgets a change", "act_program", "EX202")
def _oracle_change(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(
        task, oracle={**task.oracle.model_dump(), "changes": task.oracle.model_dump()["changes"][1:]}
    )


@plant("solution and oracle answer differently, and both pass", "read_atoms", "EX202", "VF303")
def _both_pass(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    # A second cheapest part, listed first: the solution takes it, the oracle names the other.
    answer = {"part_code": "P-100", "parts_counted": int(str(task.oracle.answer["parts_counted"])) + 1}
    return with_rows(spec, task_with(task, oracle={"answer": answer}), "parts", ("P-099", "S-10", 33, 110))


@plant("a tool tells the time", "read_program", "EX203", "SE504")
def _time(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    spec, task = with_source(spec, task, "list_loans", '"pages": pages', '"pages": pages, "at": time.perf_counter_ns()')
    return with_source(spec, task, "list_loans", "def list_loans", "import time\n\n\ndef list_loans")


@plant("a tool draws from the system's randomness", "optimise_atoms", "EX203", "SE504")
def _random(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    spec, task = with_source(spec, task, "list_vans", '"pages": pages', '"pages": pages, "luck": os.urandom(4).hex()')
    return with_source(spec, task, "list_vans", "def list_vans", "import os\n\n\ndef list_vans")


@plant("a tool counts its calls across episodes", "read_atoms", "EX203", "SE504")
def _counter(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    spec, task = with_source(
        spec, task, "list_parts", "    pages =", "    json.served = getattr(json, 'served', 0) + 1\n    pages ="
    )
    spec, task = with_source(spec, task, "list_parts", '"pages": pages', '"pages": pages, "served": json.served')
    return with_source(spec, task, "list_parts", "def list_parts", "import json\n\n\ndef list_parts")


@plant("a tool lists a set in the order of its hashes", "plan_atoms", "EX205")
def _set_order(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_source(
        spec, task, "list_gear", '"pages": pages', '"pages": pages, "kinds": list({row["kind"] for row in found})'
    )


@plant("the turn limit has no room", "read_program", "EX204")
def _turns(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(task, max_turns=9)


@plant("the best row is tied, and the verifier knows one", "read_atoms", "EX208")
def _tied(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    spec, task = with_rows(spec, task, "parts", ("P-099", "S-10", 33, 110))
    oracle = {"answer": {"part_code": "P-099", "parts_counted": int(str(task.oracle.answer["parts_counted"])) + 1}}
    atoms = [atom.model_dump() for atom in task.verifier.atoms]
    atoms[0]["expression"] = 'answer["part_code"] == "P-099"'
    return spec, task_with(task, oracle=oracle, verifier={**task.verifier.model_dump(), "atoms": atoms})


@plant("the verifier demands the author's own plan", "plan_atoms", "EX208")
def _own_plan(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    limit = int(task.verifier.atoms[2].quote.split()[4])
    tents = [row for row in spec.world.rows["gear"] if row[1] == "tent"]
    places = itertools.product(range(len(tents)), repeat=4)
    chosen = ([tents[place] for place in four] for four in places if list(four) == sorted(set(four), reverse=True))
    own = next([str(row[0]) for row in rows] for rows in chosen if sum(int(str(row[2])) for row in rows) <= limit)
    known = task_with(task, probes=(), oracle={"answer": {"gear_names": own}})
    return and_atom(spec, known, "any such choice is accepted", f"set(names) == set({own!r})")


@plant("a tool breaks on an unknown code", "read_atoms", "EX209")
def _unknown_code(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_source(spec, task, "supplier_facts", "    if not found:\n", "    if found is None:\n")


@plant("every solver without a skill passes", "read_program", "DF401")
def _easy(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(task, ablations={"no_pagination": {}, "wrong_boundary": {"STRICT": True}})
