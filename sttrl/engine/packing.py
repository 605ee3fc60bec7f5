"""The prompt once: a group's responses packed behind one copy of their prompt, as one sequence.

``[prompt | response 0 | response 1 | ...]``: every response sees the prompt and itself (`sttrl.engine.attention`), positions
go on from the prompt's end, and logits are computed only where a token is scored. Pure tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layout:
    """Who sees whom in ``N`` packed inputs.

    ``own_GT``: the inputs of each response that has any, padded by its last; ``mask_TK`` True where one of them may look at
    the prompt (its first columns) and at itself; ``place_R``: where in ``own_GT``, flattened, each response input is.
    """

    prompt_length: int
    own_GT: torch.Tensor
    mask_TK: torch.Tensor
    place_R: torch.Tensor

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        return Layout(self.prompt_length, self.own_GT.to(device), self.mask_TK.to(device), self.place_R.to(device))


@dataclass(frozen=True)
class Packed:
    """One packed micro-batch of ``N`` inputs that scores ``S`` tokens.

    ``input_N``, ``position_N``; ``layout``: who sees whom; ``logit_L`` the inputs whose logits are needed; ``row_S`` index
    into ``logit_L`` and ``label_S`` token for each scored token; ``lengths_G`` tokens of each response; ``prompt_length``
    tokens of the prompt.
    """

    input_N: torch.Tensor
    position_N: torch.Tensor
    layout: Layout
    logit_L: torch.Tensor
    row_S: torch.Tensor
    label_S: torch.Tensor
    lengths_G: tuple[int, ...]
    prompt_length: int


def pack(prompt_T: torch.Tensor, response_G: Sequence[torch.Tensor]) -> Packed:
    """Pack responses (each at least one token) behind their prompt (at least one token).

    A response's last token is scored but never an input. The prompt's last input scores every first token.
    """
    prompt = len(prompt_T)
    lengths = tuple(len(r) for r in response_G)
    inner = [r[:-1] for r in response_G]
    rows, start = [], 1
    for r in inner:
        rows.append(torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(start, start + len(r))]))
        start += len(r)
    inputs = torch.cat([prompt_T, *inner])
    return Packed(
        input_N=inputs,
        position_N=torch.cat([torch.arange(prompt), *(torch.arange(prompt, prompt + len(r)) for r in inner)]),
        layout=layout_of(prompt, [len(r) for r in inner]),
        logit_L=torch.arange(prompt - 1, len(inputs)),
        row_S=torch.cat(rows),
        label_S=torch.cat(list(response_G)),
        lengths_G=lengths,
        prompt_length=prompt,
    )


def layout_of(prompt: int, inputs_G: Sequence[int]) -> Layout:
    """The layout of responses of so many inputs each."""
    counts = torch.tensor([n for n in inputs_G if n], dtype=torch.long)
    longest = int(counts.max()) if len(counts) else 0
    starts, at_T = prompt + counts.cumsum(0) - counts, torch.arange(longest)
    return Layout(
        prompt_length=prompt,
        own_GT=starts[:, None] + torch.minimum(at_T[None], counts[:, None] - 1),
        mask_TK=torch.ones(longest, prompt + longest, dtype=torch.bool).tril(prompt),
        place_R=(at_T[None] < counts[:, None]).flatten().nonzero()[:, 0],
    )
