"""The folder of an experiment: what was asked for, finished jobs, their weights; every file is whole or absent.

OUT/
    settings.json              the settings; a second run must have the same
    jobs/NAME.json             what a finished job found; its presence says that the job is finished
    weights/NAME.safetensors   weights that other jobs start from
    partial/NAME.safetensors   where a long job under way is
    dsa-fidelity.json          the result, from all finished jobs
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from envsynth.errors import CheckpointError
from envsynth.train.fidelity.config import FidelityConfig

SETTINGS, RESULT, PICTURE = "settings.json", "dsa-fidelity.json", "dsa-fidelity.svg"
_FRESH: Final = ".new"
"""End of the name of a file that is being written."""


class FidelityFolder:
    """Writes and reads what jobs found.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path, config: FidelityConfig) -> Self:
        """Start an experiment in a folder, or go on with one of equal settings.

        Args:
            path: The folder; made when it is absent.
            config: The settings.

        Returns:
            The folder.

        Raises:
            CheckpointError: it holds an experiment with other settings, or other files, or cannot be written.
        """
        folder, asked = cls(path), config.to_dict()
        try:
            if (path / SETTINGS).is_file():
                _same(path, folder.settings(), asked)
            elif path.is_dir() and any(not item.name.endswith(_FRESH) for item in path.iterdir()):
                raise CheckpointError(f"{path} holds files of something else: choose a folder that is new or empty")
            for name in ("jobs", "weights", "partial"):
                (path / name).mkdir(parents=True, exist_ok=True)
            for leftover in path.rglob(f"*{_FRESH}"):
                leftover.unlink()
            _write(path / SETTINGS, _json(asked))
        except OSError as error:
            raise CheckpointError(f"cannot write into {path}: {error.strerror}; choose another folder") from error
        return folder

    def settings(self) -> dict[str, Any]:
        """Read the settings.

        Returns:
            Plain values.

        Raises:
            CheckpointError: the file is damaged.
        """
        return _read(self.path / SETTINGS)

    def found(self, job: str) -> dict[str, Any] | None:
        """Read what a job found.

        Args:
            job: Its name.

        Returns:
            Plain values; None when it is not finished.

        Raises:
            CheckpointError: the file is damaged.
        """
        file = self.path / "jobs" / f"{job}.json"
        return _read(file) if file.is_file() else None

    def keep(self, job: str, found: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> None:
        """Write what a job found; weights first, because the record says that the job is finished.

        Args:
            job: Its name.
            found: Plain values.
            weights: Weights that other jobs start from.
        """
        if weights is not None:
            data = save({name: item.detach().cpu().contiguous() for name, item in weights.items()})
            _write(self.path / "weights" / f"{job}.safetensors", data)
        _write(self.path / "jobs" / f"{job}.json", _json(found))
        self._partial(job).unlink(missing_ok=True)

    def keep_partial(self, job: str, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Write where a job under way is; one file, so that state and tensors belong together.

        Args:
            job: Its name.
            state: Plain values.
            tensors: Tensors by name.
        """
        data = {name: item.detach().cpu().contiguous() for name, item in tensors.items()}
        _write(self._partial(job), save(data, {"state": json.dumps(state, allow_nan=False)}))

    def partial(self, job: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Read where a job was when its process ended.

        Args:
            job: Its name.

        Returns:
            State and tensors; None when nothing was kept.

        Raises:
            CheckpointError: the file is damaged.
        """
        file = self._partial(job)
        if not file.is_file():
            return None
        try:
            with safe_open(file, "pt") as opened:
                state = json.loads(opened.metadata()["state"])
            return state, load(file.read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} is damaged: {error}; remove it and run again") from error

    def _partial(self, job: str) -> Path:
        return self.path / "partial" / f"{job}.safetensors"

    def weights(self, job: str) -> dict[str, Tensor]:
        """Read the weights that a job left.

        Args:
            job: Its name.

        Returns:
            Tensors by name, on the CPU.

        Raises:
            CheckpointError: the file is absent or damaged.
        """
        file = self.path / "weights" / f"{job}.safetensors"
        try:
            return load(file.read_bytes())
        except (OSError, SafetensorError) as error:
            record = self.path / "jobs" / f"{job}.json"
            raise CheckpointError(f"cannot read {file}: {error}; remove {record} and run again") from error

    def keep_result(self, result: Mapping[str, Any]) -> Path:
        """Write the result.

        Args:
            result: Plain values.

        Returns:
            The file.
        """
        _write(self.path / RESULT, _json(result))
        return self.path / RESULT


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}; remove it and run again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds {type(content).__name__}, not an object; remove it and run again")
    return content


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all, also when the machine stops."""
    fresh = file.with_name(f"{file.name}{_FRESH}")
    with fresh.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _same(path: Path, stored: Any, asked: Any, where: str = "") -> None:
    """Refuse settings that differ from the stored ones.

    Raises:
        CheckpointError: they differ; the message names the first setting that does.
    """
    if isinstance(stored, dict) and isinstance(asked, dict):
        for name in sorted(stored.keys() | asked.keys()):
            _same(path, stored.get(name), asked.get(name), f"{where}.{name}" if where else name)
    elif stored != asked:
        raise CheckpointError(
            f"{path} holds an experiment with {where} = {stored}, this one has {asked}: repeat its settings to go on,"
            " or choose another folder"
        )
