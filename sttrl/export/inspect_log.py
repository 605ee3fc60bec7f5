"""A run as logs of inspect_ai, one of each policy: JSON files of its schema, version 2 (`inspect log schema`).

A response to a question is an epoch of a sample, scored C (correct) or I (incorrect). An ARC task has one epoch, with a score for each
metric. The results are those of the run's summary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sttrl
from sttrl.errors import JournalError
from sttrl.export.published import WITHHELD, clean, model_name, settings_of
from sttrl.export.writing import replacing
from sttrl.ledger.files import json_line
from sttrl.ledger.journal import JOURNAL
from sttrl.library.loaded_run import LoadedRun
from sttrl.library.records import Evaluation, Problem, Sample

SCHEMA: Final = 2
POLICIES: Final = ("base", "adapted")
"""The policies that have a log, as the rows of the table are called."""
RIGHT: Final = "right"
"""The score of a response to a question."""
SCORER: Final = "sttrl"
STOP_REASONS: Final = {"stop": "stop", "length": "max_tokens"}
Json = dict[str, Any]


def write_inspect(run: LoadedRun, folder: Path) -> tuple[Path, ...]:
    """Write a log of the base, and one of the adapted policy if the run adapts. The names begin with the time, as inspect_ai's own do.

    Raises `JournalError` if the responses in rollouts/ are missing or damaged.
    """
    adapts = run.summary["adapted"] is not None or any(problem.adapted is not None for problem in run.problems)
    files = []
    for policy in POLICIES if adapts else POLICIES[:1]:
        files.append(folder / f"{_created(run).replace(':', '-')}_{_word(run.path.resolve().name)}-{policy}.json")
        with replacing(files[-1]) as temporary, temporary.open("w", encoding="utf-8") as file:
            # Samples come last, one at a time: a run may hold more of them than fit into memory.
            file.write(json.dumps(_head(run, policy), allow_nan=False)[:-1] + ', "samples": [\n')
            for number, sample in enumerate(_samples(run, policy)):
                file.write(("," if number else "") + json_line(sample, allow_nan=False))
            file.write("]}\n")
    return tuple(files)


def _head(run: LoadedRun, policy: str) -> Json:
    """The log without its samples."""
    name, key, created = model_name(run), _key(run, policy), _created(run)
    tokens = sum(evaluation.tokens for problem in run.problems if (evaluation := _evaluation(problem, policy)) is not None)
    generate = {"temperature": run.config["val_temp"], "top_p": run.config["val_top_p"], "max_tokens": run.config["max_response_tokens"]}
    method = run.config["adaptation_method"] if policy == "adapted" else "none"
    return {
        "version": SCHEMA,
        "status": "success" if run.status == "finished" else "started",
        "eval": {
            "eval_id": key,
            "run_id": _key(run, ""),
            "created": created,
            "task": str(settings_of(run)["dataset"]),
            "task_id": key,
            "task_version": 0,
            "task_attribs": {},
            "task_args": {},
            "task_args_passed": {},
            "solver": method,
            "solver_args": settings_of(run),
            "tags": [policy],
            "dataset": {
                "name": str(settings_of(run)["dataset"]),
                "samples": len(run.problems),
                "sample_ids": [clean(problem.id) for problem in run.problems],
                "shuffled": False,
            },
            "model": name,
            "model_generate_config": generate,
            "model_args": {},
            "config": {"epochs": max((_epochs(problem, policy) for problem in run.problems), default=1)},
            "packages": {"sttrl": sttrl.__version__},
            "metadata": {"policy": policy, "run": run.path.resolve().name, "withheld": WITHHELD if run.withheld else None},
            "scorers": [{"name": score["name"], "metrics": [{"name": m} for m in score["metrics"]]} for score in _scores(run, policy)],
        },
        "plan": {"name": "plan", "steps": [{"solver": method, "params": {}, "params_passed": {}}], "config": generate},
        "results": {
            "total_samples": sum(_epochs(problem, policy) for problem in run.problems),
            "completed_samples": sum(_epochs(problem, policy) for problem in run.problems),
            "scores": _scores(run, policy),
        },
        "stats": {
            "started_at": "",
            "completed_at": created,
            "model_usage": {name: {"input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}},
            "role_usage": {},
            "connection_limit_history": [],
        },
        "invalidated": False,
        "tags": [],
        "metadata": {},
        "reductions": [_reduction(run, policy, metric) for metric in _metrics(run)],
    }


def _reduction(run: LoadedRun, policy: str, metric: str) -> Json:
    """A metric of each problem."""
    judged = [problem for problem in run.problems if policy in problem.scores]
    samples = [
        {"sample_id": clean(problem.id), "value": value, "history": []}
        for problem in judged
        if (value := problem.scores[policy][metric]) is not None
    ]
    return {"scorer": _shown(metric, run), "reducer": None, "samples": samples}


def _scores(run: LoadedRun, policy: str) -> list[Json]:
    """The row of the run's table: each metric with its 95 % interval. mean@k is the accuracy of the responses."""
    row = run.summary[policy]
    if row is None:
        return []
    found = []
    for metric in _metrics(run):
        if row[metric] is None:
            continue
        name = _shown(metric, run)
        kind = "accuracy" if name == RIGHT else "mean"
        found.append({
            "name": name,
            "scorer": SCORER,
            "reducer": "mean" if name == RIGHT else None,
            "scored_samples": row["questions"],
            "unscored_samples": len(run.problems) - row["questions"],
            "params": {},
            "metrics": {kind: {"name": kind, "value": row[metric], "params": {}}},
            "metadata": {"metric": metric, "k": row["k"], "ci95": row["ci95_by_metric"][metric]},
        })  # fmt: skip
    return found


def _metrics(run: LoadedRun) -> list[str]:
    """The metrics of the run's kind of problem; the headline is the first."""
    names = run.summary["metrics"]
    return [] if names is None else sorted(names["all"], key=lambda metric: metric != names["headline"])


def _shown(metric: str, run: LoadedRun) -> str:
    """The name of a metric in the log: of questions mean@k is the mean of the score `RIGHT`."""
    return RIGHT if metric == "mean@k" else metric


def _samples(run: LoadedRun, policy: str) -> Iterator[Json]:
    for problem in run.problems:
        evaluation = _evaluation(problem, policy)
        if evaluation is None:
            continue
        if evaluation.vote is None:
            yield _of_task(run, problem, policy, evaluation)
            continue
        responses = [s for s in problem.rollouts.read() if s.evaluation == _source(problem, policy) and not s.greedy]
        if len(responses) != evaluation.k:
            found = f"{problem.rollouts.path} has {len(responses)} of {evaluation.k} responses"
            raise JournalError(f"{found}, which the log lists.", "Restore the file, or export tables: problems.csv does not need it.")
        for epoch, response in enumerate(responses, start=1):
            yield _of_response(run, problem, policy, epoch, response)


def _of_response(run: LoadedRun, problem: Problem, policy: str, epoch: int, response: Sample) -> Json:
    score: Json | None = None
    if response.right is not None:
        score = {"value": "C" if response.right else "I", "answer": None if run.withheld else clean(response.answer), "history": []}
    count = len(response.tokens)
    return {
        **_asked(run, problem, policy, epoch, response.text, STOP_REASONS.get(response.finish, "unknown"), count),
        "scores": None if score is None else {RIGHT: score},
        "metadata": {
            **_metadata(problem, policy),
            "seed": response.seed,
            "invalid": response.invalid,
            "logprob_mean_nats": sum(response.logprobs) / count if count else None,
        },
    }


def _of_task(run: LoadedRun, problem: Problem, policy: str, evaluation: Evaluation) -> Json:
    known = {name: value for name, value in problem.scores.get(policy, {}).items() if value is not None}
    scores = {name: {"value": value, "answer": clean(evaluation.answer), "history": []} for name, value in known.items()}
    return {
        **_asked(run, problem, policy, 1, evaluation.answer or "", "stop", evaluation.tokens),
        "scores": scores or None,
        "metadata": _metadata(problem, policy),
    }


def _asked(run: LoadedRun, problem: Problem, policy: str, epoch: int, text: str, stop: str, tokens: int) -> Json:
    """The fields that every sample has."""
    question = WITHHELD if run.withheld else clean(problem.question) or "The data set is not where it was: the question is not known."
    text, usage = "" if run.withheld else clean(text), {"input_tokens": 0, "output_tokens": tokens, "total_tokens": tokens}
    answer = {"role": "assistant", "content": text, "source": "generate", "model": model_name(run)}
    return {
        "id": clean(problem.id),
        "epoch": epoch,
        "input": question,
        "target": "" if run.withheld else clean(problem.label) or "",
        "messages": [{"role": "user", "content": question, "source": "input"}, answer],
        "output": {
            "model": model_name(run),
            "choices": [{"message": answer, "stop_reason": stop}],
            "completion": text,
            "usage": usage,
        },
        "store": {},
        "events": [],
        "model_usage": {model_name(run): usage},
        "role_usage": {},
        "attachments": {},
        "uuid": _key(run, f"{policy}\0{problem.id}\0{epoch}"),
    }


def _metadata(problem: Problem, policy: str) -> Json:
    """``evaluation``: the one that the responses are from. A problem that failed reports the base's."""
    return {"evaluation": _source(problem, policy), "status": problem.status, "stop": problem.stop, "steps": len(problem.steps)}


def _source(problem: Problem, policy: str) -> str:
    """The evaluation that counts for a policy in the run's table: the base's for a problem that failed."""
    return "adapted" if policy == "adapted" and problem.status == "done" and problem.adapted is not None else "base"


def _evaluation(problem: Problem, policy: str) -> Evaluation | None:
    return problem.adapted if _source(problem, policy) == "adapted" else problem.base


def _epochs(problem: Problem, policy: str) -> int:
    evaluation = _evaluation(problem, policy)
    return 0 if evaluation is None else 1 if evaluation.vote is None else evaluation.k


def _created(run: LoadedRun) -> str:
    """When the journal was last written, so that an unchanged run gives the same log."""
    return datetime.fromtimestamp(int((run.path / JOURNAL).stat().st_mtime), tz=UTC).isoformat()


def _key(run: LoadedRun, part: str) -> str:
    """A stable id of 22 letters and digits, as inspect_ai's are."""
    text = f"{run.path.resolve().name}\0{_created(run)}\0{part}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:22]


def _word(text: str) -> str:
    """A name for a file's name, in which inspect_ai separates parts by underscores."""
    return "".join(letter if letter.isalnum() else "-" for letter in text)
