"""The prompt once: a group's responses packed behind one copy of their prompt, as one sequence.

``[prompt | response 0 | response 1 | ...]``: every response sees the prompt and itself (`sttrl.engine.attention`), positions
go on from the prompt's end, and logits are computed only where a token is scored. Padding, which nobody sees and nothing is
scored by, follows the prompt and the last response, where few different shapes are wanted. Pure tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Layout:
    """Who sees whom in ``N`` packed inputs.

    ``prompt_length``: inputs of the prompt and its padding, of which responses see the first ``seen``; ``own_GT``: the inputs of each
    response that has any, the last again where others are longer; ``mask_TK`` True where one of them may look at the prompt (its
    first columns) and at itself; ``place_R``: where in ``own_GT``, flattened, each input is, one response after the other;
    ``filling``: inputs behind them that nobody asked for; ``multiple``: what few shapes are multiples of.
    """

    prompt_length: int
    seen: int
    own_GT: torch.Tensor
    mask_TK: torch.Tensor
    place_R: torch.Tensor
    filling: int
    multiple: int

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        return replace(self, own_GT=self.own_GT.to(device), mask_TK=self.mask_TK.to(device), place_R=self.place_R.to(device))


@dataclass(frozen=True)
class Packed:
    """One packed micro-batch of ``N`` inputs that scores ``S`` tokens.

    ``input_N``, ``position_N``; ``layout``: who sees whom; ``logit_L`` the inputs whose logits are needed (padding: the first
    again); ``row_S`` index into ``logit_L`` and ``label_S`` token for each scored token; ``lengths_G`` tokens of each response;
    ``prompt_length`` tokens of the prompt.
    """

    input_N: torch.Tensor
    position_N: torch.Tensor
    layout: Layout
    logit_L: torch.Tensor
    row_S: torch.Tensor
    label_S: torch.Tensor
    lengths_G: tuple[int, ...]
    prompt_length: int


def pack(prompt_T: torch.Tensor, response_G: Sequence[torch.Tensor], multiple: int = 1) -> Packed:
    """Pack responses (each at least one token) behind their prompt (at least one token).

    A response's last token is scored but never an input. The prompt's last input scores every first token. Prompt, responses and
    logits are each padded to a ``multiple``.
    """
    prompt, inner = len(prompt_T), [r[:-1] for r in response_G]
    rows, behind = [], sum(len(r) for r in inner)
    start = 1
    for r in inner:
        rows.append(torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(start, start + len(r))]))
        start += len(r)
    layout = layout_of(prompt, [len(r) for r in inner], multiple)
    filling = (layout.prompt_length - prompt, layout.filling)
    logits = torch.cat([torch.tensor([prompt - 1]), layout.prompt_length + torch.arange(behind)])
    return Packed(
        input_N=torch.cat([prompt_T, prompt_T[:1].expand(filling[0]), *inner, prompt_T[:1].expand(filling[1])]),
        position_N=torch.cat(
            [
                torch.arange(layout.prompt_length),
                *(torch.arange(prompt, prompt + len(r)) for r in inner),
                torch.zeros(filling[1], dtype=torch.long),
            ]
        ),
        layout=layout,
        logit_L=torch.cat([logits, logits[:1].expand(up_to(len(logits), multiple) - len(logits))]),
        row_S=torch.cat(rows),
        label_S=torch.cat(list(response_G)),
        lengths_G=tuple(len(r) for r in response_G),
        prompt_length=prompt,
    )


def layout_of(prompt: int, inputs_G: Sequence[int], multiple: int) -> Layout:
    """The layout of responses of so many inputs each."""
    counts = torch.tensor([n for n in inputs_G if n], dtype=torch.long)
    longest, padded = int(counts.max()) if len(counts) else 0, up_to(prompt, multiple)
    starts, at_T = padded + counts.cumsum(0) - counts, torch.arange(longest)
    place = (at_T[None] < counts[:, None]).flatten().nonzero()[:, 0]
    return Layout(
        prompt_length=padded,
        seen=prompt,
        own_GT=starts[:, None] + torch.minimum(at_T[None], counts[:, None] - 1),
        mask_TK=torch.ones(longest, prompt + longest, dtype=torch.bool).tril(prompt),
        place_R=place,
        filling=up_to(len(place), multiple) - len(place),
        multiple=multiple,
    )


def up_to(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple
