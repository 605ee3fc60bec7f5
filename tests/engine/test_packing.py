"""The packed layout, by hand, and attention over it against a dense tree mask."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import rms_norm, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from sttrl.engine.verl import attention
from sttrl.engine.verl.attention import LAYOUT, attend
from sttrl.engine.verl.packing import Packed, distinct_inputs, pack, tree_of


def mask_of(packed: Packed) -> torch.Tensor:
    """The layout as a dense mask ``[N, N]``; padding sees something, and nobody sees it."""
    layout, n = packed.layout, len(packed.input_N)
    if layout is None:
        return torch.ones(n, n, dtype=torch.bool).tril()
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[: layout.prompt_length, : layout.prompt_length] = torch.ones(layout.prompt_length, layout.prompt_length).tril().bool()
    longest = layout.own_GT.shape[1]
    for place in layout.place_R.tolist():
        row, t = divmod(place, longest)
        columns = torch.cat([torch.arange(layout.seen), layout.own_GT[row]])
        mask[layout.own_GT[row, t], columns[layout.mask_TK[t]]] = True
    return mask


def responses(lengths: tuple[int, ...], vocabulary: int) -> list[torch.Tensor]:
    """Random ones; of a small vocabulary many begin alike, and some are equal."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(vocabulary, (n,), generator=generator) for n in lengths]


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


def test_a_hand_example_of_responses_that_begin_alike() -> None:
    packed = pack(torch.tensor([10, 11]), [torch.tensor(r) for r in ([20, 21, 22], [30, 31], [20, 21, 22], [20, 24, 25, 26], [20, 27])])
    assert packed.input_N.tolist() == [10, 11, 20, 21, 30, 24, 25], "as they first come, each beginning once"
    assert packed.position_N.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert mask_of(packed).int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 0],
        [1, 1, 1, 0, 0, 1, 1],
    ]
    assert packed.layout.own_GT.tolist() == [[2, 3, 3], [4, 4, 4], [2, 5, 6]], "nothing is looked up for [20] alone, nor twice for equals"
    assert (packed.layout.again_A.tolist(), packed.layout.shared_A.tolist()) == ([6], [0])
    assert packed.label_S.tolist() == [20, 21, 22, 30, 31, 20, 21, 22, 20, 24, 25, 26, 20, 27]
    scored_by = packed.input_N[packed.logit_L[packed.row_S]].tolist()
    assert scored_by == [11, 20, 21, 11, 30, 11, 20, 21, 11, 20, 24, 25, 11, 20]
    assert packed.lengths_G == (3, 2, 3, 4, 2)


def test_equal_responses_cost_one() -> None:
    one, many = (pack(torch.arange(5), [torch.arange(9)] * count, 4) for count in (1, 32))
    assert torch.equal(one.input_N, many.input_N) and one.layout is many.layout is None
    assert len(many.row_S) == 32 * len(one.row_S) and len(one.logit_L) == len(many.logit_L)
    assert distinct_inputs([torch.arange(9)] * 32) == 8


@pytest.mark.parametrize("group", [[7], [7, 4], [1, 1]], ids=str)
def test_rows_that_begin_each_other_are_one_causal_sequence(group: list[int]) -> None:
    packed = pack(torch.arange(5), [torch.arange(20, 20 + n) for n in group], 4)
    assert packed.layout is None and len(packed.input_N) == -(-(5 + max(group) - 1) // 4) * 4
    assert packed.input_N[: 4 + max(group)].tolist() == [*range(5), *range(20, 19 + max(group))]
    assert packed.position_N.tolist() == list(range(len(packed.input_N)))
    assert packed.input_N[packed.logit_L[packed.row_S]].tolist() == [token for n in group for token in (4, *range(20, 19 + n))]


@pytest.mark.parametrize("vocabulary", [2, 3, 1000])
def test_the_tree_has_every_beginning_once(vocabulary: int) -> None:
    inputs_G = responses((4, 0, 7, 2, 2, 7, 12, 1, 5), vocabulary)
    tree = tree_of(inputs_G)
    beginnings = list(dict.fromkeys(tuple(inputs[:n].tolist()) for inputs in inputs_G for n in range(1, len(inputs) + 1)))
    assert [(int(t), int(n)) for t, n in zip(tree.token_R, tree.before_R, strict=True)] == [(b[-1], len(b) - 1) for b in beginnings]
    for inputs, path in zip(inputs_G, tree.path_G, strict=True):
        assert path.tolist() == [beginnings.index(tuple(inputs[:n].tolist())) for n in range(1, len(inputs) + 1)]


def test_a_prompt_of_one_token_and_one_response() -> None:
    packed = pack(torch.tensor([7]), [torch.tensor([8, 9])])
    assert packed.input_N.tolist() == [7, 8]
    assert mask_of(packed).tolist() == [[True, False], [True, True]]
    assert packed.logit_L[packed.row_S].tolist() == [0, 1]


@pytest.mark.parametrize("vocabulary", [2, 1000])
@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_every_response_sees_what_it_would_see_alone(multiple: int, vocabulary: int) -> None:
    prompt, group = torch.arange(5), responses((4, 1, 7, 2, 2, 7, 9), vocabulary)
    packed = pack(prompt, group, multiple)
    mask, start = mask_of(packed), 0
    for response, length in zip(group, packed.lengths_G, strict=True):
        alone = torch.cat([prompt, response])
        for t in range(length):
            row = packed.logit_L[packed.row_S[start + t]]
            order = packed.position_N[mask[row]].argsort()
            seen = packed.input_N[mask[row]][order]
            assert torch.equal(seen, alone[: len(prompt) + t])
            assert torch.equal(packed.position_N[mask[row]][order], torch.arange(len(seen)))
            assert packed.label_S[start + t] == response[t]
        start += length


@pytest.mark.parametrize("lengths", [(4, 1, 7, 2), (3, 3), (32, 2)], ids=str)
def test_every_size_of_a_padded_sequence_is_a_multiple(lengths: tuple[int, ...]) -> None:
    packed = pack(torch.arange(5), responses(lengths, 1000), 8)
    layout = packed.layout
    sizes = (len(packed.input_N), len(packed.position_N), len(packed.logit_L), layout.prompt_length)
    assert not any(size % 8 for size in sizes) and layout.mask_TK.shape == (layout.own_GT.shape[1], 5 + layout.own_GT.shape[1])
    assert packed.prompt_length == 5 and packed.lengths_G == lengths and layout.prompt_length == 8
    assert len(packed.input_N) == 8 + len(layout.place_R) + layout.filling
    assert int(packed.row_S.max()) < 1 + sum(n - 1 for n in lengths), "no token is scored by padding"


@pytest.mark.parametrize("lengths", [(4, 1, 7, 2), (5, 5, 5, 4, 2)], ids=str)
@pytest.mark.parametrize("vocabulary", [2, 1000])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("short", [0, 256], ids=["torch's kernel", "products"])
def test_attention_and_its_gradients_are_those_of_a_dense_mask(
    lengths: tuple[int, ...], vocabulary: int, key_heads: int, multiple: int, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SHORT", short)
    monkeypatch.setattr(attention, "_by_kernel" if short else "ByProducts", None)
    packed = pack(torch.arange(6), responses(lengths, vocabulary), multiple)
    assert (len(packed.layout.again_A) > 0) == (vocabulary == 2 and len(lengths) == 5)
    real = torch.cat([torch.arange(6), packed.logit_L])
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
    torch.testing.assert_close(found[:, real], dense[:, real], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(gradients, [query.grad, key.grad, value.grad], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("vocabulary", [2, 50])
@pytest.mark.parametrize("short", [0, 256], ids=["torch's kernel", "products"])
def test_a_models_gradients_in_float64_are_the_plain_ones_to_1e_8(vocabulary: int, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SHORT", short)
    # transformers' own rounds to float32, which alone is 1e-7
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda self, x: rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon))
    settings = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        initializer_range=0.2, attn_implementation=attention.NAME,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(settings).double()
    prompt, group = torch.arange(20), responses((9, 4, 9, 1, 12, 6, 9), vocabulary)
    packed = pack(prompt, group, 8)
    weight = torch.randn(len(packed.label_S), dtype=torch.float64)
    logits = model(
        input_ids=packed.input_N[None], position_ids=packed.position_N[None], attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
        logits_to_keep=packed.logit_L, use_cache=False, **{LAYOUT: packed.layout},
    ).logits[0]  # fmt: skip
    (logits.log_softmax(-1)[packed.row_S, packed.label_S] * weight).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for response, part in zip(group, weight.split(packed.lengths_G), strict=True):
        plain = model(input_ids=torch.cat([prompt, response])[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        (plain.log_softmax(-1)[torch.arange(len(response)), response] * part).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 1e-3
        assert (found[name] - parameter.grad).norm() <= 1e-8 * parameter.grad.norm(), name
    assert len(found) == len(list(model.parameters()))


def test_in_bfloat16_products_are_as_near_to_the_truth_as_torchs_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, generator = pack(torch.arange(40), responses((20,) * 4, 1000), 32), torch.Generator().manual_seed(0)
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
    packed = pack(torch.arange(6), [torch.arange(3), torch.arange(3) + 9])
    query = torch.zeros(1, 2, len(packed.input_N), 8)
    with pytest.raises(ValueError, match="cannot be packed"):
        attend(torch.nn.Module(), query, query, query, None, **{LAYOUT: packed.layout}, **asked)  # type: ignore[arg-type]
