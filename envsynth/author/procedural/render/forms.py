"""Words of the prompt language as the renderer writes it: sentence forms, comparators, superlatives.

The parser has tables of its own; neither side may read the other's. Round-trip tests hold them together.
"""

from __future__ import annotations

from typing import Literal

Register = Literal["plain", "formal", "terse"]
"""Tone of a prompt: as to a colleague, as in a contract, as in a note."""

REGISTERS: tuple[Register, ...] = ("plain", "formal", "terse")
"""All registers."""

FORMS: dict[str, dict[Register, tuple[str, ...]]] = {
    "pick": {
        "plain": (
            "Find the {one} with the {extreme} {attr} among {pool}; call it {var}.",
            "Among {pool}, find the {one} with the {extreme} {attr}; call it {var}.",
            "Of {pool}, take the one with the {extreme} {attr} and call it {var}.",
        ),
        "formal": (
            "Let {var} denote the {one} with the {extreme} {attr} among {pool}.",
            "Determine the {one} that has the {extreme} {attr} among {pool}; it is referred to as {var}.",
            "Among {pool}, let {var} be the {one} with the {extreme} {attr}.",
        ),
        "terse": (
            "{var} = the {one} with the {extreme} {attr} among {pool}.",
            "{var}: among {pool}, the {one} with the {extreme} {attr}.",
            "Get {var}: the {one} with the {extreme} {attr} among {pool}.",
        ),
    },
    "only": {
        "plain": (
            "Find the {row}; call it {var}.",
            "Look up the {row} and call it {var}.",
            "Take the {row}; call it {var}.",
        ),
        "formal": (
            "Let {var} denote the {row}.",
            "Determine the {row}; it is referred to as {var}.",
            "Let {var} be the {row}.",
        ),
        "terse": (
            "{var} = the {row}.",
            "{var}: the {row}.",
            "Get {var}: the {row}.",
        ),
    },
    "to": {
        "plain": (
            "Look up the {rel} of {src}; call it {var}.",
            "Find the {rel} of {src} and call it {var}.",
            "Check what the {rel} of {src} is; call it {var}.",
        ),
        "formal": (
            "Let {var} denote the {rel} of {src}.",
            "Determine the {rel} of {src}; it is referred to as {var}.",
            "Let {var} be the {rel} of {src}.",
        ),
        "terse": (
            "{var} = the {rel} of {src}.",
            "{var}: the {rel} of {src}.",
            "Get {var}: the {rel} of {src}.",
        ),
    },
    "count": {
        "plain": (
            "Count {pool}; call the number {var}.",
            "Work out how many {rows} there are; call the number {var}.",
            "Find the number of {rows} and call it {var}.",
        ),
        "formal": (
            "Let {var} denote the number of {rows}.",
            "Determine the number of {rows}; it is referred to as {var}.",
            "Let {var} be the count of {rows}.",
        ),
        "terse": (
            "{var} = the number of {rows}.",
            "{var}: count of {rows}.",
            "Get {var}: the number of {rows}.",
        ),
    },
    "sum": {
        "plain": (
            "Add up the {attr} over {pool}; call the sum {var}.",
            "For {pool}, add up the {attr}; call the sum {var}.",
            "Find the sum of the {attr} over {pool} and call it {var}.",
        ),
        "formal": (
            "Let {var} denote the sum of the {attr} over {pool}.",
            "Determine the sum of the {attr} over {pool}; it is referred to as {var}.",
            "Over {pool}, let {var} be the sum of the {attr}.",
        ),
        "terse": (
            "{var} = the sum of the {attr} over {pool}.",
            "{var}: over {pool}, the sum of the {attr}.",
            "Get {var}: the sum of the {attr} over {pool}.",
        ),
    },
    "choose": {
        "plain": (
            "Choose {chosen}{tail}; call them {var} ({ties}).",
            "Pick {chosen}{tail}, and call them {var} ({ties}).",
            "Select {chosen}{tail}, to be called {var}; {ties}.",
        ),
        "formal": (
            "Let {var} denote {chosen}{tail}; {ties}.",
            "Determine {chosen}{tail}, referred to as {var}; {ties}.",
            "Let {var} be a selection of {chosen}{tail}; {ties}.",
        ),
        "terse": (
            "{var} = {chosen}{tail} ({ties}).",
            "{var}: {chosen}{tail}; {ties}.",
            "Get {var}: {chosen}{tail} ({ties}).",
        ),
    },
    "reach": {
        "plain": (
            "Work out the combined {attr} of {set} or, if {set} is empty, the {extreme} one possible without the bound "
            "on it; call it {var}.",
            "Add up the {attr} over {set}, or if {set} is empty, take the {extreme} total possible without the bound on "
            "it; call this {var}.",
            "Find the combined {attr} of {set}; if {set} is empty, find the {extreme} one possible without the bound on "
            "it instead. Call it {var}.",
        ),
        "formal": (
            "Let {var} denote the sum of the {attr} over {set} or, if {set} is empty, the {extreme} sum possible without "
            "the bound on it.",
            "Determine the sum of the {attr} over {set} or, should {set} be empty, the {extreme} sum possible without the "
            "bound on it; it is referred to as {var}.",
            "Let {var} be the sum of the {attr} over {set}; if {set} is empty, the {extreme} sum possible without the "
            "bound on it.",
        ),
        "terse": (
            "{var} = combined {attr} of {set}; if {set} is empty, the {extreme} one possible without the bound on it.",
            "{var}: combined {attr} of {set}, or if {set} is empty, the {extreme} one possible without the bound on it.",
            "Get {var}: the combined {attr} of {set}; for an empty {set}, the {extreme} one possible without the bound "
            "on it.",
        ),
    },
    "first_act": {
        "plain": ("Please {act}.", "I need you to {act}.", "Your task: {act}."),
        "formal": ("You are to {act}.", "It is required to {act}.", "Kindly {act}."),
        "terse": ("Do: {act}.", "Action: {act}.", "To do: {act}."),
    },
    "act": {
        "plain": ("Then {act}.", "Next, {act}.", "After that, {act}."),
        "formal": (
            "Subsequently, {act}.",
            "It is then required to {act}.",
            "You are then to {act}.",
        ),
        "terse": ("Do: {act}.", "Action: {act}.", "To do: {act}."),
    },
    "try": {
        "plain": (
            "If the rules allow it, {act}; {var} is 'done' or, if it is refused, 'denied'.",
            "Try to {act}; call the outcome {var}: 'done' or, if it is refused, 'denied'.",
            "Should the rules allow it, {act}; call what comes of it {var}: 'done' or, if it is refused, 'denied'.",
        ),
        "formal": (
            "Provided that the rules allow it, {act}; {var} denotes 'done' or, if it is refused, 'denied'.",
            "You are to {act} if the rules allow it; {var} denotes 'done' or, if it is refused, 'denied'.",
            "Kindly attempt to {act}; let {var} denote 'done' or, if it is refused, 'denied'.",
        ),
        "terse": (
            "If allowed: {act}; {var} = 'done' or, if refused, 'denied'.",
            "Try: {act}; {var} = 'done' or, if refused, 'denied'.",
            "Attempt: {act}; {var}: 'done' or, if refused, 'denied'.",
        ),
    },
    "if": {
        "plain": (
            "If {cond}, {then}; otherwise, {other}.",
            "Check whether {cond}: if so, {then}; if not, {other}.",
            "When {cond}, {then}; in any other case, {other}.",
        ),
        "formal": (
            "Provided that {cond}, {then}; otherwise, {other}.",
            "Should it hold that {cond}, {then}; otherwise, {other}.",
            "In case {cond}, {then}; in any other case, {other}.",
        ),
        "terse": (
            "If {cond}: {then}; else: {other}.",
            "Test: {cond}? If yes, {then}; if no, {other}.",
            "When {cond}: {then}; else: {other}.",
        ),
    },
    "foreach": {
        "plain": (
            "For each of {these}, {act}.",
            "Take each of {these} in turn and {act}.",
            "Go through {these} and, for each of them, {act}.",
        ),
        "formal": (
            "For each of {these}, you are to {act}.",
            "With regard to each of {these}, {act}.",
            "Each of {these} is to be handled as follows: {act}.",
        ),
        "terse": (
            "For each of {these}: {act}.",
            "Each of {these}: {act}.",
            "Do for each of {these}: {act}.",
        ),
    },
    "report": {
        "plain": ("Report {values}.", "Answer with {fields}.", "At the end, give {values}."),
        "formal": (
            "The answer shall state {values}.",
            "The answer shall consist of {fields}.",
            "Kindly report {values}.",
        ),
        "terse": ("Answer: {fields}.", "Report: {values}.", "Return {fields}."),
    },
    "no_report": {
        "plain": (
            "No report is needed: answer with an empty object.",
            "There is nothing to report: answer with an empty object.",
            "When this is done, answer with an empty object.",
        ),
        "formal": (
            "The answer shall be an empty object.",
            "No statement is required; the answer shall be an empty object.",
            "Upon completion, an empty object shall be given as the answer.",
        ),
        "terse": (
            "Answer: an empty object.",
            "Report: an empty object.",
            "Return an empty object.",
        ),
    },
}
"""Sentence forms by kind and register; every kind has three paraphrases per register."""

AMOUNT: dict[Register, dict[str, str]] = {
    "plain": {
        ">=": "at least ",
        "<=": "at most ",
        ">": "more than ",
        "<": "less than ",
        "==": "exactly ",
        "!=": "not ",
    },
    "formal": {
        ">=": "no less than ",
        "<=": "no more than ",
        ">": "greater than ",
        "<": "lower than ",
        "==": "equal to ",
        "!=": "different from ",
    },
}
"""Comparators of amounts, after "is "."""

DAY: dict[Register, dict[str, str]] = {
    "plain": {
        ">=": "on or after ",
        "<=": "on or before ",
        ">": "after ",
        "<": "before ",
        "==": "",
        "!=": "not ",
    },
    "formal": {
        ">=": "no earlier than ",
        "<=": "no later than ",
        ">": "later than ",
        "<": "earlier than ",
        "==": "equal to ",
        "!=": "different from ",
    },
}
"""Comparators of days, after "is "."""

HOUR: dict[Register, dict[str, str]] = {
    "plain": {
        ">=": "at or after ",
        "<=": "at or before ",
        ">": "after ",
        "<": "before ",
        "==": "",
        "!=": "not ",
    },
    "formal": DAY["formal"],
}
"""Comparators of hours of the day, after "is "."""

SAME = {"==": "", "!=": "not "}
"""Comparators of rows and texts, after "is "; the same in the plain and the formal register."""

EXTREMES: dict[Register, dict[str, str]] = {
    "plain": {"max": "highest", "min": "lowest"},
    "formal": {"max": "greatest", "min": "smallest"},
    "terse": {"max": "max", "min": "min"},
}
"""Superlatives of amounts."""

EXTREME_TIMES = {"max": "latest", "min": "earliest"}
"""Superlatives of days and hours of the day."""

SETS: dict[Register, dict[str, str]] = {
    "plain": {
        "distinct": "no two of them share the same {attr}",
        "sum": "their combined {attr} {bound}",
        "max": "their combined {attr} is as large as possible",
        "min": "their combined {attr} is as small as possible",
    },
    "formal": {
        "distinct": "no two of them have the same {attr}",
        "sum": "the sum of their {attr} {bound}",
        "max": "the sum of their {attr} is maximal",
        "min": "the sum of their {attr} is minimal",
    },
    "terse": {
        "distinct": "all with a different {attr}",
        "sum": "combined {attr} {bound}",
        "max": "max combined {attr}",
        "min": "min combined {attr}",
    },
}
"""Conditions and goals of chosen sets."""
