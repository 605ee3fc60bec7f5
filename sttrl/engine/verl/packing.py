"""Packs the rows of a group behind one copy of their prefix into one sequence, in which shared beginnings appear once.

The sequence is ``[prefix | row 0 | the part of row 1 that row 0 does not have | ...]``: a tree of the rows' tokens. Each token attends to
the prefix, to the tokens before it in its own row, and to itself (`sttrl.engine.verl.attention`). Its position is the one it has in its own
row. Equal rows are computed once. Logits are computed only where they score a token of a row. Padding after the prefix and at the end keeps
the number of different shapes small; no token attends to it. This file computes with indices only, and knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch.nn.functional import pad


@dataclass(frozen=True)
class Layout:
    """Which inputs attend to which. ``R`` inputs follow the prefix.

    - ``prompt_length``: length of the prefix with its padding; the first ``seen`` of these inputs are real.
    - ``own_GT``: indices of each row's inputs. Rows without inputs, and rows that begin a longer row, are left out. Shorter rows are filled
      up with their last index.
    - ``mask_TK``: True where a row's input may attend: first the columns of the real prefix, then those of the row itself.
    - ``place_R``: the first position of each input in ``own_GT``, flattened.
    - ``again_A``, ``shared_A``: further positions in ``own_GT``, flattened, of inputs that several rows share, and which input each is.
    - ``filling``: padding appended at the end, up to a multiple of ``multiple``.
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
    """One packed micro-batch of ``N`` inputs, which scores ``S`` tokens.

    ``input_N``, ``position_N``: token and position of each input. ``layout``: which inputs attend to which; None: each
    input attends to all inputs before it. ``logit_L``: indices of the
    inputs whose logits are needed, padded with the first of them. For each scored token ``row_S`` is the index into ``logit_L`` of the
    logits that score it, and ``label_S`` the token itself. ``lengths_G``: tokens of each row. ``prompt_length``: tokens of the prefix.
    """

    input_N: torch.Tensor
    position_N: torch.Tensor
    layout: Layout | None
    logit_L: torch.Tensor
    row_S: torch.Tensor
    label_S: torch.Tensor
    lengths_G: tuple[int, ...]
    prompt_length: int


@dataclass(frozen=True)
class Tree:
    """The rows of a micro-batch as a tree with ``R`` nodes, numbered in the order in which the rows first reach them.

    ``token_R``: the token of each node. ``before_R``: how many tokens of its row come before it. ``path_G``: the nodes of each row.
    """

    token_R: torch.Tensor
    before_R: torch.Tensor
    path_G: list[torch.Tensor]

    @property
    def is_chain(self) -> bool:
        """Whether one row has all nodes: there is one row, or the others begin it."""
        return len(self.token_R) == max(map(len, self.path_G))


def tree_of(inputs_G: Sequence[torch.Tensor]) -> Tree:
    """The tree of these rows. They are sorted, so that each row shares its longest prefix with the one before it."""
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
    """The first position of each of ``0 .. count - 1`` in ``value_F``, which contains them all."""
    return torch.zeros(count, dtype=torch.long).scatter_reduce(0, value_F, torch.arange(len(value_F)), "amin", include_self=False)


def distinct_inputs(response_G: Sequence[torch.Tensor]) -> int:
    """How many inputs follow the prefix when these rows are packed. A row's last token is scored and never an input."""
    return len(tree_of([r[:-1] for r in response_G]).token_R)


def pack(prompt_T: torch.Tensor, response_G: Sequence[torch.Tensor], multiple: int = 1) -> Packed:
    """Pack rows of at least one token behind their prefix of at least one token.

    A row's last token is scored but is never an input. The last input of the prefix scores the first token of every row. Prefix, rows and
    logits are each padded to a multiple of ``multiple``; a single causal sequence is padded at its end only.
    """
    prompt, tree = len(prompt_T), tree_of([r[:-1] for r in response_G])
    layout = None if tree.is_chain else layout_of(prompt, tree, multiple)
    if layout is None:  # rows that begin each other are one causal sequence
        count = prompt + len(tree.token_R)
        filling, padding = (0, up_to(count, multiple) - count), torch.arange(count, up_to(count, multiple))
    else:
        filling, padding = (layout.prompt_length - prompt, layout.filling), torch.zeros(layout.filling, dtype=torch.long)
    logits = torch.cat([torch.tensor([prompt - 1]), prompt + filling[0] + torch.arange(len(tree.token_R))])
    return Packed(
        input_N=torch.cat([prompt_T, prompt_T[:1].expand(filling[0]), tree.token_R, prompt_T[:1].expand(filling[1])]),
        position_N=torch.cat([torch.arange(prompt + filling[0]), prompt + tree.before_R, padding]),
        layout=layout,
        logit_L=torch.cat([logits, logits[:1].expand(up_to(len(logits), multiple) - len(logits))]),
        row_S=torch.cat([pad(1 + path, (1, 0)) for path in tree.path_G]),
        label_S=torch.cat(list(response_G)),
        lengths_G=tuple(len(r) for r in response_G),
        prompt_length=prompt,
    )


def layout_of(prompt: int, tree: Tree, multiple: int) -> Layout:
    """The layout of a tree behind a prefix of ``prompt`` tokens."""
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
    """``count`` rounded up to a multiple of ``multiple``."""
    return -(-count // multiple) * multiple
