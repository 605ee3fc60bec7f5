"""The files of settings that come with sttrl are found by their names from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sttrl import cli
from sttrl.config.packaged import CONFIGS, packaged_names, settings_file
from sttrl.errors import UsageError
from sttrl.trm.config import CONFIGS as TRM
from sttrl.trm.overrides import find_config


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["demo", "demo.yaml", "configs/demo.yaml", "configs/demo"])
def test_a_run_finds_them_from_any_folder(name: str) -> None:
    assert settings_file(name) == CONFIGS / "demo.yaml"
    assert cli.parse_run([f"--config={name}"]).run.run_name == "demo"


def test_a_name_with_a_dot_is_whole() -> None:
    name = "paper/aime_qwen2.5-math-7b_slot"
    assert settings_file(name) == settings_file(f"configs/{name}.yaml") == CONFIGS / f"{name}.yaml"


def test_sweeps_and_the_recursive_model_find_them() -> None:
    assert cli.read_sweep(settings_file("sweeps/demo_arc")).name == "demo_arc"
    assert find_config("configs/trm/arc1.yaml", TRM) == find_config("trm/arc1", TRM) == find_config("arc1", TRM) == TRM / "arc1.yaml"


def test_every_name_means_its_file() -> None:
    names = packaged_names()
    assert len(names) == len(list(CONFIGS.rglob("*.yaml"))) and {"demo", "sweeps/demo_arc", "trm/arch/trm"} <= set(names)
    assert [name for name in names if settings_file(name) != CONFIGS / f"{name}.yaml"] == []


def test_a_file_of_the_user_wins(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("run_name: mine\n")
    assert cli.parse_run(["--config", "demo.yaml"]).run.run_name == "mine"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/demo.yaml").write_text("run_name: mine_too\n")
    assert cli.parse_run(["--config", "configs/demo.yaml"]).run.run_name == "mine_too"


def test_nothing_outside_of_their_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "nothing.txt").touch()
    for name in ("../config/packaged.py", "configs/../config/packaged.py", "/demo", "missing"):
        assert settings_file(name) == Path(name)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("demos", "Did you mean 'demo'"), ("demo_ark.yaml", "Did you mean 'sweeps/demo_arc'"), ("mine/x.yaml", f"in {CONFIGS}")],
)
def test_what_does_not_exist_is_named_with_a_remedy(name: str, remedy: str) -> None:
    with pytest.raises(UsageError, match="cannot be read") as raised:
        cli.parse_run(["--config", name])
    assert raised.value.hint is not None and remedy in raised.value.hint
