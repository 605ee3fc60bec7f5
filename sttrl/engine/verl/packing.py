"""What responses share once: a group packed behind one copy of its prompt, as one sequence, in which no beginning comes twice.

``[prompt | response 0 | what response 1 does not share | ...]``: an input is a distinct beginning of a response. It sees the prompt,
the beginnings of itself and itself (`sttrl.engine.verl.attention`), its position is its length behind the prompt, and logits are
computed only where a token is scored. So equal responses cost one, as those of a policy that has come to agree do. Padding, which
nobody sees and nothing is scored by, follows the prompt and the last response, where few different shapes are wanted. Pure tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Layout:
    """Who sees whom in ``N`` packed inputs, ``R`` of them behind the prompt.

    ``prompt_length``: inputs of the prompt and its padding, of which responses see the first ``seen``; ``own_GT``: the inputs of each
    response that has any and is not the beginning of another, the last again where others are longer; ``mask_TK`` True where one
    of them may look at the prompt (its first columns) and at itself; ``place_R``: where in ``own_GT``, flattened, each input is
    first; ``again_A``: where an input is that came before, and ``shared_A`` which of the ``R`` it is; ``filling``: inputs behind
    them that nobody asked for; ``multiple``: what few shapes are multiples of.
    """

    prompt_length: int
    seen: int
    own_GT: torch.Tensor
    mask_TK: torch.Tensor
    place_R: torch.Tensor
    again_A: torch.Tensor
    shared_A: torch.Tensor
    filling: int
    multiple: int

    def to(self, device: torch.device) -> Layout:
        """The same on a device."""
        tensors = {f.name: x.to(device) for f in fields(self) if isinstance(x := getattr(self, f.name), torch.Tensor)}
        return replace(self, **tensors)


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


@dataclass(frozen=True)
class Tree:
    """The ``R`` distinct beginnings of responses, numbered as they first come.

    ``token_R`` the last token and ``before_R`` how many come before it; ``path_G``: each response's beginnings, the shortest first.
    """

    token_R: torch.Tensor
    before_R: torch.Tensor
    path_G: list[torch.Tensor]


def tree_of(inputs_G: Sequence[torch.Tensor]) -> Tree:
    """The tree of responses of so many inputs each. In the order of a dictionary a response shares most with its neighbour."""
    lists = [inputs.tolist() for inputs in inputs_G]
    path_G = [torch.empty(0, dtype=torch.long)] * len(lists)
    last, count = -1, 0
    for g in sorted(range(len(lists)), key=lists.__getitem__):
        length = min(len(inputs_G[g]), len(inputs_G[last]))
        shared = int((inputs_G[g][:length] == inputs_G[last][:length]).cumprod(0).sum()) if last >= 0 else 0
        path_G[g] = torch.cat([path_G[last][:shared], torch.arange(count, count + len(lists[g]) - shared)])
        last, count = g, count + len(lists[g]) - shared
    path_F = torch.cat(path_G)
    first_R = _first(path_F, count)
    number_R, came_R = first_R.argsort().argsort(), first_R.sort().values
    before_F = torch.cat([torch.arange(len(inputs)) for inputs in lists])
    return Tree(
        token_R=torch.cat(list(inputs_G))[came_R],
        before_R=before_F[came_R],
        path_G=list(number_R[path_F].split([len(inputs) for inputs in lists])),
    )


def _first(value_F: torch.Tensor, count: int) -> torch.Tensor:
    """Where each of ``0 .. count - 1`` is first in ``value_F``, which has them all."""
    return torch.zeros(count, dtype=torch.long).scatter_reduce(0, value_F, torch.arange(len(value_F)), "amin", include_self=False)


def distinct_inputs(response_G: Sequence[torch.Tensor]) -> int:
    """Inputs behind the prompt of a micro-batch of these responses; a last token is none."""
    return len(tree_of([r[:-1] for r in response_G]).token_R)


def pack(prompt_T: torch.Tensor, response_G: Sequence[torch.Tensor], multiple: int = 1) -> Packed:
    """Pack responses (each at least one token) behind their prompt (at least one token).

    A response's last token is scored but never an input. The prompt's last input scores every first token. Prompt, responses and
    logits are each padded to a ``multiple``.
    """
    prompt, tree = len(prompt_T), tree_of([r[:-1] for r in response_G])
    layout = layout_of(prompt, tree, multiple)
    filling = (layout.prompt_length - prompt, layout.filling)
    logits = torch.cat([torch.tensor([prompt - 1]), layout.prompt_length + torch.arange(len(tree.token_R))])
    return Packed(
        input_N=torch.cat([prompt_T, prompt_T[:1].expand(filling[0]), tree.token_R, prompt_T[:1].expand(filling[1])]),
        position_N=torch.cat([torch.arange(layout.prompt_length), prompt + tree.before_R, torch.zeros(filling[1], dtype=torch.long)]),
        layout=layout,
        logit_L=torch.cat([logits, logits[:1].expand(up_to(len(logits), multiple) - len(logits))]),
        row_S=torch.cat([pad(1 + path, (1, 0)) for path in tree.path_G]),
        label_S=torch.cat(list(response_G)),
        lengths_G=tuple(len(r) for r in response_G),
        prompt_length=prompt,
    )


def layout_of(prompt: int, tree: Tree, multiple: int) -> Layout:
    """The layout of a tree behind a prompt."""
    count, padded = len(tree.token_R), up_to(prompt, multiple)
    goes_on_R = torch.zeros(count, dtype=torch.bool)
    for path in tree.path_G:
        goes_on_R[path[:-1]] = True
    leaves = list({int(path[-1]): path for path in tree.path_G if len(path) and not goes_on_R[path[-1]]}.values())
    longest = max(map(len, leaves), default=0)
    own_GT = torch.zeros(len(leaves), longest, dtype=torch.long)
    for row, path in enumerate(leaves):
        own_GT[row, : len(path)], own_GT[row, len(path) :] = path, path[-1]
    counts_G = torch.tensor([len(path) for path in leaves], dtype=torch.long)
    real = (torch.arange(longest) < counts_G[:, None]).flatten().nonzero()[:, 0]
    node = own_GT.flatten()[real]
    first_R = _first(node, count)
    again = (real[first_R][node] != real).nonzero()[:, 0]
    return Layout(
        prompt_length=padded,
        seen=prompt,
        own_GT=padded + own_GT,
        mask_TK=torch.ones(longest, prompt + longest, dtype=torch.bool).tril(prompt),
        place_R=real[first_R],
        again_A=real[again],
        shared_A=node[again],
        filling=up_to(count, multiple) - count,
        multiple=multiple,
    )


def up_to(count: int, multiple: int) -> int:
    """The next multiple."""
    return -(-count // multiple) * multiple
