"""The environment of processes that compute on CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_engine import settings_for

from sttrl.engine import sampler
from sttrl.engine.processes import on_cpu


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
def test_torch_s_openmp_is_there_before_torch() -> None:
    code = "print('torch/lib/libgomp' in open('/proc/self/maps').read()); import torch; print(torch.get_num_threads())"
    said = subprocess.run([sys.executable, "-c", code], env={**os.environ, **on_cpu(1)}, capture_output=True, text=True, timeout=60)
    assert (said.stdout.split(), said.stderr) == (["True", "1"], "")


def test_what_the_user_preloads_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/a.so /b.so")
    assert on_cpu(3)["LD_PRELOAD"].split()[1:] == ["/a.so", "/b.so"] and on_cpu(3)["OMP_NUM_THREADS"] == "3"


def test_the_sampler_has_it_too() -> None:
    here = settings_for(Path("model"))
    assert on_cpu(2).items() <= sampler.environment(here, 2).items()
    assert "LD_PRELOAD" not in sampler.environment(settings_for(Path("model"), device="cuda"), 2)
