"""The sampled responses of each problem: ``rollouts/<problem>.jsonl``, one response a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sttrl.data import folder_name
from sttrl.ledger.files import json_line, whole_lines, write_text
from sttrl.types import Rollout


def write_rollouts(folder: Path, question_id: str, lines: Iterable[dict[str, Any]]) -> None:
    """Write every response of a question. This is done before the journal says that the question is finished."""
    write_text(rollouts_file(folder, question_id), "".join(map(json_line, lines)))


def add_rollouts(folder: Path, question_id: str, lines: Iterable[dict[str, Any]]) -> None:
    """Keep the responses of the base's evaluation, which are in the file already, and write ``lines`` after them."""
    file = rollouts_file(folder, question_id)
    known = [json.loads(line) for line in whole_lines(file.read_bytes())] if file.exists() else []
    base = [line for line in known if line["poll"] == "base"]
    write_text(file, "".join(map(json_line, (*base, *lines))))


def rollouts_file(folder: Path, question_id: str) -> Path:
    """The file with the responses to a question."""
    return folder / "rollouts" / f"{folder_name(question_id)}.jsonl"


def rollout_line(rollout: Rollout, answer: str | None, invalid: str | None, view: str | None = None) -> dict[str, Any]:
    """One response with its judged answer, as a JSON object. ``view``: the name of the view that it answers, if there are several.

    ``begun``: of a branch of a tree, how many tokens it shares with its trunk.
    """
    return {
        **({} if view is None else {"view": view}),
        "seed": rollout.seed,
        "version": rollout.version,
        "finish": rollout.finish,
        "text": rollout.text,
        "answer": answer,
        "invalid": invalid,
        "tokens": list(rollout.token_T),
        "logprobs": [round(p, 5) for p in rollout.logprob_T],
        **({"begun": rollout.begun} if rollout.begun else {}),
    }
