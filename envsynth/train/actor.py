"""A policy as an actor: observations become tokens at its door, sampled tokens become actions, and nothing is re-tokenised.

What a slot read and sampled stays in the engine from the first token of an episode to its last; `take_records` hands it
over for training. A policy may play several slots with the same prompt: the prompt is then computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from envsynth.environments.compact import compact_observation
from envsynth.policy.checkpoint import check_vocabulary, find_checkpoint, load_checkpoint
from envsynth.policy.drawing import Sampling
from envsynth.policy.engine import Engine, SlotRecord
from envsynth.policy.model import Policy, prepare_cpu
from envsynth.policy.template import opening, read_action, render
from envsynth.policy.tokens import ASSISTANT, END, RESULT, VOCABULARY_HASH, encode
from envsynth.train.threads import choose_threads
from envsynth.trajectory import Episode, Move

MAX_TURN_TOKENS: Final = 64
"""Tokens of one turn at most: actions are short, and a policy that never ends a turn must not hold up the others."""
EpisodeKey = tuple[str, int]
"""Task and seed of an episode."""


@dataclass
class _Play:
    """One slot's episode."""

    key: EpisodeKey
    prompt: tuple[int, ...]
    is_started: bool = False
    failure: str | None = None


class PolicyActor:
    """Plays with a policy.

    Args:
        policy: The policy; it must not change while episodes run.
        n_slots: Episodes at the same time at most (count).
        sampling: How tokens are drawn; temperature 0 plays greedily.
        seed: Start of the keys of random numbers; equal keys draw equal tokens, whichever slot plays.
        name: Who it is, as trajectories record it.
        max_turn_tokens: Tokens of one turn at most.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        n_slots: int,
        sampling: Sampling | None = None,
        seed: str = "0",
        name: str = "policy",
        max_turn_tokens: int = MAX_TURN_TOKENS,
    ) -> None:
        self._engine = Engine(
            policy, n_slots=n_slots, max_len=policy.config.max_position_embeddings, sampling=sampling or Sampling()
        )
        self._name = name
        self._limit = max_turn_tokens
        self._plays: dict[int, _Play] = {}
        self._records: dict[EpisodeKey, SlotRecord] = {}
        self.seed = seed

    @property
    def name(self) -> str:
        """Who it is, as trajectories record it."""
        return self._name

    def start(self, slot: int, episode: Episode) -> None:
        """Begin an episode in a slot; its prompt is computed with the next move.

        Args:
            slot: The slot.
            episode: What an actor may know of it.
        """
        self._keep(slot)
        prompt = render(opening(episode.prompt), reply=True).ids
        self._plays[slot] = _Play((episode.task, episode.seed), prompt)

    def act(self, slots: Sequence[int], observations: Sequence[str]) -> list[Move]:
        """Sample one turn in each slot.

        A slot whose context is full stops: the policy failed, not its infrastructure.

        Args:
            slots: Slots with an episode under way.
            observations: What each of them shows.

        Returns:
            The moves, in the order of `slots`.
        """
        starting: dict[tuple[int, ...], list[int]] = {}
        for slot, text in zip(slots, observations, strict=True):
            play = self._plays[slot]
            if not play.is_started:
                starting.setdefault(play.prompt, []).append(slot)
            else:
                self._show(slot, play, text)
        for prompt, together in starting.items():
            self._begin(prompt, together)
        playing = [slot for slot in slots if self._plays[slot].failure is None]
        turns = self._engine.generate_turn(playing, stop_ids=(END,), max_tokens=self._limit) if playing else {}
        moves: list[Move] = []
        for slot in slots:
            if slot not in turns:
                moves.append(Move("", stop=True, failure=self._plays[slot].failure))
                continue
            tokens = turns[slot].tokens
            said = read_action(tokens)
            logprobs = self._engine.record(slot).log_probs[-len(tokens) :].tolist()
            moves.append(Move(said.text, said.thinking, tokens, tuple(logprobs)))
        return moves

    def take_records(self) -> dict[EpisodeKey, SlotRecord]:
        """Hand over the token records of all episodes since the last call, and forget them.

        Every episode must have ended. An episode whose prompt did not fit has no record.

        Returns:
            Records by task and seed.
        """
        for slot in list(self._plays):
            self._keep(slot)
        self._engine.clear()
        taken, self._records = self._records, {}
        return taken

    def close(self) -> None:
        """Release what the actor holds."""
        self._plays.clear()
        self._records.clear()
        self._engine.clear()

    def _keep(self, slot: int) -> None:
        play = self._plays.pop(slot, None)
        if play is not None and play.is_started:
            self._records[play.key] = self._engine.record(slot)

    def _begin(self, prompt: tuple[int, ...], slots: list[int]) -> None:
        room = self._engine.max_len - len(prompt)
        if room < 1:
            for slot in slots:
                self._plays[
                    slot
                ].failure = f"the prompt has {len(prompt)} tokens, the policy reads {self._engine.max_len}"
            return
        keys = ["/".join((self.seed, *map(str, self._plays[slot].key))) for slot in slots]
        self._engine.start(slots, prompt, keys)
        for slot in slots:
            self._plays[slot].is_started = True

    def _show(self, slot: int, play: _Play, text: str) -> None:
        shown = [RESULT, *encode(compact_observation(text)), ASSISTANT]
        if len(shown) >= self._engine.room(slot):
            play.failure = f"the episode is longer than the {self._engine.max_len} tokens that the policy reads"
            return
        self._engine.append(slot, shown)


@dataclass(frozen=True)
class PolicyActorFactory:
    """Makes an actor from a checkpoint, in whichever process needs one."""

    folder: str
    """A checkpoint, or the folder of a run."""
    temperature: float = 0.0
    """0 plays greedily."""
    seed: int = 0
    """Seed of sampling."""
    n_slots: int = 32
    """Episodes at the same time at most (count)."""
    threads: int = 1
    """Threads of each process."""

    @property
    def name(self) -> str:
        """Name of the actors: which checkpoint plays, and how."""
        path = Path(self.folder)
        manner = "greedy" if self.temperature == 0 else f"t{self.temperature:g}"
        return f"policy:{path.parent.name}/{path.name}:{manner}"

    def __call__(self) -> PolicyActor:
        """Load the checkpoint and make the actor.

        Returns:
            A new actor; the caller closes it.

        Raises:
            CheckpointError: there is none, it is damaged, or it reads another vocabulary.
        """
        prepare_cpu(self.threads)
        checkpoint = load_checkpoint(Path(self.folder))
        check_vocabulary(checkpoint.record, VOCABULARY_HASH)
        policy = checkpoint.policy().eval()
        sampling = Sampling(temperature=self.temperature)
        return PolicyActor(policy, n_slots=self.n_slots, sampling=sampling, seed=str(self.seed), name=self.name)


def policy_factory(
    folder: Path, *, temperature: float = 0.0, seed: int = 0, n_slots: int = 32, threads: int | None = None
) -> PolicyActorFactory:
    """Return what makes actors of a checkpoint; the checkpoint is read now, so that a damaged one is refused early.

    Args:
        folder: A checkpoint, or the folder of a run: its newest one.
        temperature: 0 plays greedily.
        seed: Seed of sampling.
        n_slots: Episodes at the same time at most (count).
        threads: Threads of each process; None measures what is fastest.

    Returns:
        The factory; picklable.

    Raises:
        CheckpointError: there is none, it is damaged, or it reads another vocabulary.
        SpecError: the temperature is out of range.
    """
    found = find_checkpoint(folder)
    check_vocabulary(load_checkpoint(found).record, VOCABULARY_HASH)
    Sampling(temperature=temperature)
    return PolicyActorFactory(str(found), temperature, seed, n_slots, threads or choose_threads())
