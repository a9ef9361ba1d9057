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
            "Find the {one} with the {extreme} {attr} among {pool}; call that {one} {var}.",
            "Among {pool}, find the {one} with the {extreme} {attr}; call it {var}.",
            "Of {pool}, take the one with the {extreme} {attr} and call it {var}.",
        ),
        "formal": (
            "Let {var} denote the {one} with the {extreme} {attr} among {pool}.",
            "Determine the {one} that has the {extreme} {attr} among {pool}; that {one} is referred to as {var}.",
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
            "Find the {row}; call that {one} {var}.",
            "Look up the {row}, and call that {one} {var}.",
            "Take the {row}; call that {one} {var}.",
        ),
        "formal": (
            "Let {var} denote the {row}.",
            "Determine the {row}; that {one} is referred to as {var}.",
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
            "Work out how many {many} there are{conditions}; call the number {var}.",
            "Find the number of {rows}, and call the number {var}.",
        ),
        "formal": (
            "Let {var} denote the number of {rows}.",
            "Determine the number of {rows}; that number is referred to as {var}.",
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
            "Find the sum of the {attr} over {pool}, and call the sum {var}.",
        ),
        "formal": (
            "Let {var} denote the sum of the {attr} over {pool}.",
            "Determine the sum of the {attr} over {pool}; that sum is referred to as {var}.",
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
            "Choose {chosen}{tail}; call {them} {var} ({ties}).",
            "Pick {chosen}{tail}, and call {them} {var} ({ties}).",
            "Select {chosen}{tail}; {var} stands for {them}, and {ties}.",
        ),
        "formal": (
            "Let {var} denote {chosen}{tail}; {ties}.",
            "Determine {chosen}{tail}; {var} denotes {them}, and {ties}.",
            "Let {var} be a selection of {chosen}{tail}; {ties}.",
        ),
        "terse": (
            "{var} = {chosen}{tail} ({ties}).",
            "{var}: {chosen}{tail}; {ties}.",
            "Get {var}: {chosen}{tail} ({ties}).",
        ),
    },
    "group_count": {
        "plain": (
            "Find the {rel} with the {most} {rows}{none}; call that {rel} {var}.",
            "Of {pool}, work out which {rel} has the {most}{none}; call that {rel} {var}.",
            "Work out which {rel} has the {most} {rows}{none}; call that {rel} {var}.",
        ),
        "formal": (
            "Let {var} denote the {rel} with the {most} of {rows}{none}.",
            "Determine the {rel} that has the {most} of {rows}{none}; that {rel} is referred to as {var}.",
            "Of {pool}, let {var} be the {rel} with the {most}{none}.",
        ),
        "terse": (
            "{var} = the {rel} with the {most} {rows}{none}.",
            "{var}: of {pool}, the {rel} with the {most}{none}.",
            "Get {var}: the {rel} with the {most} {rows}{none}.",
        ),
    },
    "group_sum": {
        "plain": (
            "Find the {rel} with the {extreme} combined {attr} over {pool}{none}; call that {rel} {var}.",
            "Over {pool}, work out which {rel} has the {extreme} combined {attr}{none}; call that {rel} {var}.",
            "Work out which {rel} has the {extreme} combined {attr} over {pool}{none}; call that {rel} {var}.",
        ),
        "formal": (
            "Let {var} denote the {rel} with the {extreme} combined {attr} over {pool}{none}.",
            "Determine the {rel} that has the {extreme} combined {attr} over {pool}{none}; that {rel} is "
            "referred to as {var}.",
            "Over {pool}, let {var} be the {rel} with the {extreme} combined {attr}{none}.",
        ),
        "terse": (
            "{var} = the {rel} with the {extreme} total {attr} over {pool}{none}.",
            "{var}: over {pool}, the {rel} with the {extreme} total {attr}{none}.",
            "Get {var}: the {rel} with the {extreme} total {attr} over {pool}{none}.",
        ),
    },
    "reach": {
        "plain": (
            "Work out the combined {attr} of {set} or, if {set} is empty, the {extreme} total of any choice "
            "that meets every condition but the bound on this total; call that total {var}.",
            "Add up the {attr} over {set} or, if {set} is empty, take the {extreme} total of any choice that "
            "meets every condition but the bound on this total; call that total {var}.",
            "Find the combined {attr} of {set} or, if {set} is empty, find the {extreme} total of any choice "
            "that meets every condition but the bound on this total; call that total {var}.",
        ),
        "formal": (
            "Let {var} denote the sum of the {attr} over {set} or, if {set} is empty, the {extreme} sum of any "
            "choice that meets every condition but the bound on this total.",
            "Determine the sum of the {attr} over {set} or, should {set} be empty, the {extreme} sum of any "
            "choice that meets every condition but the bound on this total; that sum is referred to as {var}.",
            "Let {var} be the sum of the {attr} over {set} or, if {set} is empty, the {extreme} sum of any "
            "choice that meets every condition but the bound on this total.",
        ),
        "terse": (
            "{var} = the total {attr} of {set}; if {set} is empty, the {extreme} total of any choice that meets "
            "every condition but the bound on this total.",
            "{var}: the total {attr} of {set} or, if {set} is empty, the {extreme} total of any choice that "
            "meets every condition but the bound on this total.",
            "Get {var}: the total {attr} of {set} or, for an empty {set}, the {extreme} total of any choice "
            "that meets every condition but the bound on this total.",
        ),
    },
    "first_act": {
        "plain": ("Please {act}.", "I need you to {act}.", "Your task: {act}."),
        "formal": ("You are to {act}.", "You are required to {act}.", "Kindly {act}."),
        "terse": ("Do: {act}.", "Action: {act}.", "To do: {act}."),
    },
    "act": {
        "plain": ("Then {act}.", "Next, {act}.", "After that, {act}."),
        "formal": (
            "Subsequently, {act}.",
            "You are then required to {act}.",
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
    "caution": {
        "plain": (
            "A call that ends in timeout (408) may or may not have taken effect: check before you repeat it; one that ends "
            "in unavailable (503) has had no effect.",
            "If a call ends in timeout (408), it may or may not have taken effect, so check before you repeat it; if it ends "
            "in unavailable (503), it has had no effect.",
            "Tools may fail: after timeout (408), check whether the call has taken effect before you repeat it; after "
            "unavailable (503), it has had no effect.",
        ),
        "formal": (
            "A call that ends in timeout (408) may or may not have taken effect, which is to be checked before it is "
            "repeated; a call that ends in unavailable (503) has had no effect.",
            "Should a call end in timeout (408), it is to be checked whether it has taken effect before it is repeated; "
            "should it end in unavailable (503), it has had no effect.",
            "Before a call that ended in timeout (408) is repeated, it is to be checked whether it has taken effect; a call "
            "that ended in unavailable (503) has had no effect.",
        ),
        "terse": (
            "On timeout (408): effect unknown, check before repeating; on unavailable (503): no effect.",
            "Timeout (408) = effect unknown: check, then repeat if needed; unavailable (503) = no effect.",
            "Errors: timeout (408), effect unknown, check before repeating; unavailable (503), no effect.",
        ),
    },
    "budget": {
        "plain": ("Tool calls are limited.", "There is a limit to tool calls.", "Mind the limit of tool calls."),
        "formal": ("A limit applies to tool calls.", "Tool calls have a limit.", "Observe the limit of tool calls."),
        "terse": ("Tool calls: limited.", "Limited tool calls.", "Calls of tools: limited."),
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
            "Nothing is to be stated; the answer shall be an empty object.",
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
"""Comparators of amounts, after the verb."""

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
"""Comparators of days, after the verb."""

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
"""Comparators of hours of the day, after the verb."""

SAME = {"==": "", "!=": "not "}
"""Comparators of rows and texts, after the verb; the same in the plain and the formal register."""

EXTREMES: dict[Register, dict[str, str]] = {
    "plain": {"max": "highest", "min": "lowest"},
    "formal": {"max": "greatest", "min": "smallest"},
    "terse": {"max": "max", "min": "min"},
}
"""Superlatives of amounts."""

EXTREME_COUNTS: dict[Register, dict[str, str]] = {
    "plain": {"max": "most", "min": "fewest"},
    "formal": {"max": "greatest number of", "min": "smallest number of"},
    "terse": {"max": "max", "min": "min"},
}
"""Superlatives of what has a plural label: "the most busy days"."""

EXTREME_TIMES = {"max": "latest", "min": "earliest"}
"""Superlatives of days and hours of the day."""

MOST: dict[Register, dict[str, str]] = {
    "plain": {"max": "most", "min": "fewest"},
    "formal": {"max": "greatest number", "min": "smallest number"},
    "terse": {"max": "most", "min": "fewest"},
}
"""Superlatives of numbers of rows."""

NONE = " ({rows} with none do not count)"
"""Said where rows to which none is related might be taken for the least."""

SETS: dict[Register, dict[str, str]] = {
    "plain": {
        "distinct": "no two of them share the same {attr}",
        "sum": "their combined {attr} {bound}",
        "max": "their combined {attr} {verb} as large as possible",
        "min": "their combined {attr} {verb} as small as possible",
    },
    "formal": {
        "distinct": "no two of them have the same {attr}",
        "sum": "their total {attr} {bound}",
        "max": "their total {attr} {verb} maximal",
        "min": "their total {attr} {verb} minimal",
    },
    "terse": {
        "distinct": "no two of the same {attr}",
        "sum": "total {attr} {bound}",
        "max": "total {attr} as large as possible",
        "min": "total {attr} as small as possible",
    },
}
"""Conditions and goals of chosen sets, after `SUCH`."""

SUCH: dict[Register, str] = {"plain": " such that ", "formal": " such that ", "terse": ", with "}
"""What opens the conditions and the goal of a chosen set."""
