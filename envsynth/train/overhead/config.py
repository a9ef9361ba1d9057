"""What the experiment on costs is asked to do, with two ready profiles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from envsynth.errors import SpecError
from envsynth.policy.presets import PRESETS

PROFILES: Final = ("smoke", "gpu")


@dataclass(frozen=True, kw_only=True)
class OverheadConfig:
    """Which sizes are measured, and how.

    Raises:
        SpecError: a value is out of range.
    """

    presets: tuple[str, ...]
    """Presets of `envsynth.policy.presets`, whose heads and widths are taken."""
    lengths: tuple[int, ...]
    """Tokens of the one sequence, ascending."""
    topks: tuple[int, ...]
    """Keys kept per query, ascending; none above the shortest length."""
    slots: int
    """Sequences that a decode step serves (count)."""
    device: Literal["cpu", "cuda"]
    """Kind of device."""
    precision: Literal["float32", "bfloat16"]
    """Type of queries, keys and latents."""
    repeat_ms: float = 60.0
    """Time of the repetitions of one measurement (milliseconds); at least three are made unless one takes long."""
    period: int = 64
    """Tokens between two directions through which queries and keys drift."""
    query_noise: float = 0.15
    """Standard deviation of what a query has of its own, where what it shares with its neighbours has about one."""
    key_noise: float = 1.0
    """The same for keys."""
    seed: int = 0
    """Equal seeds give equal inputs on one kind of device."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.presets if name not in PRESETS]
        rising = {name: getattr(self, name) for name in ("lengths", "topks")}
        sound: Mapping[str, bool] = {
            "presets": bool(self.presets) and not unknown and len(set(self.presets)) == len(self.presets),
            **{name: bool(v) and min(v) >= 1 and list(v) == sorted(set(v)) for name, v in rising.items()},
            "slots": self.slots >= 1,
            "device": self.device in ("cpu", "cuda"),
            "precision": self.precision in ("float32", "bfloat16"),
            "repeat_ms": self.repeat_ms > 0,
            "period": self.period >= 1,
            "query_noise": self.query_noise >= 0,
            "key_noise": self.key_noise >= 0,
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise SpecError(
                    f"OverheadConfig.{name} is {getattr(self, name)!r}; presets are of {', '.join(PRESETS)}, each once;"
                    " lengths and numbers of keys rise from 1 at least; see its documentation"
                )
        if self.topks[-1] > self.lengths[0]:
            raise SpecError(
                f"topk {self.topks[-1]} is above the shortest length, {self.lengths[0]}: nothing would be left out;"
                " choose fewer keys or longer sequences"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON has them."""
        return json.loads(json.dumps(asdict(self)))


def profile(
    name: str,
    *,
    presets: tuple[str, ...] | None = None,
    lengths: tuple[int, ...] | None = None,
    topks: tuple[int, ...] | None = None,
) -> OverheadConfig:
    """Give a ready experiment.

    Args:
        name: `smoke` (seconds on a CPU, by references; for tests) or `gpu` (up to 131,072 tokens).
        presets: Presets; None keeps the profile's.
        lengths: Tokens; None keeps the profile's.
        topks: Keys kept per query; None keeps the profile's.

    Returns:
        The settings.

    Raises:
        SpecError: there is no such profile, or a value is out of range.
    """
    if name not in PROFILES:
        raise SpecError(f"profile must be one of {', '.join(PROFILES)}, got {name!r}")
    config = _smoke() if name == "smoke" else _gpu()
    given = {"presets": presets, "lengths": lengths, "topks": topks}
    return replace(config, **{field: value for field, value in given.items() if value is not None})


def _smoke() -> OverheadConfig:
    return OverheadConfig(
        presets=("nano",),
        lengths=(64, 128),
        topks=(8, 16),
        slots=3,
        device="cpu",
        precision="float32",
        repeat_ms=1.0,
        period=16,
    )


def _gpu() -> OverheadConfig:
    return OverheadConfig(
        presets=("base", "large"),
        lengths=(8192, 16384, 32768, 65536, 131072),
        topks=(256, 512),
        slots=64,
        device="cuda",
        precision="bfloat16",
    )
