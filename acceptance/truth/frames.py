"""Frames of sentences, learned from the reference of the prompt language and from reading prompts.

A word in braces is a slot of `reader`; `|` stands for nothing here, each paraphrase is a line of its own.
"""

from __future__ import annotations

CHOOSE = (
    "Choose {choice}; call the chosen {chosen} {new} (any {which} choice is accepted).",
    "Pick {choice}, and call the chosen {chosen} {new} (any {which} choice is accepted).",
    "Select {choice}; {new} stands for the chosen {chosen}, and any {which} choice is accepted.",
    "Let {new} denote {choice}; any {which} choice is accepted.",
    "Determine {choice}; {new} denotes the chosen {chosen}, and any {which} choice is accepted.",
    "Let {new} be a selection of {choice}; any {which} choice is accepted.",
    "{new} = {choice} (any {which} choice is accepted).",
    "Get {new}: {choice} (any {which} choice is accepted).",
    "{new}: {choice}; any {which} choice is accepted.",
)
"""Ways to ask for a choice."""
ACCEPTED = "choice is accepted"
"""Behind it may stand what holds if there is none."""

WARNINGS = (
    "A call that ends in timeout (408) may or may not have taken effect: check before you repeat it; one that ends in "
    "unavailable (503) has had no effect.",
    "If a call ends in timeout (408), it may or may not have taken effect, so check before you repeat it; if it ends in "
    "unavailable (503), it has had no effect.",
    "Tools may fail: after timeout (408), check whether the call has taken effect before you repeat it; after unavailable "
    "(503), it has had no effect.",
    "A call that ends in timeout (408) may or may not have taken effect, which is to be checked before it is repeated; a "
    "call that ends in unavailable (503) has had no effect.",
    "Should a call end in timeout (408), it is to be checked whether it has taken effect before it is repeated; should it "
    "end in unavailable (503), it has had no effect.",
    "Before a call that ended in timeout (408) is repeated, it is to be checked whether it has taken effect; a call that "
    "ended in unavailable (503) has had no effect.",
    "On timeout (408): effect unknown, check before repeating; on unavailable (503): no effect.",
    "Timeout (408) = effect unknown: check, then repeat if needed; unavailable (503) = no effect.",
    "Errors: timeout (408), effect unknown, check before repeating; unavailable (503), no effect.",
)
"""Sentences about calls that fail: they change nothing of what is right."""

LIMITS = (
    "Tool calls are limited.",
    "There is a limit to tool calls.",
    "Mind the limit of tool calls.",
    "A limit applies to tool calls.",
    "Tool calls have a limit.",
    "Observe the limit of tool calls.",
    "Tool calls: limited.",
    "Limited tool calls.",
    "Calls of tools: limited.",
)
"""Sentences about a limit of calls, which changes nothing of what is right either."""

STEPS: dict[str, tuple[str, ...]] = {
    "best": (
        "Find the {noun} with the {peak} among {rows}; call that {again} {new}.",
        "Among {rows}, find the {noun} with the {peak}; call it {new}.",
        "Of {rows}, take the one with the {peak} and call it {new}.",
        "Let {new} denote the {noun} with the {peak} among {rows}.",
        "Determine the {noun} that has the {peak} among {rows}; that {again} is referred to as {new}.",
        "Among {rows}, let {new} be the {noun} with the {peak}.",
        "{new} = the {noun} with the {peak} among {rows}.",
        "Get {new}: the {noun} with the {peak} among {rows}.",
        "{new}: among {rows}, the {noun} with the {peak}.",
    ),
    "only": (
        "Find the {one}; call that {again} {new}.",
        "Take the {one}; call that {again} {new}.",
        "Look up the {one}, and call that {again} {new}.",
        "Let {new} denote the {one}.",
        "Determine the {one}; that {again} is referred to as {new}.",
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
        "Find {link} and call it {new}.",
        "Check what {link} is; call it {new}.",
        "Let {new} denote {link}.",
        "Determine {link}; it is referred to as {new}.",
        "Let {new} be {link}.",
        "{new} = {link}.",
        "Get {new}: {link}.",
        "{new}: {link}.",
    ),
    "group": (
        "Find the {relation} with the {many}{none}; call that {again} {new}.",
        "Work out which {relation} has the {many}{none}; call that {again} {new}.",
        "Of {rows}, work out which {relation} has the {count}{none}; call that {again} {new}.",
        "Let {new} denote the {relation} with the {many}{none}.",
        "Determine the {relation} that has the {many}{none}; that {again} is referred to as {new}.",
        "Of {rows}, let {new} be the {relation} with the {count}{none}.",
        "{new} = the {relation} with the {many}{none}.",
        "Get {new}: the {relation} with the {many}{none}.",
        "{new}: of {rows}, the {relation} with the {count}{none}.",
    ),
    "group_sum": (
        "Find the {relation} with the {total} over {rows}{none}; call that {again} {new}.",
        "Work out which {relation} has the {total} over {rows}{none}; call that {again} {new}.",
        "Over {rows}, work out which {relation} has the {total}{none}; call that {again} {new}.",
        "Let {new} denote the {relation} with the {total} over {rows}{none}.",
        "Determine the {relation} that has the {total} over {rows}{none}; that {again} is referred to as {new}.",
        "Over {rows}, let {new} be the {relation} with the {total}{none}.",
        "{new} = the {relation} with the {total} over {rows}{none}.",
        "Get {new}: the {relation} with the {total} over {rows}{none}.",
        "{new}: over {rows}, the {relation} with the {total}{none}.",
    ),
    "count": (
        "Count {rows}; call the number {new}.",
        "Find the number of {some}, and call the number {new}.",
        "Work out how many {there}; call the number {new}.",
        "Let {new} denote the number of {some}.",
        "Determine the number of {some}; that number is referred to as {new}.",
        "Let {new} be the count of {some}.",
        "{new} = the number of {some}.",
        "Get {new}: the number of {some}.",
        "{new}: count of {some}.",
    ),
    "sum": (
        "Add up the {term} over {rows}; call the sum {new}.",
        "For {rows}, add up the {term}; call the sum {new}.",
        "Find the sum of the {term} over {rows}, and call the sum {new}.",
        "Let {new} denote the sum of the {term} over {rows}.",
        "Determine the sum of the {term} over {rows}; that sum is referred to as {new}.",
        "Over {rows}, let {new} be the sum of the {term}.",
        "{new} = the sum of the {term} over {rows}.",
        "Get {new}: the sum of the {term} over {rows}.",
        "{new}: over {rows}, the sum of the {term}.",
    ),
    "choose": CHOOSE,
    "choose_or_none": tuple(
        way.replace(ACCEPTED, f"{ACCEPTED}; if there is none, {{same}} is empty") for way in CHOOSE
    ),
    "choice_total": (
        "Work out the combined {term} of {set} or, if {same} is empty, the {end} total of any choice that meets "
        "every condition but the bound on this total; "
        "call that total {new}.",
        "Find the combined {term} of {set} or, if {same} is empty, find the {end} total of any choice that "
        "meets every condition but the bound on this total; "
        "call that total {new}.",
        "Add up the {term} over {set} or, if {same} is empty, take the {end} total of any choice that meets every condition but the bound on this total; "
        "call that total {new}.",
        "Let {new} denote the sum of the {term} over {set} or, if {same} is empty, the {end} sum of any choice "
        "that meets every condition but the bound on this total.",
        "Determine the sum of the {term} over {set} or, should {same} be empty, the {end} sum of any choice "
        "that meets every condition but the bound on this total; that sum is referred to as {new}.",
        "Let {new} be the sum of the {term} over {set} or, if {same} is empty, the {end} sum of any choice that "
        "meets every condition but the bound on this total.",
        "{new} = the total {term} of {set}; if {same} is empty, the {end} total of any choice that meets every condition but the bound on this total.",
        "Get {new}: the total {term} of {set} or, for an empty {same}, the {end} total of any choice that meets "
        "every condition but the bound on this total.",
        "{new}: the total {term} of {set} or, if {same} is empty, the {end} total of any choice that meets every condition but the bound on this total.",
    ),
    "try": (
        "If the rules allow it, {act}; {new} is 'done' or, if it is refused, 'denied'.",
        "Should the rules allow it, {act}; call what comes of it {new}: 'done' or, if it is refused, 'denied'.",
        "Try to {act}; call the outcome {new}: 'done' or, if it is refused, 'denied'.",
        "Provided that the rules allow it, {act}; {new} denotes 'done' or, if it is refused, 'denied'.",
        "You are to {act} if the rules allow it; {new} denotes 'done' or, if it is refused, 'denied'.",
        "Kindly attempt to {act}; let {new} denote 'done' or, if it is refused, 'denied'.",
        "If allowed: {act}; {new} = 'done' or, if refused, 'denied'.",
        "Attempt: {act}; {new}: 'done' or, if refused, 'denied'.",
        "Try: {act}; {new} = 'done' or, if refused, 'denied'.",
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
        "You are required to {act}.",
        "You are then required to {act}.",
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
    "Nothing is to be stated; the answer shall be an empty object.",
    "Upon completion, an empty object shall be given as the answer.",
    "The answer shall be an empty object.",
    "Return an empty object.",
    "Answer: an empty object.",
    "Report: an empty object.",
)
"""Last sentences of a task without an answer."""

PEAKS = {
    "highest": True, "greatest": True, "max": True, "latest": True, "most": True,
    "greatest number of": True, "largest number of": True,
    "lowest": False, "smallest": False, "min": False, "earliest": False, "fewest": False,
    "smallest number of": False, "lowest number of": False,
}  # fmt: skip
"""Whether a superlative means the most."""

NUMBERS = {
    "most": True, "greatest number of": True, "largest number of": True,
    "fewest": False, "smallest number of": False, "lowest number of": False,
}  # fmt: skip
"""Whether a superlative that compares numbers of rows means the most."""

ENDS = {
    "highest": True, "greatest": True, "max": True, "lowest": False, "smallest": False, "min": False,
}  # fmt: skip
"""Whether a total of an empty choice means the most."""

TOTALS = ("combined {term}", "total {term}")
"""Ways to say what the rows of a group add up to."""

COMPARATORS = {
    ">=": ("at least", "no less than", "on or after", "no earlier than", "at or after"),
    "<=": ("at most", "no more than", "on or before", "no later than", "at or before"),
    ">": ("more than", "greater than", "after", "later than"),
    "<": ("less than", "lower than", "before", "earlier than"),
    "=": ("exactly", "equal to", ""),
    "!=": ("not", "different from"),
}
"""Ways to say a sign behind a form of "to be"."""

SUMS = ("their combined {term}", "their total {term}", "total {term}")
"""Ways to say what a chosen set adds up to."""
DISTINCT = (
    "no two of them share the same {term}",
    "no two of them have the same {term}",
    "no two of the same {term}",
)
"""Ways to say that chosen rows differ."""
GOALS = {
    "most": (
        "their combined {term} {be} as large as possible",
        "their total {term} {be} maximal",
        "total {term} as large as possible",
    ),
    "least": (
        "their combined {term} {be} as small as possible",
        "their total {term} {be} minimal",
        "total {term} as small as possible",
    ),
}
"""Ways to say a goal."""
