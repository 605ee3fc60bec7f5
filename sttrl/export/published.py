"""What of a run may leave the machine: rows without what a data set's authors withhold, and settings without the user's folders."""

from __future__ import annotations

import shlex
import typing
from pathlib import Path
from typing import Any, Final

from sttrl.config import RunConfig, field_names, to_plain, type_of
from sttrl.data.hub import REPO
from sttrl.ledger.folder import FREE
from sttrl.library.loaded_run import LoadedRun
from sttrl.library.tables import Row

WITHHELD: Final = (
    "The authors of this data set ask that its questions stay out of plain text: questions, labels, answers and texts are left out."
)
_TEXTS: Final = frozenset({"question", "label", "text", "token_ids", "answer", "error"})
"""Columns that may hold a question, a label, or an answer: with the verdict beside it an answer says what the label is."""
_MAY_BE_LOCAL: Final = ("model", "dataset", "train_dataset")
"""Settings whose value is a name or a path."""


def published(row: Row, withheld: bool) -> Row:
    """A row of a table without the texts that a data set's authors withhold, and with texts that every file format can hold."""
    return {name: None if withheld and _is_text(name) else clean(value) for name, value in row.items()}


def clean(value: Any) -> Any:
    """A text without lone surrogates, which UTF-8 cannot hold: they become escapes. Other values as they are."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def settings_of(run: LoadedRun) -> dict[str, Any]:
    """The settings that affect the results and differ from their defaults. Of a path only the last part is left."""
    defaults = to_plain(RunConfig())
    chosen = {name: run.config[name] for name in field_names() if name in run.config and name not in FREE}
    differing = {name: value for name, value in chosen.items() if value != defaults[name] or name in ("dataset", "model")}
    return {name: _without_folder(name, value) for name, value in differing.items()}


def command_of(run: LoadedRun) -> str:
    """The command that does a run with the same settings."""
    words = ["python", "main.py"]
    for name, value in settings_of(run).items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        elif value is not None and value != []:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)


def model_name(run: LoadedRun) -> str:
    """The base's name; of a local folder only the last part."""
    return str(_without_folder("model", run.config["model"]))


def hub_model(run: LoadedRun) -> str | None:
    """The base's repository on the hub; None for a local folder or a model of another name."""
    name = str(run.config["model"]).partition("@")[0]
    return name if REPO.fullmatch(name) and not name.startswith("builtin/") and not _is_local(name) else None


def _is_text(column: str) -> bool:
    return column.rpartition("/")[2] in _TEXTS


def _without_folder(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_without_folder(name, part) for part in value]
    is_path = Path in typing.get_args(type_of(name)) or type_of(name) is Path
    if isinstance(value, str) and (is_path or (name in _MAY_BE_LOCAL and _is_local(value))):
        return Path(value).name
    return value


def _is_local(name: str) -> bool:
    """Whether a name is that of a file or folder here, and no name on the hub."""
    path = Path(name).expanduser()
    return not name.startswith("hf:") and (path.is_absolute() or name.startswith(".") or name.count("/") > 1 or path.exists())
