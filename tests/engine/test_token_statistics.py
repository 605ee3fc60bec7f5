"""Log-probs without a float32 copy of the logits: values and gradients are those of torch's log-softmax."""

from __future__ import annotations

import pytest
import torch

from sttrl.objectives import token_statistics
from sttrl.objectives.token_statistics import LogProb

ROW_S = torch.tensor([0, 0, 1, 4, 0, 3])
TOKEN_S = torch.tensor([2, 5, 0, 6, 2, 3])


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_and_gradients_are_those_of_log_softmax(rows_at_once: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_statistics, "_rows_at_once", lambda logit_LV: rows_at_once)
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(5, 7, generator=generator)
    weight_S = torch.randn(len(ROW_S), generator=generator)
    found, expected = (logits.clone().requires_grad_() for _ in range(2))
    mine = LogProb.apply(found, temperature, ROW_S, TOKEN_S)
    theirs = (expected / temperature).log_softmax(dim=-1)[ROW_S, TOKEN_S]
    torch.testing.assert_close(mine, theirs)
    (mine * weight_S).sum().backward()
    (theirs * weight_S).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad)
    assert found.grad is not None and torch.equal(found.grad[2], torch.zeros(7)), "a row that scores nothing learns nothing"


def test_half_precision_is_rounded_once() -> None:
    logits = (4 * torch.randn(5, 7, generator=torch.Generator().manual_seed(1))).bfloat16()
    found, expected = logits.clone().requires_grad_(), logits.float().requires_grad_()
    LogProb.apply(found, 1.0, ROW_S, TOKEN_S).sum().backward()
    expected.log_softmax(dim=-1)[ROW_S, TOKEN_S].sum().backward()
    assert found.grad is not None and expected.grad is not None and found.grad.dtype == torch.bfloat16
    assert torch.equal(found.grad, expected.grad.bfloat16())
