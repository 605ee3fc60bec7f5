"""What requirements/gpu_names.py finds where GPUs have another version of a package than the one that the tests run with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = """
from toy import Engine, settings

class Ours(Engine):
    def start(self) -> int:
        return self._port + settings(lanes=2)

def ask(engine: Engine) -> None:
    engine.ask("x", timeout_s=3)
    engine.stop()
"""
HERE = """
class Engine:
    def __init__(self) -> None:
        self._port = 1
    def ask(self, text: str, timeout_s: int = 1) -> None: ...
    def stop(self, wait: bool = True) -> None: ...

def settings(lanes: int) -> int:
    return lanes
"""
THERE = HERE.replace("_port", "_address").replace(", timeout_s: int = 1", "").replace("wait: bool = True", "at_once: bool = False")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_names", ROOT / "requirements/gpu_names.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_names"] = module
    spec.loader.exec_module(module)
    return module


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.slow
def test_what_gpus_lack_and_what_differs_there_is_named(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = written(tmp_path / "root", sttrl__engine__lanes=ENGINE, sttrl__objectives__losses="from toy import settings\n")
    for package in ("sttrl", "sttrl/engine", "sttrl/objectives"):
        (root / package / "__init__.py").touch()
    assert script.imported(root) == {"toy"}
    cache = tmp_path / "cache"
    cache.mkdir()
    here = script.read(root, cache, "here", ["toy"], [written(tmp_path / "1", toy=HERE)])
    there = script.read(root, cache, "gpu", ["toy"], [written(tmp_path / "2", toy=THERE)])
    assert here.errors == () and script.report([], here, here) == 0
    capsys.readouterr()
    assert script.report([script.Package("toy", "1", "2")], here, there) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "differs: toy.Engine.stop: lacks wait=; adds at_once=" in lines
    missing = [line for line in lines if line.startswith("missing: ")]
    assert [word for word in ("_port", "timeout_s") if not any(f'"{word}"' in line for line in missing)] == []
    assert all(line.startswith("missing: sttrl/engine/lanes.py:") for line in missing) and lines[-1].endswith("2 complaints")


def test_exact_pins_are_read_whatever_extras_and_builds_they_have(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "gpu.txt").write_text("# torch==1\nray[default]==2.60.0\ntorch==2.13.0+cpu\ngguf>=0.19\n")
    assert script.pins(tmp_path / "gpu.txt") == {"ray": "2.60.0", "torch": "2.13.0"}


def test_only_what_is_pinned_for_gpus_is_compared(script: ModuleType) -> None:
    same, other = script.packages({"numpy", "torch", "vllm"}, {"torch": "1.0", "vllm": "0.28.0"})
    assert (same.name, same.there) == ("torch", "1.0") and same.here != "1.0"
    assert other.here.startswith("0.28.0") and other.name == "vllm"
