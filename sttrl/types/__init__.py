"""The types that all packages share, and the list of axis suffixes.

Axis suffixes: ``_P`` problem, ``_G`` sample in a group, ``_T`` token, ``_C`` class of equal answers, ``_V`` vocabulary, ``_D`` hidden.
"""

from __future__ import annotations

from sttrl.types.problems import MOST_TOP_LOGPROBS, FinishReason, Group, Problem, Request, Rollout, Sampling, TopTokens
from sttrl.types.statistics import Measure, Stat, TokenStats
from sttrl.types.training import (
    DeltaKind,
    DeltaSpec,
    EntropyBand,
    Forking,
    ForkRule,
    LossKind,
    Objective,
    ParameterGroup,
    Row,
    RowSet,
    TrainableModule,
    TrainGroup,
    UpdateStats,
    in_sample_order,
    whole_rows,
)
from sttrl.types.votes import (
    Answer,
    AnswerKind,
    Ballots,
    Election,
    GateReason,
    HeldVote,
    Invalid,
    Outcome,
    QuestionStatus,
    Step,
    StopReason,
)

__all__ = [
    "Answer",
    "AnswerKind",
    "Ballots",
    "DeltaKind",
    "DeltaSpec",
    "Election",
    "EntropyBand",
    "FinishReason",
    "ForkRule",
    "Forking",
    "GateReason",
    "Group",
    "HeldVote",
    "Invalid",
    "LossKind",
    "MOST_TOP_LOGPROBS",
    "Measure",
    "Objective",
    "Outcome",
    "ParameterGroup",
    "Problem",
    "QuestionStatus",
    "Request",
    "Rollout",
    "Row",
    "RowSet",
    "Sampling",
    "Stat",
    "Step",
    "StopReason",
    "TokenStats",
    "TopTokens",
    "TrainGroup",
    "TrainableModule",
    "UpdateStats",
    "in_sample_order",
    "whole_rows",
]
