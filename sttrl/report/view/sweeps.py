"""The JSON value of a sweep on a page, from its sweep.json, and the run folders below a sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from sttrl.errors import JournalError, UsageError
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import JOURNAL

SWEEP_FILE: Final = "sweep.json"
NUMBERS: Final = (
    "base_mean", "vote_majority", "vote_confidence", "adapted_mean", "gain_mean", "gain_low", "gain_high", "p_value", "tokens_per_question",
    "seconds_per_question",
)  # fmt: skip
"""The numbers of a row that a page shows."""


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep, finished or not: it is no run, and it has the table of a sweep or runs in it."""
    return not (folder / CONFIG).exists() and ((folder / SWEEP_FILE).is_file() or bool(runs_below(folder)))


def check_folders(folders: Sequence[Path]) -> None:
    """Raises `UsageError` for a sweep among other folders: it is shown by itself."""
    if len(folders) > 1 and (sweeps := [folder for folder in folders if is_sweep(folder)]):
        raise UsageError(f"{sweeps[0]} is a sweep, which is shown by itself.", "Give its run folders, or leave the others out.")


def runs_below(folder: Path) -> list[Path]:
    """The run folders directly in a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{JOURNAL}") if (path.parent / CONFIG).is_file())


def read_sweep_view(folder: Path) -> dict[str, Any]:
    """What a page shows of a sweep; before its end, when there is no sweep.json, only its name. Raises `JournalError` for a damaged file.

    ``rows``: each with the numbers of its runs together, and in ``by_seed`` the name, the seed and the gain of each run.
    """
    file = folder / SWEEP_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {"name": content["sweep"], "rows": [_row(row) for row in content["rows"]]}
    except FileNotFoundError:
        return {"name": folder.name, "rows": []}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalError(f"{file} is damaged.", "Repeat the command of the sweep: it writes the file again.") from error


def names_of(folders: Sequence[Path]) -> dict[Path, str]:
    """The name of each folder on the page: its last part, or its whole path where two have the same last part."""
    last = [folder.resolve().name for folder in folders]
    return {folder: name if last.count(name) == 1 else str(folder) for folder, name in zip(folders, last, strict=True)}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    by_seed = [{"run": each["run"], "seed": each["seed"], "gain_mean": each["gain_mean"]} for each in row["by_seed"]]
    return {
        "label": row["label"],
        "settings": dict(row["settings"]),
        "metric": row["metric"],
        **{name: row[name] for name in NUMBERS},
        "by_seed": by_seed,
    }
