"""From a group of responses to the rows that verl's engine computes on: one rank's share, one mini-batch of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils as tu

from sttrl.engine.training_engine import SHARED_PROMPT
from sttrl.types import TrainBatch, TrainGroup


@dataclass(frozen=True)
class Total:
    """What one optimiser step averages over, on all ranks: responses and the tokens of them that carry loss."""

    rows: int
    tokens: int


def share(group: TrainGroup, part: slice) -> TrainGroup:
    """Every n-th response of a group, with all that belongs to it."""
    return replace(
        group,
        rollout_G=group.rollout_G[part],
        advantage_GT=group.advantage_GT[part],
        value_GT=None if group.value_GT is None else group.value_GT[part],
        return_GT=None if group.return_GT is None else group.return_GT[part],
        base_logprob_GT=None if group.base_logprob_GT is None else group.base_logprob_GT[part],
    )


def mini_batches(batch: TrainBatch, count: int) -> list[TrainBatch]:
    """At most ``count`` batches: of whole groups where there are several, as in verl; else of every n-th response of the one."""
    groups = batch.group_P
    if count == 1:
        return [batch]
    if len(groups) > 1:
        return [replace(batch, group_P=groups[i::count]) for i in range(min(count, len(groups)))]
    return [replace(batch, group_P=(share(groups[0], slice(i, None, count)),)) for i in range(count)]


def total_of(batch: TrainBatch) -> Total:
    """What a step on the whole batch averages over."""
    return Total(batch.n_rows, batch.n_tokens)


def rows_of(group: TrainGroup, temperature: float, budget: int) -> TensorDict:
    """One rank's share of a group as nested rows of the last prompt token and the response.

    ``budget``: row tokens of one micro-batch. The columns are verl's; the rest of the prompt travels beside them once.
    """
    rollouts, last, start = group.rollout_G, group.prompt_T[-1], len(group.prompt_T) - 1
    assert rollouts, "every rank needs a response"
    mask_G = [scored_mask(len(r.token_T), group.scored) for r in rollouts]
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
