"""Entry of the jail process: `python -S -s -P boot.py <control-fd> <json options>`.

It gives the modules beside it their usual names without running `envsynth/__init__.py` or `envsynth/sandbox/__init__.py`
(those import third-party packages, which the jail must neither have nor need), then hands over to the zygote.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path


def main() -> None:
    """Make the jail's own modules importable, start the zygote and never return."""
    here = Path(__file__).resolve().parent
    names = ("envsynth", "envsynth.sandbox", "envsynth.sandbox.jailed")
    for name, folder in zip(names, (here.parent.parent, here.parent, here), strict=True):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    zygote = importlib.import_module("envsynth.sandbox.jailed.zygote")
    zygote.run(int(sys.argv[1]), json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()
