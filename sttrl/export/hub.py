"""A run on the hub: its adapters as a repository of PEFT folders, its predictions as a data set of the same name."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sttrl.data.upload import Destination, Pushed, check_destination, upload
from sttrl.errors import DataError
from sttrl.export.cards import adapter_card, dataset_card
from sttrl.export.published import hub_model, model_name
from sttrl.export.tables import write_parquet
from sttrl.library.loaded_run import LoadedRun
from sttrl.run.states import ALL

CARD: Final = "README.md"
ADAPTERS: Final = "adapters"
SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's names of the files of an adapter."""


@dataclass(frozen=True, kw_only=True)
class PushedRun:
    """Where a run is now. ``adapters`` None: it kept none that PEFT reads."""

    predictions: Pushed
    adapters: Pushed | None


def push_run(run: LoadedRun, to: Destination) -> PushedRun:
    """Push predictions and adapters to two repositories of one name, a data set and a model.

    Raises what `sttrl.data.upload.upload` raises, and what writing Parquet files raises.
    """
    check_destination(to)
    with tempfile.TemporaryDirectory() as folder:
        tables = {f"data/{file.name}": file for file in write_parquet(run, Path(folder))}
        prefix = f"{to.path_in_repo.strip('/')}/".lstrip("/")
        card = dataset_card(run, to.repo_id, {file.stem: f"{prefix}{place}" for place, file in tables.items()})
        predictions = upload({**tables, CARD: card}, to, f"Upload the predictions of {run.path.resolve().name}", "dataset")
    return PushedRun(predictions=predictions, adapters=_push_adapters(run, to))


def _push_adapters(run: LoadedRun, to: Destination) -> Pushed | None:
    folders = [folder for folder in sorted((run.path / ADAPTERS).glob("[!.]*")) if (folder / SETTINGS).is_file()]
    if not folders:
        return None
    # PEFT finds an adapter that is alone without being told its folder.
    alone = [folder.name for folder in folders] == [ALL]
    places = {folder.name: "" if alone else f"{ADAPTERS}/{folder.name}" for folder in folders}
    files: dict[str, Path | str] = {}
    for folder in folders:
        place = f"{places[folder.name]}/".lstrip("/")
        files[f"{place}{SETTINGS}"] = _settings(folder / SETTINGS, run)
        files[f"{place}{WEIGHTS}"] = folder / WEIGHTS
        if not (folder / WEIGHTS).is_file():
            raise DataError(f"{folder} has no {WEIGHTS}.", "Restore it, or remove the folder.")
    prefix = to.path_in_repo.strip("/")
    shown = {adapter: f"{prefix}/{place}".strip("/") for adapter, place in places.items()}
    files[CARD] = adapter_card(run, to.repo_id, shown)
    return upload(files, to, f"Upload the adapters of {run.path.resolve().name}")


def _settings(file: Path, run: LoadedRun) -> str:
    """PEFT's settings with the base's name on the hub: the engine loads it from a folder of this machine. Raises `DataError`."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = hub_model(run) or model_name(run)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file} is no JSON object.", "Restore it, or remove the folder.") from error
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"
