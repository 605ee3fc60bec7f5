"""The layers that replace vLLM's compute what those compute, and vLLM builds its models from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from live_engine import settings_for
from vllm.config import CompilationConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.platforms import current_platform

from sttrl.engine.cpu import kernels as cpu_kernels
from sttrl.engine.cpu.kernels import CpuPolicyWeights, FusedRMSNorm, SiluAndMulInPlace
from sttrl.engine.cpu.parts import VARIABLE, switched_off
from sttrl.engine.vllm.generation import engine_args
from sttrl.engine.vllm.sampler import environment
from sttrl.errors import UsageError

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="vLLM is not built for CPU here")
WIDTH = 576


@pytest.fixture(autouse=True)
def building() -> Iterator[None]:
    """What vLLM has set while it builds a model, eagerly."""
    current_platform.import_kernels()
    with set_current_vllm_config(VllmConfig(compilation_config=CompilationConfig(custom_ops=["all"]))):
        yield


def drawn(rows: int, dtype: torch.dtype, seed: int, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm(dtype: torch.dtype) -> Any:
    layer: Any = RMSNorm(WIDTH, eps=1e-5, dtype=dtype)
    layer.weight.data = drawn(1, dtype, 9)[0]
    return layer


@pytest.mark.parametrize("rows", [1, 7, 130])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2.0**-7)])
def test_the_norm_is_that_of_double_precision(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    layer, x, residual = norm(dtype), drawn(rows, dtype, 0), drawn(rows, dtype, 1)
    assert type(layer) is FusedRMSNorm

    def exact(x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * layer.weight.double()

    with torch.no_grad():
        torch.testing.assert_close(layer(x.clone()).double(), exact(x.double()), rtol=2 * tolerance, atol=tolerance)
        normed, total = layer(x.clone(), residual.clone())
    added = x.double() + residual.double()
    torch.testing.assert_close(total.double(), added.to(dtype).double(), rtol=0, atol=0)
    torch.testing.assert_close(normed.double(), exact(added), rtol=2 * tolerance, atol=tolerance)


def test_where_the_kernel_cuts_off_the_norm_is_vllms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("vLLM's kernel was called")

    monkeypatch.setattr(cpu_kernels, "rounds", lambda: False)
    monkeypatch.setattr(cpu_kernels, "OPS", SimpleNamespace(rms_norm=never, fused_add_rms_norm=never))
    layer, x, residual = norm(torch.bfloat16), drawn(7, torch.bfloat16, 0), drawn(7, torch.bfloat16, 1)
    with torch.no_grad():
        layer(x.clone())
        _, total = layer(x.clone(), residual.clone())
    torch.testing.assert_close(total, (x.double() + residual.double()).to(torch.bfloat16), rtol=0, atol=0)


def test_rows_with_gaps_are_left_to_vllm() -> None:
    layer, wide = norm(torch.float32), drawn(5, torch.float32, 3, 2 * WIDTH)
    x = wide[:, :WIDTH]
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer.forward_native(x.contiguous()), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(wide, drawn(5, torch.float32, 3, 2 * WIDTH), rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2.0**-7)])
def test_the_activation_is_that_of_double_precision(dtype: torch.dtype, tolerance: float) -> None:
    layer, x = SiluAndMul(), drawn(33, dtype, 4, 2 * WIDTH)
    assert type(layer) is SiluAndMulInPlace
    a, b = x.double().chunk(2, dim=-1)
    torch.testing.assert_close(layer(x).double(), torch.nn.functional.silu(a) * b, rtol=4 * tolerance, atol=tolerance)


def test_vllm_on_cpu_is_told_of_them() -> None:
    """The worker imports its extension before it builds the model."""
    settings: Any = SimpleNamespace(
        device="cpu", adapter=None, model_folder="here", dtype="bfloat16", max_model_len=64, max_num_seqs=8, trust_remote_code=False,
        kv_cache_mib=16,
    )  # fmt: skip
    assert engine_args(settings).worker_extension_cls == f"{CpuPolicyWeights.__module__}.{CpuPolicyWeights.__qualname__}"


def test_the_head_sizes_that_are_let_through_are_those_of_vllm_s_attention() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    from sttrl.engine.model_checks import CPU_HEAD_SIZES

    assert list(CPU_HEAD_SIZES) == CPUAttentionBackend.get_supported_head_sizes()


def test_each_part_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(Path("model"))
    monkeypatch.setenv(VARIABLE, "kernels, shared_prompts")
    without = engine_args(settings)
    assert without.worker_extension_cls == "sttrl.engine.merge.PolicyWeights" and without.kv_transfer_config is None
    assert environment(settings, 2)[VARIABLE] == "kernels,shared_prompts"
    monkeypatch.setenv(VARIABLE, "engine_thread")
    assert environment(settings, 2)["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1" and engine_args(settings).kv_transfer_config is not None
    monkeypatch.setenv(VARIABLE, "kernel")
    with pytest.raises(UsageError, match=r"STTRL_CPU_WITHOUT names 'kernel', which is no part. The parts are kernels, shared_prompts"):
        switched_off()
