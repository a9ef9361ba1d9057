"""The audit of a set of tasks: duplicates, diversity by structure, contamination, leaks between splits, knobs.

Gates look at one task; these rules look at many, through digests and what is on record, so that nothing is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envsynth.report import SetReport
from envsynth.set_audit import diversity, duplicates, knobs, leaks
from envsynth.set_audit.catalogue import SetCase, SetLimits, SetRule, all_rules, find_rule
from envsynth.set_audit.reading import Members, read_members, read_reference

__all__ = ["Members", "SetCase", "SetLimits", "SetRule", "all_rules", "audit_set", "explain_rule", "find_rule"]

_ROOMS = (duplicates, diversity, leaks, knobs)
"""Importing them registers their rules."""


def audit_set(
    targets: Sequence[str] = (),
    *,
    against: Sequence[str] = (),
    store: str | Path | None = None,
    leaves_only: bool = True,
    select: Sequence[str] | None = None,
    limits: SetLimits | None = None,
) -> SetReport:
    """Audit a set of tasks as a whole. An unsound set is data, not an exception.

    Args:
        targets: Suite files, suites of the store, environments or tasks; each is a split of its own. All of the store when
            there is none.
        against: Suites that the set must not contain: suite files, files of prompts (`.jsonl`, or plain text), or tasks of
            the store.
        store: The store; the default store when None.
        leaves_only: Of all of a store, only the last versions of lineages.
        select: Codes to run; all when None.
        limits: What the set must keep to.

    Returns:
        The report; `report.ok` says whether all passed.

    Raises:
        SpecError: `select` names an unknown code, a target is there twice, or there is no task.
        SuiteError: a file is damaged or holds no prompt.
        SpecNotFound: nothing has that name.
    """
    chosen = all_rules() if select is None else [find_rule(code) for code in dict.fromkeys(map(str.upper, select))]
    limits = limits or SetLimits()
    references = [read_reference(name, limits.window, store) for name in dict.fromkeys(against)]
    case = SetCase(read_members(targets, store, leaves_only=leaves_only), references, limits)
    return SetReport(
        splits={name: len(tasks) for name, tasks in case.splits.items()},
        tasks=len(case.tasks),
        environments=len({task.world.hash for task in case.tasks}),
        against=tuple(suite.name for suite in references),
        results=tuple(item.run(case) for item in chosen),
    )


def explain_rule(code: str) -> str:
    """Return the documentation page of a rule.

    Args:
        code: Its code.

    Returns:
        What it does, why, and how to fix a finding.

    Raises:
        SpecError: no rule has that code.
    """
    return find_rule(code).page
