"""What only CPUs need, and how it is switched off."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_engine import settings_for
from vllm.platforms import current_platform

from sttrl.engine.cpu.parts import VARIABLE, switched_off
from sttrl.engine.vllm.generation import engine_args
from sttrl.engine.vllm.sampler import environment
from sttrl.errors import UsageError

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="vLLM is not built for CPU here")


def test_the_head_sizes_that_are_let_through_are_those_of_vllm_s_attention() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    from sttrl.engine.model_checks import CPU_HEAD_SIZES

    assert list(CPU_HEAD_SIZES) == CPUAttentionBackend.get_supported_head_sizes()


def test_each_part_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(Path("model"))
    monkeypatch.setenv(VARIABLE, "shared_prompts")
    assert engine_args(settings).kv_transfer_config is None
    assert environment(settings, 2)[VARIABLE] == "shared_prompts"
    monkeypatch.setenv(VARIABLE, "engine_thread")
    assert environment(settings, 2)["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1" and engine_args(settings).kv_transfer_config is not None
    monkeypatch.setenv(VARIABLE, "shared_prompt")
    with pytest.raises(UsageError, match=r"STTRL_CPU_WITHOUT names 'shared_prompt', which is no part. The parts are shared_prompts"):
        switched_off()
