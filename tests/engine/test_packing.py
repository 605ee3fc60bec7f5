"""The packed layout, by hand, and attention over it against a dense tree mask."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv

from sttrl.engine import attention
from sttrl.engine.attention import LAYOUT, attend
from sttrl.engine.packing import Packed, pack


def mask_of(packed: Packed) -> torch.Tensor:
    """The layout as a dense mask ``[N, N]``; padding sees something, and nobody sees it."""
    layout, n = packed.layout, len(packed.input_N)
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[: layout.prompt_length, : layout.prompt_length] = torch.ones(layout.prompt_length, layout.prompt_length).tril().bool()
    longest = layout.own_GT.shape[1]
    for place in layout.place_R.tolist():
        row, t = divmod(place, longest)
        columns = torch.cat([torch.arange(layout.seen), layout.own_GT[row]])
        mask[layout.own_GT[row, t], columns[layout.mask_TK[t]]] = True
    return mask


def test_a_hand_example() -> None:
    packed = pack(torch.tensor([10, 11, 12]), [torch.tensor([20, 21, 22]), torch.tensor([30]), torch.tensor([40, 41])])
    assert packed.input_N.tolist() == [10, 11, 12, 20, 21, 40]
    assert packed.position_N.tolist() == [0, 1, 2, 3, 4, 3]
    assert mask_of(packed).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert packed.logit_L.tolist() == [2, 3, 4, 5]
    assert packed.label_S.tolist() == [20, 21, 22, 30, 40, 41]
    scored_by = packed.input_N[packed.logit_L[packed.row_S]].tolist()
    assert scored_by == [12, 20, 21, 12, 12, 40], "each token is scored by the one before it in its own response"
    assert packed.lengths_G == (3, 1, 2)


def test_a_prompt_of_one_token_and_one_response() -> None:
    packed = pack(torch.tensor([7]), [torch.tensor([8, 9])])
    assert packed.input_N.tolist() == [7, 8]
    assert mask_of(packed).tolist() == [[True, False], [True, True]]
    assert packed.logit_L[packed.row_S].tolist() == [0, 1]


@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_every_response_sees_what_it_would_see_alone(multiple: int) -> None:
    generator = torch.Generator().manual_seed(0)
    prompt = torch.arange(5)
    responses = [torch.randint(100, (int(n),), generator=generator) for n in (4, 1, 7, 2, 2)]
    packed = pack(prompt, responses, multiple)
    mask, start = mask_of(packed), 0
    for response, length in zip(responses, packed.lengths_G, strict=True):
        alone = torch.cat([prompt, response])
        for t in range(length):
            row = packed.logit_L[packed.row_S[start + t]]
            seen = packed.input_N[mask[row]]
            assert torch.equal(seen, alone[: len(prompt) + t])
            assert torch.equal(packed.position_N[mask[row]], torch.arange(len(seen)))
            assert packed.label_S[start + t] == response[t]
        start += length


@pytest.mark.parametrize("lengths", [(4, 1, 7, 2), (1, 1), (32, 2)], ids=str)
def test_every_size_of_a_padded_sequence_is_a_multiple(lengths: tuple[int, ...]) -> None:
    packed = pack(torch.arange(5), [torch.arange(n) for n in lengths], 8)
    layout = packed.layout
    sizes = (len(packed.input_N), len(packed.position_N), len(packed.logit_L), layout.prompt_length)
    assert not any(size % 8 for size in sizes) and layout.mask_TK.shape == (layout.own_GT.shape[1], 5 + layout.own_GT.shape[1])
    assert packed.prompt_length == 5 and packed.lengths_G == lengths and layout.prompt_length == 8
    assert len(packed.input_N) == 8 + len(layout.place_R) + layout.filling
    assert int(packed.row_S.max()) < 1 + sum(n - 1 for n in lengths), "no token is scored by padding"


@pytest.mark.parametrize("lengths", [(4, 1, 7, 2), (1, 1), (3,), (5, 5, 5)], ids=str)
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("short", [0, 256], ids=["torch's kernel", "products"])
def test_attention_and_its_gradients_are_those_of_a_dense_mask(
    lengths: tuple[int, ...], key_heads: int, multiple: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SHORT", short)
    monkeypatch.setattr(attention, "_by_kernel" if short else "ByProducts", None)
    packed = pack(torch.arange(6), [torch.arange(n) for n in lengths], multiple)
    real = torch.cat([torch.arange(6), packed.logit_L[: 1 + sum(n - 1 for n in lengths)]]).unique()
    n, generator = len(packed.input_N), torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, heads, n, 8, generator=generator, dtype=torch.float64, requires_grad=True) for heads in (4, key_heads, key_heads)
    )
    weight = torch.randn(1, n, 4, 8, generator=generator, dtype=torch.float64)
    found, _ = attend(torch.nn.Module(), query, key, value, None, scaling=0.3, **{LAYOUT: packed.layout})
    (found * weight)[:, real].sum().backward()
    gradients = [x.grad.clone() for x in (query, key, value) if x.grad is not None]
    unreal = [i for i in range(n) if i not in real.tolist() and i >= 6]
    assert not any(g[:, :, unreal].any() for g in gradients), "an input that only fills up gets a gradient"
    for x in (query, key, value):
        x.grad = None
    dense = scaled_dot_product_attention(
        query, repeat_kv(key, 4 // key_heads), repeat_kv(value, 4 // key_heads), attn_mask=mask_of(packed), scale=0.3
    ).transpose(1, 2)
    (dense * weight)[:, real].sum().backward()
    torch.testing.assert_close(found[:, real], dense[:, real])
    torch.testing.assert_close(gradients, [query.grad, key.grad, value.grad])


def test_in_bfloat16_products_are_as_near_to_the_truth_as_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, generator = pack(torch.arange(40), [torch.arange(20)] * 4, 32), torch.Generator().manual_seed(0)
    exact = [torch.randn(1, heads, len(packed.input_N), 16, generator=generator, dtype=torch.float64) for heads in (6, 2, 2)]

    def found(dtype: torch.dtype, short: int) -> list[torch.Tensor]:
        monkeypatch.setattr(attention, "SHORT", short)
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in exact]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            out, _ = attend(torch.nn.Module(), inputs[0], inputs[1], inputs[2], None, **{LAYOUT: packed.layout})  # type: ignore[arg-type]
        out[:, : 64 + len(packed.layout.place_R)].float().square().sum().backward()
        return [out.detach().double(), *(x.grad.double() for x in inputs if x.grad is not None)]

    truth = found(torch.float64, 256)
    errors = [[float((a - b).abs().max()) for a, b in zip(found(torch.bfloat16, s), truth, strict=True)] for s in (256, 0)]
    assert all(ours <= 1.5 * torchs < 1 for ours, torchs in zip(*errors, strict=True)), errors


@pytest.mark.parametrize("asked", [{"sliding_window": 4}, {"softcap": 30.0}, {"dropout": 0.1}], ids=str)
def test_an_attention_that_cannot_be_packed_is_refused(asked: dict[str, float]) -> None:
    packed = pack(torch.arange(6), [torch.arange(3)])
    query = torch.zeros(1, 2, len(packed.input_N), 8)
    with pytest.raises(ValueError, match="cannot be packed"):
        attend(torch.nn.Module(), query, query, query, None, **{LAYOUT: packed.layout}, **asked)  # type: ignore[arg-type]
