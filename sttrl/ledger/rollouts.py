"""The texts behind a question's numbers: ``rollouts/<problem>.jsonl``, one sampled response a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sttrl.data import folder_name
from sttrl.ledger.files import json_line, whole_lines, write_text
from sttrl.types import Rollout


def write_rollouts(folder: Path, question_id: str, lines: Iterable[dict[str, Any]]) -> None:
    """Write every response of a question at once, before the journal says that it is finished."""
    write_text(rollouts_file(folder, question_id), "".join(map(json_line, lines)))


def add_rollouts(folder: Path, question_id: str, lines: Iterable[dict[str, Any]]) -> None:
    """Write the responses of later evaluations behind those of the base, which were written when it was evaluated."""
    file = rollouts_file(folder, question_id)
    known = [json.loads(line) for line in whole_lines(file.read_bytes())] if file.exists() else []
    base = [line for line in known if line["poll"] == "base"]
    write_text(file, "".join(map(json_line, (*base, *lines))))


def rollouts_file(folder: Path, question_id: str) -> Path:
    """Where the responses to a question are."""
    return folder / "rollouts" / f"{folder_name(question_id)}.jsonl"


def rollout_line(rollout: Rollout, answer: str | None, invalid: str | None) -> dict[str, Any]:
    """One response, and what it was judged to answer."""
    return {
        "seed": rollout.seed,
        "version": rollout.version,
        "finish": rollout.finish,
        "text": rollout.text,
        "answer": answer,
        "invalid": invalid,
        "tokens": list(rollout.token_T),
        "logprobs": [round(p, 5) for p in rollout.logprob_T],
    }
