"""The packed layout, by hand."""

from __future__ import annotations

import torch

from sttrl.engine.packing import pack


def test_a_hand_example() -> None:
    packed = pack(torch.tensor([10, 11, 12]), [torch.tensor([20, 21, 22]), torch.tensor([30]), torch.tensor([40, 41])])
    assert packed.input_N.tolist() == [10, 11, 12, 20, 21, 40]
    assert packed.position_N.tolist() == [0, 1, 2, 3, 4, 3]
    assert packed.mask_NN.int().tolist() == [
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
    assert packed.mask_NN.tolist() == [[True, False], [True, True]]
    assert packed.logit_L[packed.row_S].tolist() == [0, 1]


def test_every_response_sees_what_it_would_see_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    prompt = torch.arange(5)
    responses = [torch.randint(100, (int(n),), generator=generator) for n in (4, 1, 7, 2, 2)]
    packed = pack(prompt, responses)
    start = 0
    for response, length in zip(responses, packed.lengths_G, strict=True):
        alone = torch.cat([prompt, response])
        for t in range(length):
            row = packed.logit_L[packed.row_S[start + t]]
            seen = packed.input_N[packed.mask_NN[row]]
            assert torch.equal(seen, alone[: len(prompt) + t])
            assert torch.equal(packed.position_N[packed.mask_NN[row]], torch.arange(len(seen)))
            assert packed.label_S[start + t] == response[t]
        start += length
