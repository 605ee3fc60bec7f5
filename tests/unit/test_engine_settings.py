"""What a run asks of its engine: the key-value cache that its samples can fill, and the dtype that the machine multiplies."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from sttrl.config import RunConfig
from sttrl.engine import environment
from sttrl.engine.environment import choose_dtype
from sttrl.errors import EngineError
from sttrl.ledger.journal import Journal
from sttrl.run.plan import engine_settings, kv_cache_mib

SMOL = {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}


@pytest.mark.parametrize(
    ("settings", "numbers"),
    [
        (SMOL, 2 * 30 * 3 * 64),
        ({**SMOL, "num_key_value_heads": None}, 2 * 30 * 9 * 64),
        ({**SMOL, "head_dim": 128}, 2 * 30 * 3 * 128),
        ({"text_config": SMOL, "num_hidden_layers": 2}, 2 * 30 * 3 * 64),
        ({"num_hidden_layers": 30}, None),
    ],
    ids=str,
)
def test_what_a_token_leaves_in_the_cache(settings: dict[str, Any], numbers: int | None, tmp_path: Path) -> None:
    from sttrl.engine.models import cached_numbers

    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert cached_numbers(tmp_path) == numbers


def test_the_cache_is_what_the_samples_can_need_and_no_more_than_a_share_of_the_memory() -> None:
    # 33 sequences of 77 + 64 tokens, each 2 x 30 x 3 x 64 numbers of 2 bytes: 102.2 MiB
    assert kv_cache_mib(32, 77, 11520, 2) == 103
    assert kv_cache_mib(32, 77, 11520, 4) == 205
    assert kv_cache_mib(128, 3500, 11520, 2) == kv_cache_mib(1, 1, None, 2) == 256


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, cpu_info: str) -> None:
    """A processor that says this of itself."""
    file = folder / "cpuinfo"
    file.write_text(cpu_info)
    monkeypatch.setattr(environment, "CPU_INFO", file)


@pytest.mark.parametrize(
    ("said", "dtype"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_fp16\n", "bfloat16"),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", "bfloat16"),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni\n", "float32"),
        ("Features\t: fp asimd\n", "float32"),
        ("model name\t: with bf16 in its name\n", "float32"),
        ("", "float32"),
    ],
)
def test_a_processor_samples_and_trains_in_what_it_multiplies(
    said: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, tmp_path, said)
    assert choose_dtype("auto", "cpu") == dtype
    assert [choose_dtype(wanted, "cpu") for wanted in ("bfloat16", "float32")] == ["bfloat16", "float32"]


def test_a_machine_that_says_nothing_of_its_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CPU_INFO", tmp_path / "nothing")
    assert choose_dtype("auto", "cpu") == "float32"


@pytest.mark.parametrize(
    ("prints", "dtype"),
    [("9.0", "bfloat16"), ("8.0\n8.0", "bfloat16"), ("7.5\n7.5", "float32"), ("8.6\n7.5", "float32"), ("[N/A]", "bfloat16")],
)
def test_a_gpu_before_ampere_is_used_in_float32(prints: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = --query-gpu=compute_cap ] && printf '{prints}\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert choose_dtype("auto", "cuda") == dtype


def test_a_gpu_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_dtype("auto", "cuda") == "bfloat16"


def test_a_run_keeps_the_dtype_it_began_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, tmp_path, "flags : avx512_bf16")
    config = RunConfig.of(output_dir=tmp_path, run_name="here", n_votes=32)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "environment.json").write_text('{"dtype": "float32"}')

    def found() -> tuple[str, int]:
        settings = engine_settings(config, "cpu", "a-model", 77, (), 11520)
        return settings.dtype, settings.kv_cache_mib

    assert found() == ("bfloat16", 103)  # an attempt that never began a question
    with Journal(folder) as journal:
        journal.begin("q", 0, 1)
    assert found() == ("float32", 205)
    (folder / "environment.json").write_text("{}")  # of a version that did not note it
    assert found() == ("bfloat16", 103)


@pytest.mark.parametrize(
    ("torch", "vision", "works"),
    [("2.13.0+cpu", "0.28.0", False), ("2.13.0+cpu", "0.28.0+cpu", True), ("2.13.0+cpu", None, True), ("2.13.0", "0.28.0", True)],
)
def test_a_torchvision_for_gpus_beside_a_torch_for_cpus_is_named(
    torch: str, vision: str | None, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "version", {"torch": torch, "torchvision": vision}.get)
    monkeypatch.setattr(environment, "installed", lambda name: True)
    with (
        contextlib.nullcontext()
        if works
        else pytest.raises(EngineError, match=r"torchvision 0\.28\.0 is no CPU build.*pip uninstall --yes")
    ):
        environment.check_packages()
