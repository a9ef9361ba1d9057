"""H3, second form: describe a named row as the one that most or fewest others belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from envsynth.author.procedural.ir import Attr, GroupBy, Let, Named, Ref, Task, fresh_var, swap, walk
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected

DRAWS = 16
"""Draws of a condition and a total for one relation of one named row."""
MOST_DRAWS = 64
"""Draws in all: each asks the oracle for members."""
GROUP_SKILLS = frozenset({"no_aggregation", "first_match", "no_filter", "wrong_boundary", "no_pagination"})
"""Skills that comparing groups can make necessary."""

_Key = int | str


def add_group(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H3: replace a named row by the one for which the number, or a total, of the rows related to it is extreme.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal; the description resolves to the named row alone, and to another without its condition.

    Raises:
        Rejected: no named row that others are related to, no skill to gain, or no such description.
    """
    if sampler.needed >= GROUP_SKILLS:
        raise Rejected("no_site", "comparing groups would need no new skill")
    sites = [
        (node, entity, rel)
        for node in walk(task)
        if isinstance(node, Named)
        for entity, rel, _ in sampler.relations(node.entity)
    ]
    if not sites:
        raise Rejected("no_site", "no named row that others are related to")
    sampler.rng.shuffle(sites)
    for site, entity, rel in sites[: MOST_DRAWS // DRAWS]:
        node = _description(sampler, entity, rel, sampler.row(site)["id"])
        if node is not None:
            var = fresh_var(task)
            child = swap(task, site, Ref(var))
            steps = (Let(var, node), *child.steps)
            params: dict[str, JsonValue] = {"var": var, "entity": entity, "measure": node.agg}
            return Edit(Task(steps, child.report), sampler.overlay, params)
    raise Rejected("no_group", "no count or total singles out a named row")


def _description(sampler: Sampler, entity: str, rel: str, target: _Key) -> GroupBy | None:
    """A comparison of groups that the target wins, and that whoever lacks a skill which is aimed at gets wrong."""
    related = sampler.oracle.values(entity, Attr(rel))
    mine = [row_id for row_id, owner in related.items() if owner == target]
    for _ in range(DRAWS if mine else 0):
        atom = sampler.atom(entity, sampler.rng.choice(mine))
        if atom.attr.name == rel:
            continue
        attr = sampler.measure(entity)
        values = sampler.oracle.values(entity, attr) if attr is not None else dict.fromkeys(related, 1)
        members = sampler.oracle.ids(entity, (atom,))
        shares = [(related[row_id], values[row_id]) for row_id in members]
        everyone = [(related[row_id], values[row_id]) for row_id in related]
        for direction in sampler.rng.sample(("max", "min"), 2):
            if _winner(shares, direction) != target or _winner(everyone, direction) == target:
                continue
            if target not in _careless(sampler, shares, direction):
                return GroupBy(entity, (atom,), rel, "sum" if attr else "count", direction, attr)
    return None


def _winner(shares: Sequence[tuple[object, object]], direction: str) -> object:
    """Whose shares come to the most or least, None when nobody's do, or nobody else is there to compare with."""
    totals: dict[object, int] = {}
    for owner, share in shares:
        if owner is None or not isinstance(share, int):
            return None
        totals[owner] = totals.get(owner, 0) + share
    return _extreme(totals, direction) if len(totals) > 1 else None


def _extreme(totals: Mapping[object, int], direction: str) -> object:
    best = max(totals.values()) if direction == "max" else min(totals.values())
    winners = [owner for owner, total in totals.items() if total == best]
    return winners[0] if len(winners) == 1 else None


def _careless(sampler: Sampler, shares: Sequence[tuple[object, object]], direction: str) -> list[object]:
    """Whom those take who take the first row's, or judge everybody by a first row; skills that are needed do not count."""
    found: list[object] = []
    if "first_match" not in sampler.needed:
        found.append(shares[0][0])
    if "no_aggregation" not in sampler.needed:
        firsts: dict[object, int] = {}
        for owner, share in shares:
            if isinstance(share, int):
                firsts.setdefault(owner, share)
        best = max(firsts.values()) if direction == "max" else min(firsts.values())
        found.append(next(owner for owner, share in firsts.items() if share == best))
    return found
