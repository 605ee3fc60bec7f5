"""What others depend on: exit codes, the journal's schema, the nouns."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import pytest

from sttrl import cli, errors, types
from sttrl.cli import parse_run
from sttrl.config import RunConfig
from sttrl.errors import UsageError
from sttrl.ledger import records
from sttrl.ledger.records import BallotsRecord, ElectionRecord, QuestionRecord, StepRecord
from sttrl.questions.records import POLL_NAMES, PollRecord


def test_exit_codes_are_frozen() -> None:
    codes = {name: kind.exit_code for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.SttrlError)}
    assert codes == {
        "SttrlError": 4, "UsageError": 2, "DataError": 3, "DataRowError": 3, "EngineError": 4, "LaneLostError": 4,
        "OutOfMemoryError": 4, "DivergedError": 5,
        "JournalError": 2, "QuestionsFailedError": 5, "StepError": 5,
    }  # fmt: skip
    assert cli.INTERRUPTED == 130


def test_the_journal_s_schema_is_frozen() -> None:
    """A change of these names is a change of SCHEMA_VERSION: journals of finished runs must be read for ever, or refused."""
    names = {
        kind.__name__: [f.name for f in dataclasses.fields(kind)]
        for kind in (ElectionRecord, BallotsRecord, PollRecord, StepRecord, QuestionRecord, records.EvaluationRecord)
    }
    assert records.SCHEMA_VERSION == 4
    assert records.READABLE_VERSIONS == (2, 3, 4)
    assert names == {
        "ElectionRecord": ["answer", "winner", "margin", "share_C", "tied_C", "voters", "samples", "majority_ratio"],
        "BallotsRecord": ["answer_G", "invalid_G", "class_G", "representative_C", "reward_G", "view_G"],
        "PollRecord": [
            "k", "greedy", "temperature", "top_p", "max_tokens", "version", "ballots", "election", "confidence", "tokens", "early",
            "early_tokens",
        ],
        "StepRecord": [
            "step", "version", "ballots", "election", "majority", "reward_G", "gate", "tokens_sampled", "tokens_trained", "update",
            "seconds", "weight",
        ],
        "EvaluationRecord": ["step", "poll"],
        "QuestionRecord": [
            "id", "index", "attempt", "status", "stop", "error", "answer", "answer_source", "polls", "steps", "tokens_sampled",
            "tokens_trained", "tokens_evaluated", "seconds",
        ],
    }  # fmt: skip
    assert POLL_NAMES == ("base", "vote_same_tokens", "adapted")


def test_the_nouns_are_frozen() -> None:
    public = {
        name
        for name, value in vars(types).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(("sttrl.types.", "typing"))
    }
    assert public - {"Literal"} == {
        "Answer", "AnswerKind", "Ballots", "DeltaKind", "DeltaSpec", "Election", "EntropyBand", "FinishReason", "ForkRule", "Forking",
        "GateReason", "Group", "HeldVote", "Invalid", "LossKind", "Measure", "Objective", "Outcome", "ParameterGroup", "Problem",
        "QuestionStatus", "Request", "Rollout", "Row", "RowSet", "Sampling", "Stat", "Step", "StopReason", "TokenStats", "TrainGroup",
        "TrainableModule", "UpdateStats", "in_sample_order", "whole_rows",
    }  # fmt: skip


def test_a_usage_error_is_raised_not_printed() -> None:
    """Programs that use `parse_run` get an exception."""
    parse: Callable[[list[str]], RunConfig] = parse_run
    for arguments in (["--steps", "x"], ["--stepz", "1"], ["--steps", "-1"]):
        with pytest.raises(UsageError):
            parse(arguments)
