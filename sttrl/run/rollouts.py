"""The texts behind a question's numbers: ``rollouts/<problem>.jsonl``, one sampled response a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sttrl.data import folder_name
from sttrl.run.files import write_text
from sttrl.run.records import PollName
from sttrl.types import Answer, Poll, Rollout, Step


def write_rollouts(folder: Path, question_id: str, polls: Mapping[PollName, Poll], steps: Sequence[Step]) -> None:
    """Write every response of a question at once, before the journal says that it is finished."""
    lines = "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in _lines(polls, steps))
    write_text(folder / "rollouts" / f"{folder_name(question_id)}.jsonl", lines)


def add_rollouts(folder: Path, question_id: str, polls: Mapping[PollName, Poll]) -> None:
    """Write the responses of later polls behind those of the base, which were written when it was polled."""
    file = folder / "rollouts" / f"{folder_name(question_id)}.jsonl"
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if json.loads(line)["poll"] == "base"]
    write_text(file, "".join([*lines, *(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in _lines(polls, ()))]))


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
