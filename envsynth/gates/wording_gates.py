"""Gates SP107 to SP111: does the text leave something open that the task decides? They read any author's words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from pydantic import JsonValue

from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, passed, skipped
from envsynth.gates.wording import loose_limits, tier_faults, tier_groups
from envsynth.record import canonical_json
from envsynth.report import Finding, GateResult
from envsynth.spec import Table

SHOWN = 8
"""Findings of one gate that are listed; the evidence counts all."""


def _told(case: Case) -> str:
    return "\n".join([case.task.prompt, *case.spec.policy])


def _checking(case: Case) -> str:
    """Source and schema of what decides: numbers and names in it are known to a check."""
    verifier = case.task.verifier
    parts = [verifier.definitions, verifier.program, *(atom.expression for atom in verifier.atoms)]
    return "\n".join([*parts, canonical_json(case.task.answer_schema)])


# ------------------------------------------------------------------------------------------------------------ coverage

_NUMERAL = re.compile(r"(?<![\w.])\d(?:[\w:-]|\.(?=\d)|,(?=\d{3}))*")
_DATE = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")
_LISTED = re.compile(r"^\s*\d+[.)]\s", re.M)
_COUNTED = re.compile(
    r"\b(?:at least|at most|no more than|no fewer than|exactly|more than|fewer than|less than)"
    r" (?:a|one|two|three|four|five|six|seven|eight|nine|ten)\b",
    re.I,
)
_SUPERLATIVE = re.compile(
    r"\b(?:cheapest|dearest|most expensive|lowest|highest|smallest|largest|fewest|earliest|latest|shortest|longest|newest"
    r"|oldest|heaviest|lightest|nearest|minimal|maximal|as (?:\w+) as possible)\b",
    re.I,
)
_EXTREME = re.compile(r"\b(?:min|max|sorted|nsmallest|nlargest)\b")
"""What a check that knows of a best row is likely to hold."""


@gate("SP107", "every number, comparison and name of the prompt is known to a check")
def prompt_is_checked(case: Case) -> GateResult:
    """Look for each number, comparison and name of the prompt in the quotes and the source of the goal atoms.

    A name is a text of the world's rows. What stands in no quote, and as no number or text in the atoms' source, nobody
    checks.

    Why: a requirement that is stated and not checked pays actors that ignore it, and an honest one loses turns. Where a
    task program exists, SP106 reads the whole prompt instead; a program verifier quotes nothing, and probes (VF305) hold
    it to the prompt. Fix: add an atom that quotes the words, or take them out of the prompt.
    """
    if case.task.ir is not None:
        return skipped("SP107", "the prompt parses back to the task program (SP106)")
    if case.task.verifier.form != "atoms":
        return skipped("SP107", "a program verifier quotes nothing; VF305 judges its probes")
    prompt, source = case.task.prompt, _checking(case)
    quoted = _quoted(prompt, [atom.quote for atom in case.task.verifier.atoms])
    items = [
        *(("number", text, at) for text, at in _numerals(prompt) if not _knows_number(source, quoted, prompt, text)),
        *(("comparison", match[0], match.start()) for match in _COUNTED.finditer(prompt)),
        *(("comparison", match[0], match.start()) for match in _superlatives(prompt, source)),
        *(("name", text, at) for text, at in _names(case, prompt) if text not in source),
    ]
    loose = [(kind, text) for kind, text, at in items if not quoted & set(range(at, at + len(text)))]
    findings = [
        Finding(
            code="SP107",
            message=f"no check knows the {kind} {text!r} of the prompt",
            where="task.verifier",
            fix="add an atom that quotes it, or take it out of the prompt",
        )
        for kind, text in dict.fromkeys(loose)
    ]
    return failed("SP107", findings[:SHOWN], unknown=len(findings), read=len(_numerals(prompt)))


def _quoted(prompt: str, quotes: Iterable[str]) -> set[int]:
    """Positions of the prompt that some quote covers."""
    covered: set[int] = set()
    for quote in dict.fromkeys(filter(None, quotes)):
        covered.update(
            *(range(found.start(), found.start() + len(quote)) for found in re.finditer(re.escape(quote), prompt))
        )
    return covered


def _numerals(text: str) -> list[tuple[str, int]]:
    listed = {place for match in _LISTED.finditer(text) for place in range(*match.span())}
    found = [(match[0].rstrip(".:-"), match.start()) for match in _NUMERAL.finditer(text)]
    return [(word, at) for word, at in found if at not in listed]


def _plain_numbers(text: str) -> Iterator[float]:
    for word, _ in _numerals(text):
        yield from map(float, re.findall(r"\d+(?:\.\d+)?", word.replace(",", "")))


def _knows_number(source: str, quoted: set[int], prompt: str, word: str) -> bool:
    """Whether the numeral stands in the source, or is a part of a date that a check knows ("1 to 3 October 2025")."""
    if word in source:
        return True
    known = {float(match) for match in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", source)}
    told = "".join(prompt[place] if place in quoted else " " for place in range(len(prompt)))
    for date in _DATE.findall(source + "\n" + told):
        known.update(map(float, date))
    return all(value in known for value in _plain_numbers(word)) and any(True for _ in _plain_numbers(word))


def _superlatives(prompt: str, source: str) -> list[re.Match[str]]:
    return [] if _EXTREME.search(source) else [*_SUPERLATIVE.finditer(prompt)]


def _names(case: Case, prompt: str) -> list[tuple[str, int]]:
    """Texts of the world's rows in the prompt that are names: capital letters or digits, three characters and more."""
    cells = dict.fromkeys(
        cell for column in case.columns for cell in column if isinstance(cell, str) and cell in prompt
    )
    found: list[tuple[str, int]] = []
    for cell in cells:
        if len(cell) > 2 and re.search(r"[A-Z\d]", cell) and not _DATE.fullmatch(cell):
            match = re.search(rf"(?<!\w){re.escape(cell)}(?!\w)", prompt)
            found += [(cell, match.start())] if match else []
    return [(cell, at) for cell, at in found if not any(cell != other and cell in other for other, _ in found)]


# --------------------------------------------------------------------------------------------------------------- tiers


@gate("SP108", "conditional tiers leave no hole and do not overlap")
def tiers_are_whole(case: Case) -> GateResult:
    """Read the conditions of prompt and policy that split a quantity ("800 CNY or more", "500-800 CNY"), as intervals.

    Why: a value in two tiers has two rules, a value in none has no rule, and data have a way of lying on the boundary: in
    the trip-planning task of the paper 500 and 800 lie in two tiers, and below 200 nothing is said (arXiv:2512.02556,
    section 3.2.3). Conditions with their other case ("otherwise") leave nothing open. Fix: give each tier one closed end,
    and say what holds outside of all of them.
    """
    groups = tiers = 0
    faults: list[str] = []
    for text in (case.task.prompt, "\n".join(case.spec.policy)):
        for group in tier_groups(text):
            groups, tiers = groups + 1, tiers + len(group)
            faults += tier_faults(group, text)
    fix = "say of each boundary to which tier it belongs, and what holds outside"
    findings = [Finding(code="SP108", message=fault, where="task.prompt", fix=fix) for fault in faults]
    return failed("SP108", findings, groups=groups, tiers=tiers)


# -------------------------------------------------------------------------------------------------------------- format

_QUOTED_KEY = re.compile(r"[\"'`\u201c]([A-Za-z_]\w*)[\"'`\u201d]\s*:")
_QUOTED_AS = re.compile(r"\b(?:as|field|key) [\"`\u201c]([A-Za-z_]\w*)[\"`\u201d]", re.I)
_QUOTED_SNAKE = re.compile(r"[\"'`\u201c]([A-Za-z]+(?:_[A-Za-z]+)+)[\"'`\u201d]")


@gate("SP109", "the answer format in the prompt is the one of the schema")
def format_agrees(case: Case) -> GateResult:
    """Compare the keys that the prompt states for the answer with those of the answer schema, and spell-check the rest.

    A key is what stands in quotation marks before a colon, or after "as", "field" or "key". Other words with an underscore
    in quotation marks (`"hotel_name"`) must be a topic of the user, or made of words that prompt, schema, tables or tools
    know.

    Why: an actor that does as told and fails on the schema was told wrongly; the published trip-planning task asks for a
    "cite_name". Fix: spell the key as the schema does.
    """
    prompt, keys = case.task.prompt, dict.fromkeys(_keys(case.task.answer_schema))
    known = {*keys, *(fact.topic for fact in case.task.delivery.user)}
    stated = [match[1] for pattern in (_QUOTED_KEY, _QUOTED_AS) for match in pattern.finditer(prompt)]
    wrong = [name for name in stated if name not in known and not _is_cell(case, name)]
    findings = [_misnamed(name, "is no key of the answer schema", [*keys]) for name in wrong]
    for match in _QUOTED_SNAKE.finditer(prompt):
        if match[1] in known or _is_cell(case, match[1]):
            continue
        words = _known_words(case, keys)
        strange = [part for part in match[1].lower().split("_") if _singular(part) not in words]
        if strange:
            findings.append(_misnamed(match[1], f"holds {strange[0]!r}, which nothing else knows", [*words]))
    return failed("SP109", list(dict.fromkeys(findings)), keys=[*keys])


def _is_cell(case: Case, word: str) -> bool:
    return any(cell == word for column in case.columns for cell in column)


def _misnamed(name: str, why: str, known: list[str]) -> Finding:
    near = [word for part in (name, *name.split("_")) for word in difflib.get_close_matches(part, known, 1)]
    near = [word for word in near if word not in name.split("_")]
    fix = f"meant is perhaps {near[0]!r}" if near else "name it as the answer schema does"
    return Finding(code="SP109", message=f"{name!r} in the prompt {why}", where="task.prompt", fix=fix)


def _keys(schema: JsonValue) -> Iterator[str]:
    """Property names at every level of a schema."""
    if isinstance(schema, list):
        for item in schema:
            yield from _keys(item)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        yield from cast("dict[str, Any]", properties) if isinstance(properties, dict) else ()
        for value in schema.values():
            yield from _keys(value)


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    return word[:-1] if word.endswith("s") and len(word) > 3 else word


def _known_words(case: Case, keys: Iterable[str]) -> dict[str, None]:
    bare = _QUOTED_SNAKE.sub(" ", _told(case))
    tables = [name for table in case.spec.world.tables for name in (table.name, *(col.name for col in table.columns))]
    texts = [bare, *keys, *tables, *(tool.name for tool in case.spec.tools), "name names id number date value"]
    return dict.fromkeys(_singular(word) for text in texts for word in re.findall(r"[a-z]+", text.lower()))


# ---------------------------------------------------------------------------------------------------------- strictness


@gate("SP110", "limits say whether they are inclusive")
def limits_are_strict(case: Case) -> GateResult:
    """Look in prompt and policy for limits whose words leave open whether the end belongs to them.

    "Under 350", "within 350", "about 350" and "500-800 CNY" are read one way by one reader and another way by the next;
    "less than", "at most", "at least", "or more" are not. A sentence that says "inclusive", "included" or "strictly" is
    clear.

    Why: verifier and actor may read the boundary differently, and a boundary value decides. Fix: "less than 350", "at
    least 500 and less than 800".
    """
    found = [
        (where, words)
        for where, text in (("task.prompt", case.task.prompt), ("policy", "\n".join(case.spec.policy)))
        for words in loose_limits(text)
    ]
    fix = 'write "less than", "at most", "at least", or say what is included'
    findings = [
        Finding(code="SP110", message=f"{words!r} leaves open whether the end is included", where=where, fix=fix)
        for where, words in found
    ]
    return failed("SP110", findings)


# ----------------------------------------------------------------------------------------------------------- relations


@gate("SP111", "relations between chosen rows are used or spoken of")
def relations_are_settled(case: Case) -> GateResult:
    """Find tables that relate rows of one table to one another, such as a connection from city to city.

    A finding is one of them when the answer names several of those rows and neither text nor verifier mentions it. The
    evidence lists tools that the solution never names: distractors, which are welcome, and those of them whose subject
    no text mentions.

    Why: who plans a journey asks whether its cities must be connected; the published trip-planning task has a tool for
    connections and does not say. Where a task program exists, SP106 shows that the prompt is complete. Fix: state the
    condition, or that there is none.
    """
    used = set(re.findall(r"\w+", case.task.solution))
    unused = [tool.name for tool in case.spec.tools if tool.name not in used]
    if case.task.ir is not None:
        return passed("SP111", unused_tools=len(unused))
    told, checking = _told(case).lower(), set(re.findall(r"\w+", _checking(case)))
    unspoken = [name for name in unused if not _mentions(told, name)]
    leaves = set(_texts(case.task.oracle.answer))
    findings: list[Finding] = []
    for table in case.spec.world.tables:
        target = _related(table)
        if target is None or _mentions(told, table.name) or table.name in checking:
            continue
        chosen = leaves & _names_of(case, target)
        if len(chosen) > 1:
            message = f"the answer names {len(chosen)} rows of {target}, and nothing says whether {table.name} between them matters"
            fix = "state the condition, or that there is none"
            findings.append(Finding(code="SP111", message=message, where="task.prompt", fix=fix))
    return failed("SP111", findings, unused_tools=[*unused], unspoken_tools=[*unspoken])


_VERBS = frozenset(
    ("get", "list", "find", "search", "read", "info", "fact", "detail", "update", "create", "set", "all", "by")
)
"""Words of tools' names that say nothing of their subject."""


def _mentions(text: str, name: str) -> bool:
    """Whether a text holds the noun of a name: its longest word, as compounds put the weight there."""
    words = [_singular(word) for word in name.lower().split("_")]
    noun = max((word for word in words if word not in _VERBS), key=len, default=words[0])
    return re.search(rf"\b{noun[:-1] if noun.endswith('y') else noun}", text) is not None


def _related(table: Table) -> str | None:
    """The table to which two columns of this one refer, or None."""
    targets = [(column.references or "").partition(".")[0] for column in table.columns if column.references]
    return next((target for target in targets if targets.count(target) > 1 and target != table.name), None)


def _names_of(case: Case, name: str) -> set[str]:
    """What identifies the rows of a table: texts of its primary key and its unique columns."""
    table = case.spec.world.table(name)
    places = [
        index for index, column in enumerate(table.columns) if column.unique or (column.name,) == table.primary_key
    ]
    rows = case.spec.world.rows.get(name, ())
    return {str(row[place]) for row in rows for place in places}


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
