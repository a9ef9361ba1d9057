"""Register our ids when Gymnasium is imported, whoever imports it and whenever.

Gymnasium 1.x loads no plug-ins by itself. So the installed `envsynth_gym.pth` puts one finder on `sys.meta_path` that
knows a single name, `gymnasium.envs`, and asks `find` of this module for it; programs that never import Gymnasium do not
even load this module. Where no `.pth` file is installed, `install()` does the same. Nothing of Gymnasium is changed.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

_TARGET = "gymnasium.envs"

_asked: list[str] = []
"""Holds the name once it was looked for; the finders then step aside."""


class _Loader(importlib.abc.Loader):
    """Runs Gymnasium's own loader, then registers our ids."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _register()


class _Finder(importlib.abc.MetaPathFinder):
    """What `install` puts on `sys.meta_path`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return find(fullname)


def find(fullname: str) -> importlib.machinery.ModuleSpec | None:
    """Find `gymnasium.envs` once, with a loader that registers our ids after it.

    Args:
        fullname: Name of a module that is being imported.

    Returns:
        The module's spec; None for every other name, and at every later time.
    """
    if fullname != _TARGET or _asked:
        return None
    _asked.append(fullname)
    spec = importlib.util.find_spec(fullname)
    if spec is not None and spec.loader is not None:
        spec.loader = _Loader(spec.loader)
    return spec


def _register() -> None:
    try:
        importlib.import_module("envsynth.gym_ids.ids").register_all()
    except Exception as error:  # noqa: BLE001 - our fault must not break `import gymnasium` for programs without us
        text = f"envsynth registered no Gymnasium ids: {error!r}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


def install() -> None:
    """Arrange that our ids are registered as soon as Gymnasium is imported, or now if it is; may be called again."""
    if _asked:
        return
    if _TARGET in sys.modules:
        _asked.append(_TARGET)
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
