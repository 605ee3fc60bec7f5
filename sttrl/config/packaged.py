"""The files of settings that come with sttrl: the demos, the published runs, sweeps, and the recursive model's configurations."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

CONFIGS: Final = Path(__file__).resolve().parents[1] / "configs"
"""Their folder. It is a part of the package; `configs` in the repository's root is a link to it."""


def settings_file(name: str | Path) -> Path:
    """The file that a name means: a path, or a file that comes with sttrl.

    Those have the names that they have in the repository, with or without ``configs/`` and ``.yaml``: ``configs/demo.yaml`` or ``demo``.
    A file of the user wins. Where there is none, the name itself is returned, and reading it fails.
    """
    path = Path(name)
    if path.is_file() or path.is_absolute():
        return path
    own = Path(*path.parts[1:]) if path.parts[:1] == ("configs",) else path
    tried = (CONFIGS / own, CONFIGS / f"{own}.yaml")
    return next((file for file in tried if file.is_file() and CONFIGS in file.resolve().parents), path)


def packaged_names(below: str = "") -> list[str]:
    """The names of the files in a folder of ``configs``, and in the folders below it, as `settings_file` takes them."""
    return sorted(str(file.relative_to(CONFIGS).with_suffix("")) for file in (CONFIGS / below).rglob("*.yaml"))


def where_to_find(name: str | Path) -> str:
    """The remedy for a file of settings that does not exist: the nearest name that comes with sttrl, or where they all lie."""
    known = packaged_names()
    asked = str(Path(name).with_suffix("")).removeprefix("configs/")
    near = difflib.get_close_matches(asked, [*known, *(Path(each).name for each in known)], 1)
    if near:
        return f"Did you mean {next(each for each in known if each == near[0] or Path(each).name == near[0])!r}, which comes with sttrl?"
    return f"Give an existing YAML file, or the name of one of those that come with sttrl, in {CONFIGS}."
