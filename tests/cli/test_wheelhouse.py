"""requirements/wheelhouse.py: a folder of wheels and models from which an empty environment installs without a network."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}
OFFLINE = ("--no-index", "--find-links", "links")


def a_wheel(links: Path, name: str, version: str) -> Path:
    """A wheel of one module that says its version, written by hand."""
    links.mkdir(exist_ok=True)
    info, wheel = f"{name}-{version}.dist-info", links / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def a_model(folder: Path) -> Path:
    folder.mkdir()
    for name, text in MODEL.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, in a small project of two packages and one of weights; all but sttrl itself are wheels in `links`."""
    monkeypatch.syspath_prepend(ROOT / "requirements")
    module = importlib.import_module("wheelhouse")
    root = tmp_path / "project"
    (root / "sttrl").mkdir(parents=True)
    (root / "requirements").mkdir()
    (root / "sttrl/__init__.py").write_text("import first_package\n\ndef main():\n    print('ran with', first_package.VERSION)\n")
    (root / "requirements/cpu.txt").write_text("# A comment\nFirst-Package==1.0\nsecond==2.0rc1\n")
    (root / "requirements/weights.txt").write_text("# Weights of builtin/Small-1M.\nsmall_weights==0.1\n")
    (root / "README.md").touch()
    (root / "LICENSE").touch()
    (root / "pyproject.toml").write_text(
        textwrap.dedent("""\
            [build-system]
            requires = ["setuptools>=77"]
            build-backend = "setuptools.build_meta"
            [project]
            name = "sttrl"
            version = "0.1.0"
            [project.scripts]
            sttrl = "sttrl:main"
            """)
    )
    monkeypatch.setattr(module, "ROOT", root)
    for name, version in {"first_package": "1.0", "second": "2.0rc1", "small_weights": "0.1"}.items():
        a_wheel(tmp_path / "links", name, version)
    return module


def read(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "wheelhouse.json").read_text()))


@pytest.mark.slow
def test_an_empty_environment_installs_from_the_folder(script: ModuleType, tmp_path: Path) -> None:
    model = a_model(tmp_path / "mine")
    (model / ".git").mkdir()
    out = tmp_path / "out"
    assert script.main(["--out", "out", "--model", "builtin/Small-1M", "--model", str(model), *OFFLINE]) == 0
    made = read(out)
    assert (made["platform"], made["python"]) == ("cpu", "3.11")
    versions = {wheel["name"]: wheel["version"] for wheel in made["wheels"]}
    assert versions == {"first_package": "1.0", "second": "2.0rc1", "small_weights": "0.1", "sttrl": "0.1.0"}
    assert [(entry["name"], entry["folder"]) for entry in made["models"]] == [("builtin/Small-1M", None), (str(model), "models/mine")]
    files = [*made["wheels"], *made["models"][1]["files"]]
    assert {Path(entry["file"]).name for entry in made["models"][1]["files"]} == set(MODEL)
    assert all(hashlib.sha256((out / entry["file"]).read_bytes()).hexdigest() == entry["sha256"] for entry in files)
    assert all((out / entry["file"]).stat().st_size == entry["bytes"] for entry in files)
    moved = tmp_path / "moved"
    out.rename(moved)
    clean = {"PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", str(moved / "install.sh"), "venv", sys.executable], check=True, timeout=300, env=clean)
    said = subprocess.run(["venv/bin/sttrl"], check=True, capture_output=True, text=True, env=clean)
    assert said.stdout == "ran with 1.0\n"
    assert (tmp_path / "venv/share/sttrl/weights/small_weights/__init__.py").exists()
    (script.ROOT / "sttrl/__init__.py").write_text("def main():\n    print('changed')\n")
    moved.rename(out)
    assert script.main(["--out", "out", "--model", "builtin/Small-1M", *OFFLINE]) == 0
    assert list((out / "models").iterdir()) == []
    subprocess.run(["bash", str(out / "install.sh"), "venv", sys.executable], check=True, timeout=300, env=clean)
    assert subprocess.run(["venv/bin/sttrl"], check=True, capture_output=True, text=True, env=clean).stdout == "changed\n"


@pytest.mark.slow
def test_what_is_missing_is_named_and_the_same_command_goes_on(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tmp_path / "links" / "second-2.0rc1-py3-none-any.whl"
    second.rename(tmp_path / "away.whl")
    out = tmp_path / "out"
    assert script.main(["--out", str(out), *OFFLINE]) == 1
    assert "pip cannot get second==2.0rc1." in capsys.readouterr().err
    assert [wheel.name for wheel in (out / "wheels").iterdir()] == ["first_package-1.0-py3-none-any.whl"]
    assert not (out / "wheelhouse.json").exists()
    (tmp_path / "away.whl").rename(second)
    asked: list[str] = []
    monkeypatch.setattr(
        script, "fetch", lambda pins, *rest, fetch=script.fetch: asked.extend(pin.name for pin in pins) or fetch(pins, *rest)
    )
    a_wheel(out / "wheels", "from_before", "1.0")
    assert script.main(["--out", str(out), *OFFLINE]) == 0
    assert asked == ["second"]
    assert {wheel["name"] for wheel in read(out)["wheels"]} == {"first_package", "second", "sttrl"}
    assert "from_before" not in {wheel.name.partition("-")[0] for wheel in (out / "wheels").iterdir()}
    assert script.main(["--out", str(out), *OFFLINE]) == 0 and asked == ["second"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "builtin/other"], "--model 'builtin/other' is no folder, no name on the hub, and not builtin/Small-1M."),
        (["--model", "nothing-here"], "--model 'nothing-here' is no folder, no name on the hub, and not builtin/Small-1M."),
        (["--model", "half"], "lacks config.json or .safetensors weights"),
        (["--out", "full"], "is no wheelhouse"),
    ],
)
def test_what_cannot_be_packed_is_refused_before_anything_is_fetched(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    for folder in ("half", "full"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").touch()
    assert script.main(["--out", "out", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["config.json"]


def test_an_interrupted_model_is_copied_again(script: ModuleType, tmp_path: Path) -> None:
    model, target = a_model(tmp_path / "mine"), tmp_path / "out" / "models" / "mine"
    target.parent.mkdir(parents=True)
    script.copy_model(model, target)
    before = target.stat().st_ino
    script.copy_model(model, target)
    assert target.stat().st_ino == before
    (target / "model.safetensors").write_text("wei")
    script.copy_model(model, target)
    assert (target / "model.safetensors").read_text() == "weights"


def test_cpu_builds_are_no_environment_for_gpus(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script.ROOT / "requirements/gpu.txt").write_text("torch==1.0\n")
    report = {"install": [{"metadata": {"name": "torch", "version": "1.0+cpu"}}]}
    monkeypatch.setattr(script, "resolve", lambda source, options: report)
    with pytest.raises(script.WheelhouseError, match=r"CPU builds: torch==1\.0\+cpu"):
        script.environment_pins("cuda", tmp_path, [])


def test_the_real_lock_is_pins_and_the_builtin_model_is_known() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import wheelhouse as w; "
        "print(len(w.read_pins(w.ROOT / 'requirements/cpu.txt')), w.builtin_models())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ROOT / "requirements")], capture_output=True, text=True, check=True)
    count = sum(not line.startswith("#") for line in (ROOT / "requirements/cpu.txt").read_text().splitlines())
    assert done.stdout == f"{count} ['builtin/SmolLM2-135M-Instruct']\n"


@pytest.mark.slow
def test_another_build_than_the_pinned_one_is_missing(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_wheel(tmp_path / "links", "second", "2.0rc1+cpu")
    assert script.main(["--out", "out", *OFFLINE]) == 1
    assert "have other builds of second==2.0rc1." in capsys.readouterr().err
