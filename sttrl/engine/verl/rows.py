"""From a group of responses to the rows that verl's engine computes on: one rank's share, one mini-batch of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from sttrl.engine.verl.training_engine import SHARED_PROMPT
from sttrl.types import TrainBatch, TrainGroup

LONGEST_ROW = "longest_row"


@dataclass(frozen=True)
class Total:
    """What one optimiser step averages over, on all ranks: responses and the tokens of them that carry loss."""

    rows: int
    tokens: int


def share(group: TrainGroup, indices: Sequence[int]) -> TrainGroup:
    """Some responses of a group, with all that belongs to them."""
    columns = ("rollout_G", "advantage_GT", "value_GT", "return_GT", "base_logprob_GT")
    chosen: dict[str, Any] = {name: tuple(rows[i] for i in indices) for name in columns if (rows := getattr(group, name))}
    return replace(group, **chosen)


def share_of_rank(group: TrainGroup, rank: int, ranks: int) -> tuple[TrainGroup, int]:
    """Every n-th response of a group, and how many more of the last rows are padding.

    verl wants as many rows on every rank: where the group does not divide evenly, some ranks repeat its first response.
    """
    count = len(group.rollout_G)
    mine = list(range(rank, count, ranks))
    padding = -(-count // ranks) - len(mine)
    return share(group, mine + [0] * padding), padding


def longest_row(group: TrainGroup) -> int:
    """Tokens of the longest row, with the last prompt token."""
    return 1 + max(len(r.token_T) for r in group.rollout_G)


def mini_batches(batch: TrainBatch, count: int) -> list[TrainBatch]:
    """At most ``count`` batches, none of them empty: of whole groups where there are several, as in verl; else of every n-th response."""
    groups = batch.group_P
    if len(groups) > 1:
        count = min(count, len(groups))
        return [replace(batch, group_P=groups[i::count]) for i in range(count)]
    responses = len(groups[0].rollout_G)
    count = min(count, responses)
    return [replace(batch, group_P=(share(groups[0], range(i, responses, count)),)) for i in range(count)]


def total_of(batch: TrainBatch) -> Total:
    """What a step on the whole batch averages over."""
    return Total(batch.n_rows, batch.n_tokens)


def rows_of(group: TrainGroup, temperature: float, budget: int, longest: int, padding: int = 0) -> TensorDict:
    """One rank's share of a group as nested rows of the last prompt token and the response.

    ``budget``: row tokens of one micro-batch; ``longest``: tokens of the longest row of all ranks. The last ``padding`` rows carry no
    loss. The columns are verl's; the rest of the prompt travels beside them once.
    """
    rollouts, last, start = group.rollout_G, group.prompt_T[-1], len(group.prompt_T) - 1
    real = len(rollouts) - padding
    mask_G = [scored_mask(len(r.token_T), group.scored if i < real else 0) for i, r in enumerate(rollouts)]
    columns = {
        "input_ids": [torch.tensor([last, *r.token_T]) for r in rollouts],
        "position_ids": [torch.arange(start, start + 1 + len(r.token_T)) for r in rollouts],
        "prompts": [torch.tensor([last])] * len(rollouts),
        "responses": [torch.tensor(r.token_T) for r in rollouts],
        "response_mask": mask_G,
        # As long as the row: verl shifts it by one to meet the log-probs.
        "loss_mask": [torch.cat([torch.zeros(1), mask]) for mask in mask_G],
        "rollout_log_probs": [torch.tensor(r.logprob_T) for r in rollouts],
    }
    for name, value_GT in (
        ("advantages", group.advantage_GT or None),
        ("values", group.value_GT),
        ("returns", group.return_GT),
        ("ref_log_prob", group.base_logprob_GT),
    ):
        if value_GT is not None:
            columns[name] = [torch.tensor(value_T) for value_T in value_GT]
    data = TensorDict({name: nested(rows) for name, rows in columns.items()}, batch_size=[len(rollouts)])
    tu.assign_non_tensor(
        data,
        temperature=temperature,
        use_dynamic_bsz=True,
        use_remove_padding=False,
        use_fused_kernels=False,
        calculate_entropy=False,
        max_token_len_per_gpu=budget,
    )
    tu.assign_non_tensor_data(data, SHARED_PROMPT, tuple(group.prompt_T[:-1]))
    tu.assign_non_tensor_data(data, LONGEST_ROW, longest)
    return data


def scored_mask(length: int, scored: int | None) -> torch.Tensor:
    """1 for each token of a response that carries loss: its last ``scored`` ones, or all."""
    mask = torch.ones(length)
    if scored is not None:
        mask[: length - scored] = 0.0
    return mask


def nested(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths as one jagged tensor."""
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
