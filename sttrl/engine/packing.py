"""The prompt once: a group's responses packed behind one copy of their prompt, as one sequence with a tree mask.

``[prompt | response 0 | response 1 | ...]``: every response sees the prompt and itself, positions go on from the
prompt's end, and logits are computed only where a token is scored. Pure tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packed:
    """One packed micro-batch of ``N`` inputs that scores ``S`` tokens.

    ``input_N``, ``position_N``; ``mask_NN`` True where a row may look at a column; ``logit_L`` the inputs whose logits
    are needed; ``row_S`` index into ``logit_L`` and ``label_S`` token for each scored token; ``lengths_G`` tokens of
    each response; ``prompt_length`` tokens of the prompt.
    """

    input_N: torch.Tensor
    position_N: torch.Tensor
    mask_NN: torch.Tensor
    logit_L: torch.Tensor
    row_S: torch.Tensor
    label_S: torch.Tensor
    lengths_G: tuple[int, ...]
    prompt_length: int


def pack(prompt_T: torch.Tensor, response_G: Sequence[torch.Tensor]) -> Packed:
    """Pack responses (each at least one token) behind their prompt (at least one token).

    A response's last token is scored but never an input. The prompt's last input scores every first token.
    """
    device, prompt = prompt_T.device, len(prompt_T)
    lengths = tuple(len(r) for r in response_G)
    inner = [r[:-1] for r in response_G]
    segment = torch.cat([torch.zeros(prompt, dtype=torch.long), *(torch.full((len(r),), i + 1) for i, r in enumerate(inner))]).to(device)
    position = torch.cat([torch.arange(prompt), *(torch.arange(prompt, prompt + len(r)) for r in inner)]).to(device)
    order = torch.arange(len(segment), device=device)
    causal = order[:, None] >= order[None, :]
    mask = causal & ((segment[:, None] == segment[None, :]) | (segment[None, :] == 0))
    rows, start = [], 1
    for r in inner:
        rows.append(torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(start, start + len(r))]))
        start += len(r)
    return Packed(
        input_N=torch.cat([prompt_T, *inner]),
        position_N=position,
        mask_NN=mask,
        logit_L=torch.arange(prompt - 1, len(segment), device=device),
        row_S=torch.cat(rows).to(device),
        label_S=torch.cat(list(response_G)),
        lengths_G=lengths,
        prompt_length=prompt,
    )
