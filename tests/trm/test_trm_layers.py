"""The parts of the network beside the original's, and the gradients written by hand beside autograd's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from trm_golden import close, generator, part, read, tensors

from sttrl.trm.layers import gated, inner_size, normalised_sum, rotate, rotation, truncated_normal
from sttrl.trm.losses import softmax_cross_entropy, stablemax_cross_entropy

RECORDED = tensors("layers", "layers.safetensors")
FACTS = read("layers", "layers.json")


def test_rms_norm_has_no_weights() -> None:
    x = RECORDED["rms_norm.x"]
    close(normalised_sum(x, torch.zeros_like(x), -1, 1e-5), RECORDED["rms_norm.y"])


def test_rotary_positions_turn_half_against_half() -> None:
    rope = part(RECORDED, "rope.")
    by = rotation(len(rope["cos"]), rope["cos"].shape[1], 1e4)
    close(by.cosine[:, 0], rope["cos"])
    close(by.sine[:, 0].abs(), rope["sin"].abs())
    close(rotate(rope["q"], by), rope["q_out"])
    close(rotate(rope["k"], by), rope["k_out"])


def test_stablemax_cross_entropy_and_its_gradient() -> None:
    logits = RECORDED["stablemax.logits"].clone().requires_grad_()
    loss = stablemax_cross_entropy(logits, RECORDED["stablemax.labels"])
    assert loss.dtype is torch.float64
    torch.testing.assert_close(loss, RECORDED["stablemax.ce_f64"], rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    close(logits.grad, RECORDED["stablemax.grad_of_sum"], 1e-6)


def test_a_cell_that_is_ignored_has_no_loss_and_no_gradient() -> None:
    for loss in (stablemax_cross_entropy, softmax_cross_entropy):
        logits = torch.randn(2, 3, 5, generator=generator(1)).requires_grad_()
        found = loss(logits, torch.tensor([[0, -100, 4], [-100, -100, -100]]))
        found.sum().backward()
        assert torch.equal(found.detach() != 0, torch.tensor([[True, False, True], [False, False, False]]))
        assert torch.equal(logits.grad.abs().sum(-1) > 0, found.detach() != 0)


def test_the_slope_of_stablemax_at_zero_is_one() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    stablemax_cross_entropy(logits, torch.tensor([0])).backward(torch.ones(1))
    close(logits.grad, torch.tensor([[-0.75, 0.25, 0.25, 0.25]]))


def test_weights_start_from_the_truncated_normal_of_the_original() -> None:
    seed = FACTS["trunc_normal"]["seed"]
    close(truncated_normal((4, 8), 0.5, generator(seed)), RECORDED["trunc_normal.std0.5_shape4x8"])
    drawn = truncated_normal((200_000,), 1.0, generator(3))
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert float(drawn.min()) == pytest.approx(FACTS["trunc_normal"]["min"], abs=1e-3)
    assert float(drawn.max()) == pytest.approx(FACTS["trunc_normal"]["max"], abs=1e-3)


@pytest.mark.parametrize("size", FACTS["swiglu_inter"], ids=lambda size: str(size["hidden"]))
def test_the_width_of_a_gated_mlp_is_rounded_up(size: dict[str, float]) -> None:
    assert inner_size(int(size["hidden"]), size["expansion"]) == size["inter"]


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_written_by_hand_are_those_of_autograd(dim: int, dtype: torch.dtype) -> None:
    x, y = (torch.randn(6, 4, generator=generator(seed)).to(dtype).requires_grad_() for seed in (0, 1))
    plain = [value.detach().float().requires_grad_() for value in (x, y)]
    direction = torch.randn(6, 4, generator=generator(2))
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2

    found = normalised_sum(x, y, dim, 1e-5)
    total = plain[0] + plain[1]
    expected = total * torch.rsqrt(total.square().mean(dim, keepdim=True) + 1e-5)
    close(found, expected, tolerance)
    (found * direction.to(dtype)).sum().backward()
    (expected * direction).sum().backward()
    close(x.grad, plain[0].grad, tolerance)
    close(y.grad, plain[1].grad, tolerance)

    x.grad = plain[0].grad = None
    found = gated(x, dim)
    gate, up = plain[0].chunk(2, dim)
    expected = functional.silu(gate) * up
    close(found, expected, tolerance)
    found.float().square().sum().backward()
    expected.square().sum().backward()
    close(x.grad, plain[0].grad, 3 * tolerance)
