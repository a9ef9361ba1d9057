"""Reads limits out of prose: numbers with their comparators, ranges, and conditions that split a quantity into tiers.

It knows no grammar of an author: it looks for the words that people use for limits. Whatever it does not recognise it
leaves alone, so what it says of a text is incomplete and hardly ever wrong.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_NUMBER = r"(\d+(?:,\d{3})*(?:\.\d+)?)"
_BEFORE = r"(?:[A-Z]{3} |[$\u20ac\u00a3\u00a5] ?)?"
"""A currency may stand before its number."""
_UNIT = r"(?: ?(?!or\b|and\b|but\b|to\b|then\b)([A-Za-z%']+))?"

_PREFIXES: tuple[tuple[str, str], ...] = (
    (r"not (?:\w+ )?(?:less|lower|fewer|below|under)(?: than)?|no (?:less|fewer|lower) than|at least|>=|\u2265", ">="),
    (r"not (?:\w+ )?(?:more|higher|above|over|greater)(?: than)?|no (?:more|higher|greater) than|at most|up to", "<="),
    (r"not exceed(?:ing)?|<=|\u2264", "<="),
    (r"(?:more|greater|higher|larger|longer) than|above|over|exceed(?:s|ing)?|>", ">"),
    (r"(?:less|lower|fewer|smaller|cheaper|shorter) than|under|below|<", "<"),
)
_SUFFIXES = (
    (r"(?:or|and) (?:more|higher|above|over|greater|upwards?)", ">="),
    (r"or (?:less|lower|below|fewer)", "<="),
)
_PREFIXED = [(re.compile(rf"(?<![\w<>=])(?:{words}) ?{_BEFORE}{_NUMBER}{_UNIT}", re.I), op) for words, op in _PREFIXES]
_SUFFIXED = [(re.compile(rf"{_NUMBER}{_UNIT}(?: per \w+)?,? (?:{words})\b", re.I), op) for words, op in _SUFFIXES]
_RANGES = (
    re.compile(rf"\b(?:between|from) {_BEFORE}{_NUMBER}(?: \w+)? (?:and|to) {_BEFORE}{_NUMBER}{_UNIT}", re.I),
    re.compile(rf"(?<![\w.-]){_NUMBER} ?[-\u2013] ?{_NUMBER}(?!-){_UNIT}"),
)
_LOOSE = re.compile(
    rf"\b(?:under|over|within|around|about|approximately|roughly|nearly|almost)\b {_BEFORE}{_NUMBER}(?![-:\d]){_UNIT}",
    re.I,
)
_MONTHS = frozenset(
    re.findall(r"\w+", "january february march april may june july august september october november december")
)
_INCLUSIVE = re.compile(r"\b(?:inclusive(?:ly)?|exclusive(?:ly)?|included|excluded|strictly)\b", re.I)


@dataclass(frozen=True)
class Limit:
    """A stretch of a quantity, as words state it."""

    text: str
    """The words."""
    start: int
    """Where they begin in their text."""
    low: float
    """Lower end, or minus infinity."""
    high: float
    """Upper end, or infinity."""
    low_in: bool
    """Whether the lower end belongs to it."""
    high_in: bool
    """Whether the upper end belongs to it."""
    unit: str
    """The word after the number, or nothing."""

    def holds(self, value: float) -> bool:
        """Whether a value lies in the stretch."""
        above = value > self.low or (self.low_in and value == self.low)
        return above and (value < self.high or (self.high_in and value == self.high))


def _value(text: str) -> float:
    return float(text.replace(",", ""))


def _one_sided(match: re.Match[str], op: str) -> Limit:
    number, unit = _value(match[1]), match[2] or ""
    if op in (">", ">="):
        return Limit(match[0], match.start(), number, math.inf, op == ">=", False, unit)
    return Limit(match[0], match.start(), -math.inf, number, False, op == "<=", unit)


def limits(text: str) -> list[Limit]:
    """Find all limits in a text, in order; the words of one limit count once.

    Args:
        text: Prose.

    Returns:
        One-sided limits and ranges, ranges with both ends.
    """
    found: list[Limit] = []
    taken: set[int] = set()
    for pattern in _RANGES:
        for match in pattern.finditer(text):
            unit, low, high = match[3] or "", _value(match[1]), _value(match[2])
            if low < high and not taken & set(range(*match.span())) and unit.lower() not in _MONTHS:
                found.append(Limit(match[0], match.start(), low, high, True, True, unit))
                taken.update(range(*match.span()))
    for pattern, op in (*_SUFFIXED, *_PREFIXED):
        for match in pattern.finditer(text):
            if not taken & set(range(*match.span())):
                found.append(_one_sided(match, op))
                taken.update(range(*match.span()))
    return sorted(found, key=lambda limit: limit.start)


def sentences(text: str) -> list[str]:
    """Split a text into sentences: at line ends, and at full stops that no digit or small letter follows."""
    return [part.strip() for part in re.split(r"\n+|(?<=[.!?])\s+(?=[^a-z\d])", text) if part.strip()]


@functools.lru_cache(maxsize=64)
def loose_limits(text: str) -> tuple[str, ...]:
    """Words for limits that leave open whether the end belongs to them.

    Args:
        text: Prose.

    Returns:
        "under 350", "500-800 CNY" and the like, in order; sentences that say what is included are left out.
    """
    found: list[str] = []
    for sentence in sentences(text):
        if _INCLUSIVE.search(sentence):
            continue
        matches = [*_LOOSE.finditer(sentence), *(m for pattern in _RANGES for m in pattern.finditer(sentence))]
        matches = [match for match in matches if match.re is _LOOSE or _is_amount(match)]
        found += [match[0].strip() for match in sorted(matches, key=lambda item: item.start())]
    return tuple(dict.fromkeys(found))


def _is_amount(match: re.Match[str]) -> bool:
    """A range of an amount has a unit; dates, hours of a day and counts of pages are no limits."""
    unit = (match[3] or "").lower()
    return bool(unit) and unit not in _MONTHS | {"o'clock", "in", "of"} and _value(match[1]) < _value(match[2])


# ---------------------------------------------------------------------------------------------------------------- tiers

_CONDITION = re.compile(r"\b(if|when|whenever|in case|where|for)\b\s+((?:\([^)]*\)|\d[\d,]*\d|[^,;:()])+)", re.I)
_OTHERWISE = re.compile(r"\b(?:otherwise|else|in (?:any|all|every) other cases?|if not|if no)\b", re.I)
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an the is are in on of to and or that this its it if then than at least most more less no not each with for"
        " has have be was were per any all costs cost which whose when i my you your day up end range",
    )
)


@dataclass(frozen=True)
class Tier:
    """A condition on a quantity."""

    clause: str
    """Its words."""
    subject: frozenset[str]
    """Words that say of what."""
    stretch: Limit
    """Which values it holds for."""
    conditional: bool
    """Whether it begins with "if" or its like; "for" begins other things as well."""


def _stem(word: str) -> str:
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


def _subject(clause: str) -> frozenset[str]:
    words = re.findall(r"[a-z]+", clause.lower())
    return frozenset(_stem(word) for word in words if word not in _STOP and len(word) > 2)


def _joined(parts: list[Limit]) -> Limit | None:
    """One stretch of all limits of a clause, when they are about one quantity."""
    units = {limit.unit.lower(): limit.unit for limit in parts if limit.unit}
    low = max(parts, key=lambda limit: (limit.low, not limit.low_in))
    high = min(parts, key=lambda limit: (limit.high, limit.high_in))
    if len(units) > 1 or len(parts) > 2 or low.low >= high.high:
        return None
    text = " and ".join(limit.text for limit in parts)
    return Limit(text, parts[0].start, low.low, high.high, low.low_in, high.high_in, next(iter(units.values()), ""))


def _tiers_of(text: str) -> Iterator[Tier]:
    for sentence in sentences(text):
        if _OTHERWISE.search(sentence):
            continue  # a condition with its other case leaves nothing open
        for match in _CONDITION.finditer(sentence):
            parts = limits(match[2])
            stretch = _joined(parts) if parts else None
            bounded = stretch is not None and math.inf not in (-stretch.low, stretch.high)
            conditional = match[1].lower() != "for"
            if stretch is not None and (conditional or bounded):
                yield Tier(match[0].strip(), _subject(match[2][: parts[0].start]), stretch, conditional)


@functools.lru_cache(maxsize=64)
def tier_groups(text: str) -> tuple[tuple[Tier, ...], ...]:
    """Find conditions that split one quantity into tiers.

    Args:
        text: Prose.

    Returns:
        Groups of at least two conditions that share a word of their subject and the unit, one of them with both ends; a
        condition within another one (a rule on top of a rule) makes no tiers.
    """
    groups: list[list[Tier]] = []
    for tier in _tiers_of(text):
        for group in groups:
            if all(_same_quantity(tier, other) for other in group):
                group.append(tier)
                break
        else:
            groups.append([tier])
    return tuple(tuple(group) for group in groups if _splits(group))


def _same_quantity(one: Tier, other: Tier) -> bool:
    return one.stretch.unit.lower() == other.stretch.unit.lower() and bool(one.subject & other.subject)


def _splits(group: Sequence[Tier]) -> bool:
    pairs = itertools.permutations([tier.stretch for tier in group], 2)
    nested = any(_within(one, other) for one, other in pairs)
    ends = [tier.stretch for tier in group if math.inf not in (-tier.stretch.low, tier.stretch.high)]
    return len(group) > 1 and not nested and bool(ends) and any(tier.conditional for tier in group)


def _within(one: Limit, other: Limit) -> bool:
    low = one.low > other.low or (one.low == other.low and (other.low_in or not one.low_in))
    return low and (one.high < other.high or (one.high == other.high and (other.high_in or not one.high_in)))


def tier_faults(group: Sequence[Tier], text: str) -> list[str]:
    """Say where tiers overlap, and where none applies.

    Args:
        group: From `tier_groups`.
        text: The whole text: a limit without a condition, such as "must not cost less than 200", closes an end.

    Returns:
        One sentence per fault, from low to high.
    """
    tiers = sorted(group, key=lambda tier: (tier.stretch.low, tier.stretch.high))
    faults: list[str] = []
    floor, ceiling = tiers[0].stretch, max((tier.stretch for tier in tiers), key=lambda limit: limit.high)
    closed = _unconditional(text)
    if floor.low > 0 and math.isfinite(floor.low) and not any(limit.low == floor.low for limit in closed):
        faults.append(f"no tier says what holds below {floor.low:g} {floor.unit}".rstrip())
    for one, other in itertools.pairwise(tiers):
        low, high = other.stretch, one.stretch
        both = low.low < high.high or (low.low == high.high and low.low_in and high.high_in)
        none = low.low > high.high or (low.low == high.high and not low.low_in and not high.high_in)
        if both:
            what = f"{low.low:g}" if low.low == high.high else f"from {low.low:g} to {high.high:g}"
            faults.append(f"{what} {low.unit}".rstrip() + f" is in two tiers: {one.clause!r} and {other.clause!r}")
        elif none:
            what = f"{low.low:g}" if low.low == high.high else f"between {high.high:g} and {low.low:g}"
            faults.append(f"no tier says what holds at {what} {low.unit}".rstrip())
    if math.isfinite(ceiling.high) and not any(limit.high == ceiling.high for limit in closed):
        faults.append(f"no tier says what holds above {ceiling.high:g} {ceiling.unit}".rstrip())
    return faults


def _unconditional(text: str) -> list[Limit]:
    return [limit for sentence in sentences(text) if not _CONDITION.search(sentence) for limit in limits(sentence)]
