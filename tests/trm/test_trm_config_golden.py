"""Settings of the originals load with equal values, and the published configurations are theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from trm_golden import golden

from sttrl.errors import UsageError
from sttrl.trm.config import CONFIGS, as_mapping, as_yaml, config_of, read_config
from sttrl.trm.run_names import project_name

FOLDER = golden("checkpoint")
FILES = sorted(FOLDER.glob("*/all_config/*.yaml"))
RUNS = [
    file for file in sorted(FOLDER.parent.glob("*/**/*.json")) if "arch" in str(json.loads(file.read_text())).split("'config': ")[-1][:12]
]
PREFIX = {"samsung": "", "trelis_seed": "trelis_", "trelis_head": "trelis_"}
OF_A_RUN = ("checkpoint_path", "project_name", "run_name", "entity")
CHOSEN_BY_README = {"trelis_pretrain_1024": "trm_1024", "trelis_pretrain_slim": "trm-slim"}
"""Presets that the fork's README gives on the command line, and ours hold in the file."""


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Where the settings that ``wanted`` has differ in ``found``, which has more."""
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            yield from differences(value, found[name], f"{place}{name}.")
        elif name == "evaluators":
            for own, other in zip(value, found[name], strict=True):
                yield from differences(own, other, f"{place}{name}.")
        elif value != found[name]:
            yield f"{place}{name}: {value} is {found[name]}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_all_config_loads_with_equal_values(file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(file.read_text())
    if content["eval_interval"] == 0:
        with pytest.raises(UsageError, match="--eval_interval is 0"):
            read_config(file)
        config = read_config(file, ["eval_interval=null"])
        content["eval_interval"] = None
    else:
        config = read_config(file)
    assert list(differences(content, as_mapping(config))) == []
    (tmp_path / "all_config.yaml").write_text(as_yaml(config))
    assert read_config(tmp_path / "all_config.yaml") == config
    assert config.optimiser == ("adam_atan2" if file.parts[-3] == "samsung" else "adam_atan2_pytorch")
    assert project_name(replace(config, project_name=None)) == content["project_name"]


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.parent.name)
def test_settings_of_recorded_runs_load(file: Path) -> None:
    content = json.loads(file.read_text())["config"]
    assert list(differences(content, as_mapping(config_of(content)))) == []


def published(file: Path) -> str | None:
    """The name of the configuration of ours that is a golden one; None for what no page publishes."""
    peer, name = file.parts[-3], file.stem.removeprefix("cfg_")
    later = "nov_" if peer == "trelis_head" and (FOLDER / "trelis_seed" / "all_config" / file.name).exists() else ""
    return None if "not_in_readme" in name else f"{PREFIX[peer]}{later}{name}"


@pytest.mark.parametrize("file", [file for file in FILES if published(file)], ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_published_configurations_are_the_originals(file: Path) -> None:
    name, content = published(file), yaml.safe_load(file.read_text())
    config = read_config(CONFIGS / f"{name}.yaml", ["arch=trm-trelis"] if name in CHOSEN_BY_README else [])
    if content["eval_interval"] == 0:
        content["eval_interval"] = None
    assert list(differences({key: value for key, value in content.items() if key not in OF_A_RUN}, as_mapping(config))) == []
    assert config.optimiser == ("adam_atan2" if file.parts[-3] == "samsung" else "adam_atan2_pytorch")
