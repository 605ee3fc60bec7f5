"""From text to ballots: extract, limit, normalise, compare. Importing this package loads no heavy library.

`reading.read_answer` makes the normal form of a sample's answer (extract, check limits, normalise). `judge.Judge` compares the distinct
normal forms of a group. What its exact rules cannot decide, worker processes decide, which can be killed.
"""

from __future__ import annotations

from sttrl.questions.answers.extract import extract
from sttrl.questions.answers.judge import Judge, JudgeConfig, JudgeStatistics, NoVerdict
from sttrl.questions.answers.limits import Limits, exceeded
from sttrl.questions.answers.normalise import normalise
from sttrl.questions.answers.reading import read_answer, read_label

__all__ = [
    "Judge",
    "JudgeConfig",
    "JudgeStatistics",
    "Limits",
    "NoVerdict",
    "exceeded",
    "extract",
    "normalise",
    "read_answer",
    "read_label",
]
