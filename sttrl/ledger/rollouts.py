"""The texts behind a question's numbers: ``rollouts/<problem>.jsonl``, one sampled response a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sttrl.data import folder_name
from sttrl.ledger.files import json_line, whole_lines, write_text
from sttrl.ledger.records import PollName
from sttrl.types import Answer, Poll, Rollout, Step


def write_rollouts(folder: Path, question_id: str, polls: Mapping[PollName, Poll], steps: Sequence[Step]) -> None:
    """Write every response of a question at once, before the journal says that it is finished."""
    write_text(rollouts_file(folder, question_id), "".join(map(json_line, _lines(polls, steps))))


def add_rollouts(folder: Path, question_id: str, polls: Mapping[PollName, Poll]) -> None:
    """Write the responses of later polls behind those of the base, which were written when it was polled."""
    file = rollouts_file(folder, question_id)
    known = [json.loads(line) for line in whole_lines(file.read_bytes())] if file.exists() else []
    base = [line for line in known if line["poll"] == "base"]
    write_text(file, "".join(map(json_line, (*base, *_lines(polls, ())))))


def rollouts_file(folder: Path, question_id: str) -> Path:
    """Where the responses to a question are."""
    return folder / "rollouts" / f"{folder_name(question_id)}.jsonl"


def _lines(polls: Mapping[PollName, Poll], steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    for name, poll in polls.items():
        rollouts = (*poll.group.rollout_G, *([poll.greedy] if poll.greedy else []))
        for rollout, answer in zip(rollouts, poll.ballots.answer_G, strict=True):
            yield {"poll": name, "greedy": rollout is poll.greedy, **_line(rollout, answer)}
    for step in steps:
        if (vote := step.vote) is not None:
            for rollout, answer, reward in zip(vote.group.rollout_G, vote.ballots.answer_G, vote.reward_G, strict=True):
                yield {"step": step.index, "reward": reward, **_line(rollout, answer)}


def _line(rollout: Rollout, answer: Answer) -> dict[str, Any]:
    return {
        "seed": rollout.seed,
        "version": rollout.version,
        "finish": rollout.finish,
        "text": rollout.text,
        "answer": answer.text,
        "invalid": answer.invalid,
        "tokens": list(rollout.token_T),
        "logprobs": [round(p, 5) for p in rollout.logprob_T],
    }
