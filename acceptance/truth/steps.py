"""Puts together what the slots of a sentence matched."""

from __future__ import annotations

from acceptance.truth.frames import GOALS
from acceptance.truth.program import (
    Act,
    Best,
    ChoiceTotal,
    Choose,
    Each,
    Follow,
    Found,
    Group,
    Named,
    Only,
    Step,
    Total,
    Try,
    When,
)


def step_of(kind: str, found: Found, nouns: dict[str, tuple[str, str]]) -> Step | None:
    """What a matched frame asks for.

    Args:
        kind: The kind of its sentence.
        found: What its slots matched.
        nouns: Singular and plural by entity.

    Returns:
        The step; None when the parts do not fit one another.
    """
    if kind in ("act", "try", "when", "each"):
        return _doing(kind, found)
    if kind in ("group", "group_sum"):
        return _grouped(found)
    step: Step
    fits = True
    match kind:
        case "best":
            (largest, term), rows = found["peak"], found["rows"]
            step = Best(found["new"], rows, term, largest)
            fits = term.attribute.entity == rows.entity == found.get("noun", rows.entity)
            fits = fits and found.get("again") in (None, nouns[rows.entity][0])
        case "only":
            step = Only(found["new"], found["one"])
            fits = found.get("again") in (None, nouns[found["one"].entity][0])
        case "follow":
            step = Follow(found["new"], found["link"])
        case "count":
            step = Total(found["new"], next(found[slot] for slot in ("rows", "some", "there") if slot in found), None)
        case "sum":
            step = Total(found["new"], found["rows"], found["term"])
            fits = found["term"].attribute.entity == found["rows"].entity
        case "choice_total":
            step = ChoiceTotal(found["new"], found["set"], found["term"], found["end"])
            fits = found["same"] == found["set"]
        case _:
            size, rows, demands = found["choice"]
            best = any(demand.kind in GOALS for demand in demands)
            step = Choose(found["new"], size, rows, demands, kind == "choose_or_none")
            fits = found.get("same", step.name) == step.name
            fits = fits and best == (found["which"] == "best") and found.get("chosen", rows.entity) == rows.entity
    return step if fits else None


def belongs(step: Step, before: tuple[Step, ...]) -> bool:
    """Whether a step may follow others.

    The total of a choice goes with one that may be empty, of which this total and no other has a bound, on one side; the
    bound says which end is the nearest.

    Args:
        step: The step.
        before: What the sentences before it ask for.
    """
    if not isinstance(step, ChoiceTotal):
        return True
    choice = next(item for item in before if isinstance(item, Choose) and item.name == step.choice)
    bounds = [(demand.kind, demand.term) for demand in choice.demands if demand.value is not None]
    signs = (">=", ">") if step.largest else ("<=", "<")
    return choice.may_be_empty and len(bounds) == 1 and bounds[0][0] in signs and bounds[0][1] == step.term


def _grouped(found: Found) -> Step | None:
    relation, term = found["relation"], None
    if "many" in found:
        largest, rows = found["many"]
    elif "total" in found:
        (largest, term), rows = found["total"], found["rows"]
    else:
        largest, rows = found["count"], found["rows"]
    fits = relation.entity == rows.entity and found.get("again", relation.label) == relation.label
    fits = fits and found["none"] in ("", relation.unit) and (term is None or term.attribute.entity == rows.entity)
    return Group(found["new"], relation, rows, term, largest, bool(found["none"])) if fits else None


def _doing(kind: str, found: Found) -> Step | None:
    """The same for sentences with an action: only one that is done for each row may say "it"."""
    act, other = found["act"], found.get("other")
    if _uses_it(other) or _uses_it(act) != (kind == "each"):
        return None
    if kind == "act":
        return act
    if kind == "try":
        return Try(found["new"], act)
    if kind == "each":
        return Each(found["rows"], act)
    left, sign, right = found["test"]
    return When(left, sign, right, act, other)


def _uses_it(act: Act | None) -> bool:
    return act is not None and any(isinstance(value, Named) and value.name == "it" for _, value in act.arguments)
