"""Reads the policy of a world. An entry that is not known here and names a table of the three mechanisms is not covered.

Other entries may be about other mechanisms: whatever they say must not matter, and what matters is asked for by name.

A template is one policy entry. `<site>` is the singular of an entity, `<sites>` its plural; `a <site>` may be `an`.
`{name#}` is a number, `{name@}` a day, `{name=...}` words; `[...]` may be absent, `(...|...)` is one of several.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from acceptance.truth.world import NotCoveredError

TEMPLATES: dict[str, str] = {
    "snapshot": "Descriptions and conditions in a request are about the state before the first change that it asks for.",
    "all_rows": "A request with conditions covers everything that meets them, also what a rule leaves out of a value that the rule "
    "defines.",
    # booking
    "hours": "Opening hours are from {opens#} to {closes#} o'clock, every day; hours are on the 24-hour clock.",
    "counts": "A <booking> counts if its status is {counting=active[ or tentative]}; [tentative and ]cancelled <bookings> do "
    "not count.",
    "booked": "The booked hours of a <resource> on a day are the sum of the lengths, from start hour to end hour, of its "
    "<bookings> of that day that count.",
    "free": "A <resource> is free on a day from one hour to another if that span lies within the opening hours and ends "
    "after it starts,[{closed= the <resource> has no <closure> on that day,}] and (none of its <bookings> of that day that "
    "count overlaps the span; one may start in the hour in which another ends|every one of its <bookings> of that day that "
    "counts ends at least {gap#} hour[s] before the span starts or starts at least {gap_after#} hour[s] after the span ends).",
    "charge": "The charge of a <resource> from one hour to another is its hourly rate for each hour of the span[; each hour "
    "that begins at {evening#} o'clock or later is charged double]. A span that does not end after it starts is charged 0.",
    "booked_time": "The booked time of a <person> on a day is the sum of the lengths in hours of the <bookings> of that day "
    "that the <person> holds and that count.",
    "book": "A <resource> can be booked when it is free for the whole span, for at most its capacity.[ A new <booking> may "
    "last at most {longest#} hour[s].][ The booked time of the <person> on that day plus the length of the new <booking> "
    "may not exceed {daily#} hour[s].][ A new <booking> for more than {party#} people is entered as tentative, any other as "
    "active.]",
    "cancelled": "A cancelled <booking> can be neither cancelled again nor handed over.",
    "hand_over": "To hand over a <booking> makes another <person> its holder and changes nothing else.[ The new holder's "
    "booked time on that day plus its length may not exceed {handed#} hour[s].]",
    "order_booking": "A <booking> is out of order when it breaks one of these rules, else it is in order. A <booking> breaks "
    "the rule 'overlap' when it counts, and another <booking> that counts, of the same <resource> and day and for more people, "
    "has an hour in common with it. A <booking> breaks the rule 'crowd' when it counts and its headcount is more than the "
    "capacity of its <resource>.[{shut= A <booking> breaks the rule 'closed' when it counts and its <resource> has a <closure> "
    "on its day.}]",
    "rule_booking": "The initially broken rule of a <booking> is the name of the first of the rules of order above that it "
    "breaks before anything is changed; it is 'none' when the <booking> is in order.",
    "mend_booking": "To put a <booking> in order, cancel the <booking>; nothing else may change.",
    # itinerary
    "route": "A route is a chain of at most {chain#} <legs> of one day, each with free seats; each starts at the <site> "
    "where the one before ended, at least {change#} hour[s] after its arrival. Every <leg> runs every day, within the day.",
    "seats": "The free seats of a <leg> are its seat count less its <tickets>[, less {kept#} that is kept back, but never "
    "below 0][{refunds=; refunded <tickets> do not count}].",
    "arrival": "The arrival time at a <site> from another, leaving at or after an hour, is the earliest arrival of any route "
    "whose first departure is not before that hour. Without a route it counts as {never#} o'clock; from a <site> to itself "
    "it is that hour.",
    "fare": "The route fare from one <site> to another is that of the cheapest route, at any hour: its basic fares added "
    "up[ plus a fee of {fee#} credits per <leg>]. Without a route it counts as {no_fare#} credits; from a <site> to itself "
    "it is 0.",
    "visit": "A <attraction> is open long enough on arrival if there (is|are) at least {stay#} hour[s] left until its closing "
    "hour, counted from the arrival time at its <site> or from its opening hour, whichever is later.",
    "outing": "The outing cost of a <attraction> from a <site> is its entry price plus the route fare from there to its "
    "<site>.",
    "buy": "To buy <tickets> by the cheapest route, buy one <ticket> for each <leg> of a route with the route fare; every "
    "such route will do that has no <leg> for which the <person> holds a <ticket> already.[{released= A refunded <ticket> "
    "does not count as held.}]",
    "refund": "A refunded <ticket> cannot be refunded again.",
    # allocation
    "exclude": "Two <claims> exclude one another if ({clash=a <clash> names both of them, in either order}|{topic=they have "
    "the same <topic>}), whatever their <funds> are.",
    "together": "Several <claims> of a <fund> can be granted together if each of them is grantable, no two of them exclude "
    "one another, [and ]their {spent=(amounts|full costs)} add up to no more than the free budget of the <fund>[, "
    "and ({all_quotas=every <quota>}[ and {all_persons=the limit on the <claims> of one <person>}]|{persons_only=the limit "
    "on the <claims> of one <person>}) would be kept with all of them granted].",
    "turn_down": "Only a <claim> whose state is {down=open[ or shortlisted]} can be turned down; its state is refused then.",
    "free_budget": "The free budget of a <fund> is its budget[{shares= plus the amounts of its <shares>}[ whose <stage> "
    "is {stage=paid}]][, less a reserve of {reserve#} percent of that, the reserve rounded up to whole credits], less the "
    "{taken=(amounts|full costs)} of its granted <claims>; nothing else lowers it.",
    "grantable": "A <claim> is grantable if all of this holds: its state is {ready=(open|shortlisted)}[; the phase of its "
    "<fund> is {phase=open}][{bar=; its merit is at least the minimum merit of its <fund>}]; its {asked=(amount|full cost)} is at "
    "most the free budget of its <fund>; no granted <claim> excludes it[; {quota=(with it, the granted <claims> of the same <fund> and track are no more in number "
    "than|its amount and those of the granted <claims> of the same <fund> and track add up to no more than)} the ceiling of the "
    "<quota> for that <fund> and track, if there is one][; its <applicant> has fewer than {most#} granted <claims> "
    "in all <funds> together].",
    "full_cost": "The full cost of a <claim> is its amount plus an overhead of {overhead#} percent of the amount, the "
    "overhead rounded up to whole credits.",
    "attainable": "The attainable merit of a <fund> is the most that the merits of any of its <claims> that can be granted "
    "together add up to, 0 if none can be granted.",
    "awarded": "The awarded money of a <person> is the sum of the amounts[, without any overhead,] of the granted <claims> "
    "of that <person>.",
    "grant": "Only a grantable <claim> may be granted; its state is granted then.[ Whoever grants a <claim> also has to turn "
    "down the <claims> whose state is {also_down=open[ or shortlisted]} and that it excludes, of whatever <fund>; this does not happen "
    "by itself.]",
    "distribute": "To distribute a <fund> by merit, grant <claims> of it that can be granted together and whose merits add up "
    "to its attainable merit; every such set will do.",
    "revoke": "A <claim> can be revoked only if it is granted[ and its filing day is {since@} or later]; its state is revoked "
    "then, and nothing else changes.",
    "order_claim": "A <claim> is out of order when it breaks one of these rules, else it is in order. A <claim> breaks the rule "
    "'exclusion' when it is granted and a granted <claim> with more merit excludes it. A <claim> breaks the rule 'overspent' "
    "when it is granted, the free budget of its <fund> is below 0, and every other granted <claim> of that <fund> has more "
    "merit.",
    "rule_claim": "The initially broken rule of a <claim> is the name of the first of the rules of order above that it breaks "
    "before anything is changed; it is 'none' when the <claim> is in order.",
    "mend_claim": "To put a <claim> in order, revoke the <claim>; nothing else may change.",
    "shortlist": "A <claim> can be shortlisted if its state is open[{listed_bar=, its merit is at least the minimum merit of "
    "its <fund>,}] and no more than {listed#} <claims> of its <fund> are shortlisted already; its state is shortlisted then.",
}
"""Every entry of a policy that this reader knows, by a name of its own."""


OWN = (
    "resource", "booking", "closure", "leg", "ticket", "attraction", "fund", "claim", "clash", "topic", "quota", "share",
)  # fmt: skip
"""Tables of the three mechanisms alone; others are shared with more mechanisms."""


@dataclass(frozen=True)
class Rules:
    """What a policy says: the names of its entries, and the values in them."""

    entries: frozenset[str]
    """Names of the entries."""
    values: dict[str, str] = field(default_factory=dict[str, str])
    """What stands in their places."""
    used: set[str] = field(default_factory=set[str], compare=False)
    """Places that were looked at."""

    def text(self, name: str) -> str:
        """Words of the policy, "" when it lacks them."""
        self.used.add(name)
        return self.values.get(name, "")

    def number(self, name: str, otherwise: int | None = None) -> int:
        """A number of the policy, or what holds when the policy may lack it.

        Raises:
            NotCoveredError: the policy lacks a number that it must have.
        """
        told = self.text(name)
        if not told and otherwise is None:
            raise NotCoveredError(f"the policy gives no {name}")
        return int(told) if told else int(otherwise or 0)

    def states(self, name: str) -> frozenset[str]:
        """The words of "open or shortlisted"."""
        return frozenset(self.text(name).split(" or "))

    def need(self, *entries: str) -> None:
        """Insist that the policy has entries.

        Raises:
            NotCoveredError: it lacks one.
        """
        if missing := [entry for entry in entries if entry not in self.entries]:
            raise NotCoveredError(f"the policy says nothing of {', '.join(missing)}")


def read_policy(policy: tuple[str, ...], nouns: dict[str, tuple[str, str]], labels: dict[str, str]) -> Rules:
    """Understand the entries of a policy that are about booking, allocation and itinerary.

    Args:
        policy: The entries.
        nouns: Singular and plural by entity.
        labels: Words of attributes that the policy names: `stage` of a share, `applicant` of a claim.

    Returns:
        What they say.

    Raises:
        NotCoveredError: an entry about them is not known, or is said twice, or the world has none of them.
    """
    words = tuple(sorted((nouns | {key: (label, label) for key, label in labels.items()}).items()))
    own = "|".join(rf"\b{re.escape(noun)}\b" for key in OWN if key in nouns for noun in nouns[key])
    if not own:
        raise NotCoveredError("the world has none of the three mechanisms")
    entries: list[str] = []
    values: dict[str, str] = {}
    for told in policy:
        for name, template in TEMPLATES.items():
            match = re.fullmatch(_pattern(template, words), told)
            if match:
                entries.append(name)
                values.update({key: value for key, value in match.groupdict().items() if value is not None})
                break
        else:
            if re.search(own, told):
                raise NotCoveredError(f"policy not understood: {told[:100]!r}")
    if len(set(entries)) != len(entries):
        raise NotCoveredError("the policy has an entry twice")
    rules = Rules(frozenset(entries), values)
    rules.need("snapshot", "all_rows")
    return rules


@cache
def _pattern(template: str, words: tuple[tuple[str, tuple[str, str]], ...]) -> str:
    """Make a regular expression of a template; a noun that the world lacks matches nothing."""
    plain = {key: noun for key, (noun, _) in words} | {f"{key}s": nouns for key, (_, nouns) in words}

    def part(match: re.Match[str]) -> str:
        article, noun, number, day, named, other = match.group("article", "noun", "number", "day", "named", "other")
        if article:
            return f"{article}n? "
        if noun:
            return re.escape(plain[noun]) if noun in plain else "(?!)"
        if number or day:
            return rf"(?P<{number}>\d+)" if number else rf"(?P<{day}>\d{{4}}-\d\d-\d\d)"
        if named:
            return f"(?P<{named}>"
        return {"[": "(?:", "]": ")?", "(": "(?:", ")": ")", "|": "|", "}": ")"}.get(other) or re.escape(other)

    return re.sub(
        r"\b(?P<article>[Aa]) (?=<)|<(?P<noun>\w+)>|\{(?P<number>\w+)#\}|\{(?P<day>\w+)@\}|\{(?P<named>\w+)=|(?P<other>.)",
        part,
        template,
    )
