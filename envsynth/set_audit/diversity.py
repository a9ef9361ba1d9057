"""ST604 and ST605: do tasks and worlds differ in structure, and not in words alone?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log2

from pydantic import JsonValue

from envsynth.report import Finding, GateResult
from envsynth.set_audit.catalogue import SetCase, rule

SIZES = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Sizes at which the curve of different structures is told."""


@rule("ST604", "worlds and programs differ in structure")
def structures(case: SetCase) -> GateResult:
    """Count the different structures among environments and the different skeletons among programs.

    A structure is what is left of a world without names, words, constants and rows. Different ones must be at least 90 % of
    the environments, and different skeletons at least 50 % of the programs. The evidence has the curves: how many are
    different among the first so many, in the order of the set. A curve that flattens says that more of the same gives
    nothing new.

    Why: names and numbers are a skin. A thousand skins of one world train, and measure, one skill.

    Fix: more mechanisms and categories; or keep one task of each skeleton.
    """
    worlds = list({task.world.hash: task.world.signature for task in case.tasks}.values())
    programs = [task.program for task in case.tasks if task.program is not None]
    findings: list[Finding] = []
    evidence: dict[str, JsonValue] = {"unreadable": sum(task.unreadable for task in case.tasks)}
    limits = (("worlds", worlds, case.limits.distinct_worlds), ("programs", programs, case.limits.distinct_programs))
    for what, marks, least in limits:
        evidence[what] = len(marks)
        if not marks:
            continue
        share = len({*marks}) / len(marks)
        evidence |= {f"distinct_{what}": len({*marks}), f"{what}_curve": [[*point] for point in distinct_curve(marks)]}
        if share < least:
            message = f"{len({*marks})} of {len(marks)} {what} differ in structure ({share:.0%}, at least {least:.0%})"
            findings.append(
                Finding(code="ST604", message=message, fix="other mechanisms, or one task of each structure")
            )
    status = "fail" if findings else "pass"
    return GateResult(code="ST604", status=status, findings=tuple(findings), evidence=evidence)


def distinct_curve(marks: Sequence[str]) -> list[tuple[int, int]]:
    """Count the different ones among the first so many.

    Args:
        marks: Signatures in order.

    Returns:
        Pairs of a size and the number of different ones among so many; the last size is that of the whole.
    """
    sizes = [*(size for size in SIZES if size < len(marks)), len(marks)]
    return [(size, len({*marks[:size]})) for size in sizes if size]


@rule("ST605", "no class of tasks, operator or mechanism crowds out the others")
def balance(case: SetCase) -> GateResult:
    """Measure how tasks spread over classes, last operators and mechanisms.

    The evidence has for each: the entropy in bits, how many equally frequent values would have it (`effective`), and the
    most frequent value with its share, which may be 80 % at most. A task counts for each mechanism of its world, and a root
    for no operator. Counts below 20 are not judged.

    Why: an average over a set says how the most frequent class does.

    Fix: synthesize other categories, or freeze a suite with fewer tasks of the class that the message names.
    """
    counts = {
        "kinds": Counter(task.kind for task in case.tasks),
        "operators": Counter(task.operator for task in case.tasks if task.operator),
        "mechanisms": Counter(name for task in case.tasks for name in task.world.mechanisms),
    }
    evidence: dict[str, JsonValue] = {what: spread(found) for what, found in counts.items() if found}
    judged = {what: found for what, found in counts.items() if found.total() >= case.limits.judged_from}
    if not judged:
        why = f"fewer than {case.limits.judged_from} tasks: too few to judge shares"
        return GateResult(code="ST605", status="skipped", evidence={**evidence, "why": why})
    findings: list[Finding] = []
    for what, found in judged.items():
        name, count = found.most_common(1)[0]
        if count > case.limits.largest_share * found.total():
            message = f"{count} of {found.total()} {what} are {name!r} (at most {case.limits.largest_share:.0%})"
            findings.append(Finding(code="ST605", message=message, where=what, fix="fewer tasks of it, or more others"))
    status = "fail" if findings else "pass"
    return GateResult(code="ST605", status=status, findings=tuple(findings), evidence=evidence)


def spread(counts: Mapping[str, int]) -> dict[str, JsonValue]:
    """Describe a distribution.

    Args:
        counts: How often each value occurs; at least one does.

    Returns:
        Entropy in bits, effective number of values, how many there are, and the most frequent with its share.
    """
    total = sum(counts.values())
    entropy = -sum(count / total * log2(count / total) for count in counts.values() if count)
    top, most = max(counts.items(), key=lambda item: (item[1], item[0]))
    return {
        "entropy_bits": round(entropy, 3) + 0.0,
        "effective": round(2**entropy, 2),
        "values": len(counts),
        "most": top,
        "share": round(most / total, 3),
    }
