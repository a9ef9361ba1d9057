"""Entry of the jail process: `python -S -s -P boot.py <control-fd> <json options> <file of the JSON library>`.

It gives the modules beside it their usual names without running `envsynth/__init__.py` or `envsynth/sandbox/__init__.py`
(those import third-party packages, which the jail must neither have nor need), and loads the one library that it does
need, a single file, without its folder becoming one to import from. Then it hands over to the zygote.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from importlib.machinery import ExtensionFileLoader
from pathlib import Path


def main() -> None:
    """Make the jail's own modules importable, start the zygote and never return."""
    here = Path(__file__).resolve().parent
    names = ("envsynth", "envsynth.sandbox", "envsynth.sandbox.jailed")
    for name, folder in zip(names, (here.parent.parent, here.parent, here), strict=True):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    _load_extension("orjson", sys.argv[3])
    zygote = importlib.import_module("envsynth.sandbox.jailed.zygote")
    zygote.run(int(sys.argv[1]), json.loads(sys.argv[2]))


def _load_extension(name: str, path: str) -> None:
    loader = ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    if spec is None:
        raise ImportError(f"{path} is no extension module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)


if __name__ == "__main__":
    main()
