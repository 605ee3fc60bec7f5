"""What a loaded run consists of: problems, their evaluations, steps, votes and samples, as plain frozen records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sttrl.errors import JournalError
from sttrl.ledger.evaluated import Verdicts, is_right
from sttrl.ledger.files import whole_lines
from sttrl.ledger.records import BallotsRecord


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The result of a vote. ``answer``: the elected one; None: nobody was elected.

    ``majority_ratio``: samples with that answer over all samples. ``margin``: the winner's share of the vote weight less the runner-up's.
    ``share``: the share of the vote weight of each answer, in [0, 1].
    """

    answer: str | None
    majority_ratio: float
    margin: float
    share: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of one policy on a problem. ``answer``: the policy's; None: it has none. ``right``: whether it is; None without a
    label. ``k``: samples, of an ARC task views. ``tokens``: response tokens. ``vote``: over the samples; None for an ARC task.
    """

    answer: str | None
    right: bool | None
    k: int
    tokens: int
    vote: Vote | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the method. ``vote`` None: it held none. ``rewards``: of each sample. ``gate``: what prevented the update; None: nothing.

    ``metrics``: the numbers of the step by the names of metrics.jsonl; None: not measured. ``seconds``: by activity.
    """

    number: int
    vote: Vote | None
    rewards: tuple[float, ...]
    gate: str | None
    tokens_sampled: int
    tokens_trained: int
    metrics: Mapping[str, float | None]
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One response. ``evaluation``: the one that it belongs to; None: it belongs to the step ``step``. ``number``: its place among them.

    ``answer``: its normal form; None: it has none, and ``invalid`` says why (of an ARC task None too: ``view`` changed the reply, and the
    evaluation has the answers). ``right``: whether its answer is; None without a label. ``reward``: in its step; None in an evaluation.
    ``finish``: ``stop``, or ``length`` at the token limit. ``tokens``: ids; ``logprobs``: in nats, under the policy at the sampling
    temperature. ``test``, ``view``: of an ARC task the number of the test input, and the key of the view.
    """

    evaluation: str | None
    step: int | None
    number: int
    greedy: bool
    text: str = field(repr=False)
    answer: str | None
    invalid: str | None
    right: bool | None
    reward: float | None
    finish: str
    seed: int
    version: int
    tokens: tuple[int, ...] = field(repr=False)
    logprobs: tuple[float, ...] = field(repr=False)
    test: int | None = None
    view: str | None = None


@dataclass(frozen=True, kw_only=True)
class RolloutsFile:
    """Where the samples of a problem are. ``ballots``: the judged answers of each evaluation, by name, and of each step, by number."""

    path: Path
    ballots: Mapping[str | int, BallotsRecord] = field(repr=False)
    verdicts: Verdicts | None = field(repr=False)

    def read(self) -> Iterator[Sample]:
        """Every sample. None if the file is not there. Raises `JournalError` for a damaged line."""
        if not self.path.is_file():
            return
        counts = Counter[str | int]()
        for number, line in enumerate(whole_lines(self.path.read_bytes()), start=1):
            try:
                value = json.loads(line)
                group = value["step"] if "step" in value else value["poll"]
                sample = self._sample(value, group, counts[group])
            except (ValueError, KeyError, TypeError) as error:
                raise JournalError(f"{self.path}, line {number} is damaged.", "Restore the file, or remove it.") from error
            counts[group] += 1
            yield sample

    def _sample(self, line: Mapping[str, Any], group: str | int, number: int) -> Sample:
        return Sample(
            evaluation=line.get("poll"),
            step=line.get("step"),
            number=number,
            greedy=line.get("greedy", False),
            text=line["text"],
            answer=line["answer"],
            invalid=line["invalid"],
            right=self._right(group, number),
            reward=line.get("reward"),
            finish=line["finish"],
            seed=line["seed"],
            version=line["version"],
            tokens=tuple(line["tokens"]),
            logprobs=tuple(line["logprobs"]),
            test=line.get("test"),
            view=line.get("view"),
        )

    def _right(self, group: str | int, number: int) -> bool | None:
        """Whether a sample's answer is right, by the verdict on the representative of its class."""
        ballots = self.ballots.get(group)
        if ballots is None or self.verdicts is None or number >= len(ballots.class_G):
            return None
        place = ballots.class_G[number]
        answer = None if place is None else ballots.representative_C[place]
        return None if answer is not None and answer not in self.verdicts else is_right(answer, self.verdicts)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A finished problem: a question or an ARC task.

    ``status``: ``done``, ``failed``, ``diverged`` or ``oom``; ``error`` says why it is not done. ``stop``: why adapting ended.
    ``question``: the text, or the task as JSON; ``label``: the right answer. Both are None if they cannot be read, or if the authors of
    the data set ask that its questions stay out of plain text. ``answer``: the run's, from the evaluation ``answer_source``.
    ``right``: whether it is; None without a label. ``base``, ``vote_same_tokens``, ``adapted``: the evaluations; None: not made.
    ``scores``: for each row of the table its metrics, as in docs/metrics.md; a problem that failed has the base's in the row ``adapted``;
    empty without a label. ``weight``: of the problem in the means of weighted metrics. ``tokens_sampled``, ``tokens_trained``: by the
    steps; ``tokens_evaluated``: by the evaluations. ``seconds``: wall seconds by activity. ``adapter``: the folder of what was learned;
    None: none was kept.
    """

    id: str
    index: int
    status: str
    stop: str | None
    error: str | None
    question: str | None = field(repr=False)
    label: str | None = field(repr=False)
    answer: str | None
    answer_source: str | None
    right: bool | None
    base: Evaluation | None
    vote_same_tokens: Evaluation | None
    adapted: Evaluation | None
    scores: Mapping[str, Mapping[str, float | None]]
    weight: float
    steps: tuple[Step, ...] = field(repr=False)
    tokens_sampled: int
    tokens_trained: int
    tokens_evaluated: int
    seconds: Mapping[str, float]
    adapter: Path | None
    rollouts: RolloutsFile = field(repr=False)

    @cached_property
    def votes(self) -> tuple[Vote, ...]:
        """The votes of the steps, in their order: the vote's course."""
        return tuple(step.vote for step in self.steps if step.vote is not None)

    @property
    def election(self) -> Vote | None:
        """The vote of the evaluation that ``answer`` is from. If it elected nobody, ``answer`` is the greedy one. None without a vote."""
        source = {"base": self.base, "vote_same_tokens": self.vote_same_tokens, "adapted": self.adapted}.get(self.answer_source or "")
        return None if source is None else source.vote

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Every response in rollouts/, of the evaluations and then of the steps. The file is read at each access and not kept in memory.

        Raises `JournalError` for a damaged file.
        """
        return tuple(self.rollouts.read())
