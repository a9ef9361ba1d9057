"""The procedural author: the same from the same seed everywhere, composed again from a record, honest about parents."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from envsynth.author.procedural.author import AUTHOR, SCREEN_TURNS, ProceduralAuthor
from envsynth.author.procedural.ir import Attr, Choose, Con, Let, Of, Task, digest, from_json, to_json
from envsynth.author.procedural.operators import OPERATORS
from envsynth.author.procedural.screen import MAX_CHANGES
from envsynth.errors import AuthorError, Rejected, SpecError

CATEGORY = "planning a travel itinerary"
SCRIPT = """
import json, sys
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.errors import Rejected

author = ProceduralAuthor(sys.argv[1], sys.argv[2])
found = []
for index in range(2):
    draft = author.draft(index)
    found.append(draft.environment.hash)
    for attempt in range(14):
        try:
            task = author.root(draft, 0, attempt)
        except Rejected as reason:
            found.append(str(reason))
            continue
        found.append(task.hash)
        for name in author.operators(task):
            for again in range(3):
                try:
                    found.append(author.propose(draft, task, name, again).hash)
                except Rejected as reason:
                    found.append(str(reason))
        found.append(author.complete(draft, task, 7).hash)
print(json.dumps(found))
"""


def elsewhere(folder, **environment) -> list[str]:
    """What the script prints in a process of its own, in another folder and under another environment."""
    source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, CATEGORY, "1"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


def first(author, draft, number=0) -> object:
    for attempt in range(80):
        try:
            return author.root(draft, number, attempt)
        except Rejected:
            continue
    raise AssertionError("no root among 80 attempts")


def proposals(author, draft, parent, names=None, tries=25, **options):
    found = []
    for name in names or author.operators(parent):
        for attempt in range(tries):
            try:
                found.append(author.propose(draft, parent, name, attempt, **options))
            except Rejected as reason:
                assert reason.code  # noqa: PT017
                continue
            break
    return found


@pytest.fixture(scope="module")
def author() -> ProceduralAuthor:
    return ProceduralAuthor(CATEGORY, 1)


@pytest.fixture(scope="module")
def draft(author):
    return author.draft(1)


@pytest.fixture(scope="module")
def root(author, draft):
    return first(author, draft)


def test_equal_seeds_give_equal_hashes_in_other_processes(tmp_path):
    here = elsewhere(tmp_path, PYTHONHASHSEED="0", TZ="UTC")
    there = elsewhere("/", PYTHONHASHSEED="77", TZ="Pacific/Auckland", LANG="C", LC_ALL="C")
    assert here == there
    hashes = [item for item in here if len(item) == 32]
    assert len(hashes) > 6
    assert len(set(hashes)) == len(hashes)


def test_another_seed_category_or_index_gives_another_environment(author, draft):
    others = [
        ProceduralAuthor(CATEGORY, 2).draft(1),
        ProceduralAuthor("travel and itineraries", 1).draft(1),
        author.draft(2),
    ]
    hashes = [draft.environment.hash, *(other.environment.hash for other in others)]
    slugs = [draft.environment.slug, *(other.environment.slug for other in others)]
    assert len(set(hashes)) == len(set(slugs)) == 4
    assert author.draft(1).environment == draft.environment
    assert ProceduralAuthor(CATEGORY, "1").draft(1).environment == draft.environment


def test_the_record_says_how_it_was_made(draft):
    source = draft.environment.provenance
    assert source.author == AUTHOR
    assert source.category == CATEGORY
    assert source.seed == f"1/{CATEGORY}/1"
    assert source.details["index"] == 1
    assert source.details["mechanisms"] == list(draft.composition.mechanisms)
    assert draft.environment.public_docs == draft.docs
    assert draft.environment.policy[-2].startswith("Descriptions and conditions")
    assert draft.environment.policy[-1].startswith("A request with conditions")


def test_an_empty_category_is_refused():
    with pytest.raises(AuthorError, match="category is empty"):
        ProceduralAuthor("  ", 1)


def test_again_composes_the_same_environment(draft):
    author, same = ProceduralAuthor.again(draft.environment)
    assert same.environment == draft.environment
    assert (author.category, author.seed) == (CATEGORY, "1")


@pytest.mark.parametrize("seed", ["a/b", "1/2/3", "/"])
def test_again_reads_seeds_and_categories_with_slashes(seed):
    made = ProceduralAuthor("renting cars / bikes", seed).draft(0)
    author, same = ProceduralAuthor.again(made.environment)
    assert author.seed == seed
    assert same.environment == made.environment


def test_again_refuses_what_it_did_not_make(draft):
    def of(**update):
        source = draft.environment.provenance.model_copy(update=update)
        return draft.environment.model_copy(update={"provenance": source})

    with pytest.raises(SpecError, match="is by 'hand', not 'procedural/4'"):
        ProceduralAuthor.again(of(author="hand"))
    with pytest.raises(SpecError, match="cannot be composed again"):
        ProceduralAuthor.again(of(details={}))
    with pytest.raises(SpecError, match="composes to another hash"):
        ProceduralAuthor.again(draft.environment.model_copy(update={"title": "changed by hand"}))


def test_a_root_is_a_whole_task_without_probes(author, draft, root):
    assert root.environment == draft.environment.hash
    assert root.lineage.parent is None
    assert root.lineage.depth == 0
    assert root.probes == ()
    assert root.max_turns == SCREEN_TURNS
    assert root.provenance.details["program"] == digest(from_json(root.ir))
    assert all(
        atom.quote and atom.quote in "\n".join([root.prompt, *draft.environment.policy]) for atom in root.verifier.atoms
    )
    assert len(root.oracle.changes) <= MAX_CHANGES
    assert set(root.oracle.answer) == set(root.answer_schema["properties"])
    assert author.root(draft, 0, _attempt(author, draft)) == root


def _attempt(author, draft) -> int:
    for attempt in range(80):
        try:
            author.root(draft, 0, attempt)
        except Rejected:
            continue
        return attempt
    raise AssertionError("no root")


def test_refusals_of_roots_have_codes(author, draft):
    codes = set()
    for attempt in range(40):
        try:
            author.root(draft, 3, attempt)
        except Rejected as reason:
            codes.add(reason.code)
    assert codes <= {
        *(
            "act_empty",
            "act_many",
            "act_noop",
            "choose_size",
            "empty",
            "idle_bound",
            "infeasible",
            "loose",
            "name_ambiguous",
            "no_action",
        ),
        *("no_atom", "no_value", "nonbinding", "null_value", "order_sensitive", "search_cap", "tie", "tight"),
        *("guessable", "no_attribute", "no_route", "trivial_answer", "type", "write_overlap"),
    }
    assert codes


def test_children_name_their_parent_and_leave_it_alone(author, draft, root):
    before = root.to_json()
    children = proposals(author, draft, root)
    assert children
    for child in children:
        assert child.lineage.parent == root.hash
        assert child.lineage.operator in OPERATORS
        assert child.lineage.depth == 1
        assert child.lineage.params or child.lineage.operator == "budget"
        assert child.environment == root.environment
        assert child.hash != root.hash
        details = child.provenance.details
        assert (details["register"], details["variant"]) == tuple(
            root.provenance.details[key] for key in ("register", "variant")
        )
    assert root.to_json() == before


def test_an_operator_is_not_offered_twice_in_a_row(author, draft, root):
    assert author.operators(root)
    for child in proposals(author, draft, root):
        assert child.lineage.operator not in author.operators(child)


def test_a_third_of_the_choices_never_get_a_goal(author, root):
    choice = root.model_copy(
        update={
            "kind": "plan",
            "ir": to_json(
                Task(
                    (Let("X1", Choose("booking", (), 2, (Con("distinct", Attr("day")),))),),
                    (("x", Of("X1", Attr("id"))),),
                )
            ),
        }
    )
    offered = []
    for variant in range(3):
        details = {**choice.provenance.details, "variant": variant}
        told = choice.model_copy(update={"provenance": choice.provenance.model_copy(update={"details": details})})
        offered.append("optimise" in author.operators(told))
    assert offered == [False, True, True]


def test_grandchildren_carry_the_overlay_on(author, draft):
    for number in range(6):
        parent = first(author, draft, number)
        if "distractors" not in author.operators(parent):
            continue
        for child in proposals(author, draft, parent, ["distractors"]):
            assert child.overlay[: len(parent.overlay)] == parent.overlay
            assert len(child.overlay) == len(parent.overlay) + child.lineage.params["rows"]
            assert child.oracle == parent.oracle
            for grandchild in proposals(author, draft, child):
                assert grandchild.overlay[: len(child.overlay)] == child.overlay
                assert grandchild.lineage.parent == child.hash
                assert grandchild.lineage.depth == 2
                return
    raise AssertionError("no child by distractors with a child of its own")


def test_a_proposal_is_a_function_of_parent_operator_attempt_and_needed_skills(author, draft, root):
    for child in proposals(author, draft, root):
        name = child.lineage.operator
        again = proposals(author, draft, root, [name])
        assert again == [child]


def test_complete_sets_turn_limit_and_probes(author, draft, root):
    short = author.complete(draft, root, 5)
    assert short.max_turns == 20
    long = author.complete(draft, root, 50)
    assert long.max_turns == 85
    assert 0.6 * long.max_turns >= 50
    assert short.probes == long.probes
    assert {"equivalent_mutants", "mutants_without_witness"} <= set(short.provenance.details)
    unchanged = short.model_copy(update={"probes": (), "max_turns": root.max_turns, "provenance": root.provenance})
    assert unchanged == root


def test_a_task_without_a_program_cannot_be_hardened(author, draft, root):
    foreign = root.model_copy(update={"ir": None})
    with pytest.raises(SpecError, match="has no task program"):
        author.operators(foreign)
