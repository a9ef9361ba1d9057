"""Gate VF312: is a disorder there before the repair, gone after it, and there only because the task plants it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from envsynth.environments import build_image
from envsynth.gates.case import Case, Named
from envsynth.gates.catalogue import failed, gate, must_refuse, skipped
from envsynth.record import Scalar
from envsynth.report import Finding, GateResult
from envsynth.spec import GoalAtom, Outcome, RowChange, TaskVersion
from envsynth.verifiers import judge

OTHER_ROWS = 8
"""Other rows that a repair is tried on, those that the task plants first."""


def wrong_repairs(case: Case) -> Iterator[Named]:
    """The right answer, with one repair done on another row instead."""
    oracle = case.task.oracle
    for index, change in enumerate(oracle.changes if _orders(case.task) else ()):
        if change.op != "update":
            continue
        rest = (*oracle.changes[:index], *oracle.changes[index + 1 :])
        for key in _other_rows(case, change)[:OTHER_ROWS]:
            moved = RowChange(op="update", table=change.table, row={**change.row, **key})
            where = ", ".join(str(value) for value in key.values())
            yield f"{index} on {change.table} {where}", Outcome(answer=oracle.answer, changes=(*rest, moved))


def _other_rows(case: Case, change: RowChange) -> list[dict[str, Scalar]]:
    """Keys of rows that the change would alter and that no change of the outcome is about; planted ones come first."""
    table = case.spec.world.table(change.table)
    names = [column.name for column in table.columns]
    planted = [dict(row.row) for row in case.task.overlay if row.table == change.table]
    stored = [dict(zip(names, row, strict=True)) for row in case.spec.world.rows.get(change.table, ())]
    case.rng(f"repairs/{change.table}").shuffle(stored)
    taken = [_key(other.row, table.primary_key) for other in case.task.oracle.changes if other.table == change.table]
    cells = {name: value for name, value in change.row.items() if name not in table.primary_key}
    found = [_key(row, table.primary_key) for row in (*planted, *stored) if {**row, **cells} != row]
    return [key for key in found if key not in taken]


def _key(row: dict[str, Scalar], names: Sequence[str]) -> dict[str, Scalar]:
    return {name: row[name] for name in names if name in row}


def _orders(task: TaskVersion) -> tuple[GoalAtom, ...]:
    return tuple(atom for atom in task.verifier.atoms if atom.kind == "order")


@gate("VF312", "a disorder is there before, gone after, and planted by the task", wrong_repairs)
def disorder_is_planted(case: Case) -> GateResult:
    """Judge what order means (the `order` atoms) in the world with and without the task's rows, and repairs of other rows.

    In the initial state every `order` atom must fail, and so must the right answer without a repair; after the oracle's
    changes all of them must hold; in the environment without the rows of the task all of them must hold as well, so the
    disorder is the task's own. The same repair done on another row must be refused. A task of kind `diagnose` must have such
    an atom, and others that have one are judged alike.

    Why: a repair task whose assertion holds before any repair pays for doing nothing, and one that looks only at the row that
    was named pays for breaking another. Limit: only repairs that update rows are tried on other rows. Fix: plant rows that
    break the rule, state the rule over all rows, and claim exactly the repair.
    """
    orders = _orders(case.task)
    if case.task.kind != "diagnose" and not orders:
        return skipped("VF312", "the task asks for no repair")
    if not orders:
        finding = Finding(
            code="VF312", message="no atom says what order is", where="task.verifier", fix="add an atom of kind `order`"
        )
        return failed("VF312", [finding])
    findings = [*_before(case, orders), *_unplanted(case, orders), *_after(case, orders)]
    wrong = case.named(wrong_repairs)
    refused = must_refuse("VF312", case, wrong, "the repair")
    return failed("VF312", [*findings, *refused.findings], orders=len(orders), wrong_repairs=len(wrong))


def _finding(atom: str, message: str, fix: str) -> Finding:
    return Finding(code="VF312", message=message, where=f"verifier.atoms.{atom}", fix=fix)


def _failing(case: Case, image: bytes, orders: Sequence[GoalAtom]) -> list[str] | str:
    """Ids of the `order` atoms that an untouched world fails; a text when the verifier broke on it."""
    verifier = case.task.verifier.model_copy(update={"atoms": tuple(orders)})
    lone = case.task.model_copy(update={"verifier": verifier})
    (verdict,) = judge(case.jail, lone, image, [Outcome(answer=case.task.oracle.answer)])
    return str(verdict.failure) if verdict.status == "void" else list(verdict.failed)


def _before(case: Case, orders: Sequence[GoalAtom]) -> Iterator[Finding]:
    broken = _failing(case, case.image, orders)
    if isinstance(broken, str):
        yield _finding(orders[0].id, f"the verifier broke on the initial state: {broken}", "repair the expression")
        return
    for atom in orders:
        if atom.id not in broken:
            yield _finding(
                atom.id, "the initial state is in order: there is nothing to repair", "plant rows that break it"
            )


def _unplanted(case: Case, orders: Sequence[GoalAtom]) -> Iterator[Finding]:
    broken = _failing(case, build_image(case.jail, case.spec.world, ()), orders)
    if isinstance(broken, str):
        yield _finding(orders[0].id, f"the verifier broke without the planted rows: {broken}", "repair the expression")
        return
    for name in broken:
        yield _finding(
            name, "the environment is out of order without the rows of the task", "plant it by the task alone"
        )


def _after(case: Case, orders: Sequence[GoalAtom]) -> Iterator[Finding]:
    repaired, idle = case.judge(
        [case.task.oracle, case.once("no repair", lambda: Outcome(answer=case.task.oracle.answer))]
    )
    for atom in orders:
        if atom.id in repaired.failed:
            yield _finding(
                atom.id, "it is still out of order after the oracle's repair", "state the rule that is repaired"
            )
    if idle.status == "pass":
        yield _finding(
            orders[0].id, "the right answer is accepted without a repair", "claim the repair by a state atom"
        )
