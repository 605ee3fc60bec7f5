"""The kind "text question": its prompts, its labels, and how texts become answers and ballots."""

from __future__ import annotations

from sttrl.questions.check import describe
from sttrl.questions.prompts import BuiltProblems, build_problem, build_problems

__all__ = ["BuiltProblems", "build_problem", "build_problems", "describe"]
