"""The JSON value of one question on a page: its text, the course of its vote, and every sample that was kept."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from sttrl.ledger.evaluated import Verdicts
from sttrl.ledger.files import whole_lines
from sttrl.ledger.records import BallotsRecord, ElectionRecord, FinishedQuestion, StepRecord
from sttrl.ledger.rollouts import rollouts_file
from sttrl.questions.records import PollRecord
from sttrl.report.read import RunContent
from sttrl.report.texts import verdict_of

Pieces = Callable[[Sequence[int], str], list[str] | None]
"""(tokens, text) -> the text of each token, which together are the text; None if the tokens are not those of the text."""
FindPieces = Callable[[Mapping[str, Any]], Pieces | None]
"""config.json of a run -> `Pieces` of its model; None if its tokenizer is not on this machine."""
LABELS: Final = {"base": "base", "vote_same_tokens": "vote (same tokens)", "adapted": "adapted"}
"""The names of evaluations on the page."""
LEAST: Final = 9999
"""The largest number of a token's ``nll``."""
NO_TOKENIZER: Final = "The tokenizer of the run's model is not on this machine: texts are not coloured by token probability."
OTHER_TOKENS: Final = "The tokens of some samples are not those of their texts: these are not coloured."
NO_ROLLOUTS: Final = "The samples of this question are not in the run folder."
LOST_ROLLOUTS: Final = "The file with the samples of this question is damaged: it is shown as far as it can be read."


def no_pieces(config: Mapping[str, Any]) -> None:
    """A `FindPieces` for where no tokenizer may be looked for."""


def question_view(run: RunContent, problem_id: str, pieces: Pieces | None) -> dict[str, Any]:
    """What a page shows of an opened question. Raises `KeyError` for a problem that the run has not begun."""
    question = next((each for each in run.finished if each.record.id == problem_id), None)
    steps = run.running[problem_id] if question is None else question.steps
    shown, verdicts = run.shown, run.grades.of(problem_id)
    answers = Answers(verdicts)
    course = _course(question, steps, answers)
    remarks = list[str]()
    groups = _groups(run.folder, problem_id, question, steps, answers, pieces, remarks) if shown.samples and question is not None else []
    return {
        "text": shown.text(problem_id),
        "label": shown.label(problem_id) if shown.text(problem_id) is not None else None,
        "error": None if question is None else question.record.error,
        "parts": {} if question is None else shown.parts(question),
        "course": course,
        "groups": groups,
        "answers": answers.listed,
        "remarks": list(dict.fromkeys(remarks)),
    }


class Answers:
    """The distinct answers of a question over all its votes and evaluations. Two answers are one if any ballots put them into one class."""

    def __init__(self, verdicts: Verdicts | None) -> None:
        self.verdicts = verdicts
        self.listed = list[dict[str, Any]]()
        self._place_of = dict[str, int]()

    def places(self, ballots: BallotsRecord) -> list[int]:
        """The place in ``listed`` of each class."""
        texts_C = [[representative] for representative in ballots.representative_C]
        for text, c in zip(ballots.answer_G, ballots.class_G, strict=True):
            if text is not None and c is not None:
                texts_C[c].append(text)
        return [self._place(texts) for texts in texts_C]

    def place(self, text: str | None) -> int | None:
        """The place of an answer outside any ballots."""
        return None if text is None else self._place([text])

    def _place(self, texts: Sequence[str]) -> int:
        place = next((self._place_of[text] for text in texts if text in self._place_of), len(self.listed))
        if place == len(self.listed):
            self.listed.append({"text": texts[0], "verdict": verdict_of(texts[0], self.verdicts)})
        for text in texts:
            self._place_of.setdefault(text, place)
        return place


def _course(question: FinishedQuestion | None, steps: Sequence[StepRecord], answers: Answers) -> list[dict[str, Any]]:
    """The votes in order: of the base, of each step, and of the adapted policy; evaluations in between after their step."""
    polls = {} if question is None else question.record.polls
    between = {} if question is None else {evaluation.step: evaluation.poll for evaluation in question.evaluations}
    found = [_poll("base", polls["base"], answers)] if "base" in polls else []
    for step in steps:
        found.append(_step(step, answers))
        if step.step + 1 in between:
            found.append(_poll(f"after {step.step + 1} steps", between[step.step + 1], answers))
    found += [_poll(name, polls[name], answers) for name in ("adapted", "vote_same_tokens") if name in polls]
    return [each for each in found if each is not None]


def _poll(name: str, poll: Any, answers: Answers) -> dict[str, Any] | None:
    """The vote of an evaluation; None for a kind of problem without one. The greedy response, which is last, does not vote."""
    if not isinstance(poll, PollRecord):
        return None
    return {"name": LABELS.get(name, name), **_vote(poll.ballots, poll.election, poll.k, answers)}


def _step(step: StepRecord, answers: Answers) -> dict[str, Any]:
    update = {} if step.update is None else {key: value for key, value in step.update.items() if value is not None}
    found = {"name": f"step {step.step + 1}", "gate": step.gate, "update": update, "tokens": step.tokens_sampled}
    if step.ballots is None or step.election is None:
        return found
    rewards = step.reward_G
    return {
        **found,
        **_vote(step.ballots, step.election, step.election.samples, answers),
        "reward": sum(rewards) / len(rewards) if rewards else None,
    }


def _vote(ballots: BallotsRecord, election: ElectionRecord, k: int, answers: Answers) -> dict[str, Any]:
    place_C = answers.places(ballots)
    counts = Counter(place_C[c] for c in ballots.class_G[:k] if c is not None)
    return {
        "samples": k,
        "counts": [[place, count] for place, count in counts.most_common()],
        "invalid": dict(Counter(reason for reason in ballots.invalid_G[:k] if reason is not None)),
        "winner": None if election.winner is None else place_C[election.winner],
        "tied": [place_C[c] for c in election.tied_C],
        "ratio": election.majority_ratio,
        "margin": election.margin,
    }


def _groups(
    folder: Path,
    problem_id: str,
    question: FinishedQuestion,
    steps: Sequence[StepRecord],
    answers: Answers,
    pieces: Pieces | None,
    remarks: list[str],
) -> list[dict[str, Any]]:
    """The samples of each evaluation and step, in the order of the course."""
    lines = list(_lines(rollouts_file(folder, problem_id), remarks))
    if lines and pieces is None:
        remarks.append(NO_TOKENIZER)
    ballots_of: dict[str | int, BallotsRecord] = {step.step: step.ballots for step in steps if step.ballots is not None}
    ballots_of |= {name: poll.ballots for name, poll in question.record.polls.items() if isinstance(poll, PollRecord)}
    groups = []
    for source, own in groupby(lines, _source):
        line_G = list(own)
        ballots = ballots_of.get(source)
        place_G = _places(line_G, ballots, answers)
        samples = [_sample(line, place, pieces, remarks) for line, place in zip(line_G, place_G, strict=True)]
        groups.append({"name": f"step {source + 1}" if isinstance(source, int) else LABELS.get(source, source), "samples": samples})
    order = ["base", *(f"step {number + 1}" for number in range(1 + max((step.step for step in steps), default=0))), "adapted"]
    return sorted(groups, key=lambda group: order.index(group["name"]) if group["name"] in order else len(order))


def _source(line: Mapping[str, Any]) -> str | int:
    """What a sample belongs to: an evaluation, by its name, or a step."""
    return int(line["step"]) if "step" in line else str(line["poll"])


def _lines(file: Path, remarks: list[str]) -> Iterator[dict[str, Any]]:
    try:
        lines = whole_lines(file.read_bytes())
    except OSError:
        remarks.append(NO_ROLLOUTS)
        return
    for line in lines:
        try:
            value = json.loads(line)
            complete = {"text", "tokens", "logprobs"} <= value.keys() and ("poll" in value or "step" in value)
        except (ValueError, AttributeError):
            complete = False
        if not complete:
            remarks.append(LOST_ROLLOUTS)
            return
        yield value


def _places(line_G: Sequence[Mapping[str, Any]], ballots: BallotsRecord | None, answers: Answers) -> list[int | None]:
    """The place of each sample's answer. The journal's ballots are in the order of the samples."""
    if ballots is None or len(ballots.class_G) != len(line_G):
        return [answers.place(line.get("answer")) for line in line_G]
    place_C = answers.places(ballots)
    return [None if c is None else place_C[c] for c in ballots.class_G]


def _sample(line: Mapping[str, Any], place: int | None, pieces: Pieces | None, remarks: list[str]) -> dict[str, Any]:
    """One sample. ``nll``: minus the log-prob of each token, in hundredths of a nat, where ``pieces`` has their texts."""
    token_T, logprob_T, text = line["tokens"], line["logprobs"], line["text"]
    split = None if pieces is None else pieces(token_T, text)
    if pieces is not None and split is None:
        remarks.append(OTHER_TOKENS)
    optional = {name: line[name] for name in ("reward", "invalid", "test", "view") if line.get(name) is not None}
    return {
        "answer": place,
        "said": line.get("answer"),
        "finish": line.get("finish"),
        "tokens": len(token_T),
        "logprob": round(total, 3) if math.isfinite(total := math.fsum(logprob_T)) else None,
        **optional,
        **({"greedy": True} if line.get("greedy") else {}),
        **({"text": text} if split is None else {"pieces": split, "nll": _hundredths(logprob_T)}),
    }


def _hundredths(logprob_T: Sequence[float]) -> list[int]:
    """Minus each log-prob in hundredths of a nat, at most `LEAST`; that also stands for what is no number."""
    if all(logprob > -LEAST / 100 for logprob in logprob_T):
        return [round(-100 * logprob) for logprob in logprob_T]
    return [round(-100 * logprob) if logprob > -LEAST / 100 else LEAST for logprob in logprob_T]
