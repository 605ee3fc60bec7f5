"""The environment of processes that compute on CPU, and the start of Ray on machines where that is hard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from live_engine import settings_for

from sttrl.engine import processes
from sttrl.engine.processes import on_cpu
from sttrl.engine.vllm import sampler
from sttrl.errors import EngineError


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
def test_torch_s_openmp_is_there_before_torch() -> None:
    code = "print('torch/lib/libgomp' in open('/proc/self/maps').read()); import torch; print(torch.get_num_threads())"
    said = subprocess.run([sys.executable, "-c", code], env={**os.environ, **on_cpu(1)}, capture_output=True, text=True, timeout=300)
    assert (said.stdout.split(), said.stderr) == (["True", "1"], "")


def test_what_the_user_preloads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/a.so /b.so")
    assert on_cpu(3)["LD_PRELOAD"].split()[1:] == ["/a.so", "/b.so"] and on_cpu(3)["OMP_NUM_THREADS"] == "3"


def test_the_sampler_has_it_too() -> None:
    here = settings_for(Path("model"))
    assert on_cpu(2).items() <= sampler.environment(here, 2).items()
    assert "LD_PRELOAD" not in sampler.environment(settings_for(Path("model"), device="cuda"), 2)


SLOW = "The current node timed out during startup. This could happen because\nsome of the raylet failed to startup."
"""What Ray says when its processes are slow, in an ``Exception``."""


class Ray:
    """Ray's two calls; it fails the first ``failures`` times, as on a busy machine, and leaves a process behind."""

    def __init__(self, failures: int) -> None:
        self.failures, self.calls, self.left = failures, list[dict[str, Any]](), list[subprocess.Popen[bytes]]()

    def init(self, **options: Any) -> None:
        self.calls.append(options)
        if len(self.calls) <= self.failures:
            self.left.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "/packages/ray/raylet"]))
            raise Exception(SLOW)

    def shutdown(self) -> None:
        """Nothing was connected."""


def slow_ray(monkeypatch: pytest.MonkeyPatch, failures: int) -> Ray:
    fake = Ray(failures)
    monkeypatch.setattr(processes, "ray", fake)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    return fake


def test_ray_that_is_slow_to_start_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = slow_ray(monkeypatch, 1)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        assert processes.start_ray(2) and len(fake.calls) == 2
        assert fake.left[0].wait(60) == -signal.SIGKILL, "what the first try left"
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = slow_ray(monkeypatch, 2)
    with pytest.raises(EngineError) as caught:
        processes.start_ray(2)
    said = str(caught.value)
    assert len(fake.calls) == 2 and "\n" not in said and caught.value.exit_code == 4
    assert "Ray did not start in 2 tries: The current node timed out during startup." in said and "less busy" in said
    assert [left.wait(60) for left in fake.left] == [-signal.SIGKILL] * 2


def test_a_cluster_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = slow_ray(monkeypatch, 1)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(EngineError, match=r"RAY_ADDRESS=192\.0\.2\.1:6379: The current node .* Unset RAY_ADDRESS"):
        processes.start_ray(2)
    assert len(fake.calls) == 1
    fake.left[0].wait(60)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_too_long_for_sockets_names_the_remedy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = slow_ray(monkeypatch, 0)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    most = 107 - len(f"/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store")
    monkeypatch.setenv(variable, "/" + "x" * most)
    with pytest.raises(EngineError) as caught:
        processes.start_ray(2)
    assert f"/{'x' * most}, has a path of {most + 1} bytes" in caught.value.message and f"at most {most}." in caught.value.message
    assert f"Set {variable} to a shorter one" in caught.value.hint and not fake.calls
    monkeypatch.setenv(variable, "/" + "x" * (most - 1))
    assert processes.start_ray(2)


def test_vllm_s_sockets_are_thought_of_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_ray(monkeypatch, 0)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 70)
    with pytest.raises(EngineError, match="path of 71 bytes, and sockets in it need one of at most 70. Set TMPDIR to a shorter one"):
        processes.start_ray(2)
