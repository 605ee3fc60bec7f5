"""From training groups to the tensors that verl's engine computes on: the rows of a rank, the groups of a mini-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from sttrl.engine.verl.training_engine import SHARED_PROMPT
from sttrl.objectives.forking import forks_of
from sttrl.types import Forking, TrainGroup

LONGEST_ROW = "longest_row"
COLUMNS = {
    "sampler_logprob_T": "rollout_log_probs",
    "advantage_T": "advantages",
    "value_T": "values",
    "return_T": "returns",
    "base_logprob_T": "ref_log_prob",
}
"""verl's name of each field that a row may have."""


@dataclass(frozen=True)
class Total:
    """What one optimiser step averages over, on all ranks: rows, the sum of their tokens' weights, and how many tokens are forking."""

    rows: int
    weight: float
    forks: float = 0.0


def total_of(groups: Sequence[TrainGroup]) -> Total:
    """What a step on these groups averages over."""
    return Total(sum(len(g.row_G) for g in groups), sum(weight for g in groups for row in g.row_G for weight in row.weight_T))


def pick(group: TrainGroup, indices: Sequence[int]) -> TrainGroup:
    """Some rows of a group."""
    return replace(group, row_G=tuple(group.row_G[i] for i in indices))


def rows_of_rank(group: TrainGroup, rank: int, ranks: int) -> tuple[TrainGroup, int]:
    """Every n-th row of a group, and how many of the last ones are padding.

    verl wants as many rows on every rank: where the group does not divide evenly, some ranks repeat its first row as padding.
    """
    count = len(group.row_G)
    mine = list(range(rank, count, ranks))
    padding = -(-count // ranks) - len(mine)
    return pick(group, mine + [0] * padding), padding


def longest_row(group: TrainGroup) -> int:
    """Tokens of the longest row, with the last token of the prefix."""
    return 1 + max(len(row.token_T) for row in group.row_G)


def mini_batches(groups: Sequence[TrainGroup], count: int) -> list[Sequence[TrainGroup]]:
    """At most ``count`` mini-batches, none of them empty: of whole problems where there are several, as in verl; else of every n-th row."""
    problems = [
        list(of_one) for _, of_one in groupby(enumerate(groups), lambda each: -1 - each[0] if each[1].problem is None else each[1].problem)
    ]
    if len(problems) > 1:
        count = min(count, len(problems))
        return [[group for of_one in problems[i::count] for _, group in of_one] for i in range(count)]
    place_of = [(p, row) for p, group in enumerate(groups) for row in range(len(group.row_G))]
    count = min(count, len(place_of))
    return [_rows_at(groups, place_of[i::count]) for i in range(count)]


def _rows_at(groups: Sequence[TrainGroup], places: Sequence[tuple[int, int]]) -> Sequence[TrainGroup]:
    """The rows at some places (number of the group, number of the row), without groups that none is in."""
    return [pick(groups[p], [row for _, row in of_it]) for p, of_it in groupby(places, lambda place: place[0])]


def tensors_of(group: TrainGroup, temperature: float, budget: int, longest: int, padding: int = 0) -> TensorDict:
    """The rows of one rank as nested tensors of the prefix's last token and the row's own.

    ``budget``: row tokens of one micro-batch; ``longest``: tokens of the longest row of all ranks. The last ``padding`` rows carry no
    loss. The columns are verl's; the rest of the prefix travels beside them once.
    """
    row_G, last, start = group.row_G, group.prefix_T[-1], len(group.prefix_T) - 1
    weight_G = [torch.tensor(row.weight_T, dtype=torch.float32) for row in row_G]
    for weight in weight_G[len(row_G) - padding :]:
        weight.zero_()
    columns = {
        "input_ids": [torch.tensor([last, *row.token_T]) for row in row_G],
        "position_ids": [torch.arange(start, start + 1 + len(row.token_T)) for row in row_G],
        "prompts": [torch.tensor([last])] * len(row_G),
        "responses": [torch.tensor(row.token_T) for row in row_G],
        "response_mask": weight_G,
        # As long as the row: verl shifts it by one to meet the log-probs.
        "loss_mask": [torch.cat([torch.zeros(1), weight]) for weight in weight_G],
    }
    for field, name in COLUMNS.items():
        value_GT = [getattr(row, field) for row in row_G]
        if all(value_T is not None for value_T in value_GT):
            columns[name] = [torch.tensor(value_T) for value_T in value_GT]
    data = TensorDict({name: nested(rows) for name, rows in columns.items()}, batch_size=[len(row_G)])
    tu.assign_non_tensor(
        data,
        temperature=temperature,
        use_dynamic_bsz=True,
        use_remove_padding=False,
        use_fused_kernels=False,
        calculate_entropy=False,
        max_token_len_per_gpu=budget,
    )
    tu.assign_non_tensor_data(data, SHARED_PROMPT, tuple(group.prefix_T[:-1]))
    tu.assign_non_tensor_data(data, LONGEST_ROW, longest)
    return data


def mark_forks(entropy_T: torch.Tensor, mask_T: torch.Tensor, forking: Forking) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which tokens of a row are forking, as 0 and 1, and the lower and upper end of their band at every token.

    ``mask_T``: which tokens carry loss; only these are compared, and a row without any, such as padding, has no forking token.
    """
    fork_T, carries = torch.zeros_like(entropy_T), mask_T > 0
    low_T = high_T = torch.zeros_like(entropy_T)
    if carries.any():
        found = forks_of(entropy_T[carries].tolist(), forking)
        fork_T[carries] = torch.tensor(found.fork_T, dtype=fork_T.dtype)
        low_T, high_T = torch.full_like(entropy_T, found.low), torch.full_like(entropy_T, found.high)
    return fork_T, low_T, high_T


def nested(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths as one jagged tensor."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
