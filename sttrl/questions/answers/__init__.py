"""From text to ballots: extract, limit, normalise, compare. Importing this room loads no heavy package.

A sample's text goes through `reading.read_answer` (extract -> limits -> normalise), and the distinct normal forms
of a group through `judge.Judge`, which asks killable worker processes what exact rules cannot decide.
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
