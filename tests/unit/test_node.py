"""What keeps a lane from another node, said in one line; and what is left of a lane whose keeper was killed."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from live_engine import living, settings_for

from sttrl.engine import environment
from sttrl.engine.node import check_memory, check_model, check_versions, model_files
from sttrl.errors import EngineError

KEEPER = """
import subprocess, sys
from sttrl.engine import environment
from sttrl.engine.node import start_reaper
reaper = start_reaper(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run(['sleep', '600'])"], start_new_session=True)
reaper.stdin.write(f"{child.pid}\\n")
reaper.stdin.flush()
print(child.pid, flush=True)
{then}
"""
"""A keeper whose lane has a process with a child of its own."""


def model(folder: Path, config: str = "{}", weights: int = 100) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(bytes(weights))
    return folder


def complaint(caught: pytest.ExceptionInfo[EngineError]) -> str:
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_node_with_other_packages_is_named() -> None:
    check_versions("10.0.0.2", {"psutil": psutil.__version__, "vllm-of-nobody": None})
    with pytest.raises(EngineError) as caught:
        check_versions("10.0.0.2", {"psutil": "0.1"})
    assert complaint(caught) == (
        f"Node 10.0.0.2 has psutil {psutil.__version__}, and the node of the command has 0.1. Install the same packages on every node."
    )


def test_a_node_without_the_model_or_with_another_is_named(tmp_path: Path) -> None:
    here, other = model(tmp_path / "here"), model(tmp_path / "other", weights=99)
    check_model("10.0.0.2", here, model_files(here))
    with pytest.raises(EngineError) as caught:
        check_model("10.0.0.2", other, model_files(here))
    assert complaint(caught).startswith(f"Node 10.0.0.2 has another model in {other}: model.safetensors differs.")
    with pytest.raises(EngineError) as caught:
        check_model("10.0.0.2", tmp_path / "nowhere", model_files(here))
    assert complaint(caught).startswith(f"Node 10.0.0.2 has no model in {tmp_path}/nowhere. Copy it there")


def test_a_node_that_cannot_hold_its_lanes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(tmp_path, kv_cache_mib=100)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"total": 1000 << 20})())
    files = {"config.json": 1, "model.safetensors": 200 << 20}
    check_memory("10.0.0.2", settings, 2, files)
    with pytest.raises(EngineError) as caught:
        check_memory("10.0.0.2", settings, 3, files)
    assert complaint(caught).startswith("Node 10.0.0.2 has 1000 MiB of memory; 3 lanes with 2 copies of the model need 1500 MiB.")


def test_the_node_of_the_command_needs_no_gpu_where_others_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_cuda", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match="no NVIDIA GPU is visible"):
        environment.choose_device("cuda")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert environment.choose_device("cuda") == "cuda"


@pytest.mark.parametrize("killed", [True, False])
def test_a_lane_s_processes_and_folders_end_with_its_keeper(killed: bool, tmp_path: Path) -> None:
    """Ray kills the actors of a driver that was killed, but not what these have started, such as vLLM's processes."""
    folder = model(tmp_path / "deltas")
    then = "sys.stdin.read()" if killed else "reaper.communicate()"
    command = [sys.executable, "-c", KEEPER.replace("{then}", then), str(folder)]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    child = psutil.Process(int(keeper.stdout.readline()))
    if killed:
        while not (family := [child, *child.children()])[1:]:
            time.sleep(0.05)
        assert folder.exists()
        keeper.send_signal(signal.SIGKILL)
    else:
        family = [child]
    keeper.wait(60)
    assert not living(family)
    deadline = time.monotonic() + 60
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
    shutil.rmtree(tmp_path)
