"""Frames of sentences, learned from the reference of the prompt language and from reading prompts.

A word in braces is a slot of `reader`; `|` stands for nothing here, each paraphrase is a line of its own.
"""

from __future__ import annotations

STEPS: dict[str, tuple[str, ...]] = {
    "best": (
        "Find the {noun} with the {peak} among {rows}; call it {new}.",
        "Among {rows}, find the {noun} with the {peak}; call it {new}.",
        "Of {rows}, take the one with the {peak} and call it {new}.",
        "Let {new} denote the {noun} with the {peak} among {rows}.",
        "Determine the {noun} that has the {peak} among {rows}; it is referred to as {new}.",
        "Among {rows}, let {new} be the {noun} with the {peak}.",
        "{new} = the {noun} with the {peak} among {rows}.",
        "Get {new}: the {noun} with the {peak} among {rows}.",
        "{new}: among {rows}, the {noun} with the {peak}.",
    ),
    "only": (
        "Find the {one}; call it {new}.",
        "Take the {one}; call it {new}.",
        "Look up the {one} and call it {new}.",
        "Let {new} denote the {one}.",
        "Determine the {one}; it is referred to as {new}.",
        "Let {new} be the {one}.",
        "{new} = the {one}.",
        "Get {new}: the {one}.",
        "{new}: the {one}.",
    ),
    "follow": (
        "Find {link}; call it {new}.",
        "Take {link}; call it {new}.",
        "Look up {link}; call it {new}.",
        "Look up {link} and call it {new}.",
        "Let {new} denote {link}.",
        "Determine {link}; it is referred to as {new}.",
        "Let {new} be {link}.",
        "{new} = {link}.",
        "Get {new}: {link}.",
        "{new}: {link}.",
    ),
    "count": (
        "Count {rows}; call the number {new}.",
        "Find the number of {some} and call it {new}.",
        "Work out how many {some} there are; call the number {new}.",
        "Let {new} denote the number of {some}.",
        "Determine the number of {some}; it is referred to as {new}.",
        "Let {new} be the count of {some}.",
        "{new} = the number of {some}.",
        "Get {new}: the number of {some}.",
        "{new}: count of {some}.",
    ),
    "sum": (
        "Add up the {term} over {rows}; call the sum {new}.",
        "For {rows}, add up the {term}; call the sum {new}.",
        "Find the sum of the {term} over {rows} and call it {new}.",
        "Let {new} denote the sum of the {term} over {rows}.",
        "Determine the sum of the {term} over {rows}; it is referred to as {new}.",
        "Over {rows}, let {new} be the sum of the {term}.",
        "{new} = the sum of the {term} over {rows}.",
        "Get {new}: the sum of the {term} over {rows}.",
        "{new}: over {rows}, the sum of the {term}.",
    ),
    "choose": (
        "Choose {choice}; call them {new} (any {which} choice is accepted).",
        "Pick {choice}, and call them {new} (any {which} choice is accepted).",
        "Select {choice}, to be called {new}; any {which} choice is accepted.",
        "Let {new} denote {choice}; any {which} choice is accepted.",
        "Determine {choice}, referred to as {new}; any {which} choice is accepted.",
        "Let {new} be a selection of {choice}; any {which} choice is accepted.",
        "{new} = {choice} (any {which} choice is accepted).",
        "Get {new}: {choice} (any {which} choice is accepted).",
        "{new}: {choice}; any {which} choice is accepted.",
    ),
    "act": (
        "Please {act}.",
        "I need you to {act}.",
        "Your task: {act}.",
        "Then {act}.",
        "Next, {act}.",
        "After that, {act}.",
        "Kindly {act}.",
        "You are to {act}.",
        "It is required to {act}.",
        "It is then required to {act}.",
        "You are then to {act}.",
        "Subsequently, {act}.",
        "Do: {act}.",
        "Action: {act}.",
        "To do: {act}.",
    ),
    "when": (
        "If {test}, {act}; otherwise, {other}.",
        "When {test}, {act}; in any other case, {other}.",
        "Check whether {test}: if so, {act}; if not, {other}.",
        "Provided that {test}, {act}; otherwise, {other}.",
        "Should it hold that {test}, {act}; otherwise, {other}.",
        "In case {test}, {act}; in any other case, {other}.",
        "If {test}: {act}; else: {other}.",
        "When {test}: {act}; else: {other}.",
        "Test: {test}? If yes, {act}; if no, {other}.",
    ),
    "each": (
        "For each of {rows}, {act}.",
        "Take each of {rows} in turn and {act}.",
        "Go through {rows} and, for each of them, {act}.",
        "With regard to each of {rows}, {act}.",
        "Each of {rows} is to be handled as follows: {act}.",
        "For each of {rows}, you are to {act}.",
        "For each of {rows}: {act}.",
        "Each of {rows}: {act}.",
        "Do for each of {rows}: {act}.",
    ),
}
"""Sentences before the last, by what they ask for."""

FIELDS_FIRST = ("Answer with ", "The answer shall consist of ", "Return ", "Answer: ")
"""Begin a last sentence that names each field before its value."""
VALUES_FIRST = ("Report ", "At the end, give ", "Kindly report ", "The answer shall state ", "Report: ")
"""Begin a last sentence that names each value before its field."""
NOTHING = (
    "There is nothing to report: answer with an empty object.",
    "No report is needed: answer with an empty object.",
    "When this is done, answer with an empty object.",
    "No statement is required; the answer shall be an empty object.",
    "Upon completion, an empty object shall be given as the answer.",
    "The answer shall be an empty object.",
    "Return an empty object.",
    "Answer: an empty object.",
    "Report: an empty object.",
)
"""Last sentences of a task without an answer."""

PEAKS = {
    "highest": True, "greatest": True, "max": True, "latest": True,
    "lowest": False, "smallest": False, "min": False, "earliest": False,
}  # fmt: skip
"""Whether a superlative means the most."""

COMPARATORS = {
    ">=": ("is at least", "is no less than", "is on or after", "is no earlier than", "is at or after", ">="),
    "<=": ("is at most", "is no more than", "is on or before", "is no later than", "is at or before", "<="),
    ">": ("is more than", "is greater than", "is after", "is later than", ">"),
    "<": ("is less than", "is lower than", "is before", "is earlier than", "<"),
    "=": ("is exactly", "is equal to", "is", "="),
    "!=": ("is not", "is different from", "!="),
}
"""Ways to say a sign."""

SUMS = ("their combined {term}", "the sum of their {term}", "combined {term}")
"""Ways to say what a chosen set adds up to."""
DISTINCT = (
    "no two of them share the same {term}",
    "no two of them have the same {term}",
    "all with a different {term}",
)
"""Ways to say that chosen rows differ."""
GOALS = {
    "most": (
        "their combined {term} is as large as possible",
        "the sum of their {term} is maximal",
        "max combined {term}",
    ),
    "least": (
        "their combined {term} is as small as possible",
        "the sum of their {term} is minimal",
        "min combined {term}",
    ),
}
"""Ways to say a goal."""
