"""The kind of problem "text question": prompts, labels, and how the text of a response becomes an answer and a ballot."""

from __future__ import annotations

from sttrl.questions.check import describe
from sttrl.questions.prompts import build_problem, build_problems

__all__ = ["build_problem", "build_problems", "describe"]
