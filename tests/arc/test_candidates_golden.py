"""Candidates and the product of experts against what two published systems made of the same scripted replies."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from golden import cases

from sttrl.arc.candidates import GUESSES, ViewReplies, candidates_of, read_replies
from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.experts import Expert, score_experts
from sttrl.arc.grids import Grid, as_grid
from sttrl.engine.base import JUST_LOGPROBS
from sttrl.types import Measure, TokenStats, TrainGroup

CASES = cases("candidates")


class View:
    """A view as its key describes it: transforms from left to right, colours, and the order of the demonstrations."""

    def __init__(self, key: str) -> None:
        self.steps = key.split(".")[1:]
        self.order = next(([int(n) for n in step[2:].split("-")] for step in self.steps if step.startswith("ex")), None)

    def apply(self, grid: Grid) -> Grid:
        array = np.array(grid)
        for step in self.steps:
            array = array.T if step == "tp" else np.rot90(array) if step == "rt" else array
            array = np.array([int(c) for c in step[4:]])[array] if step.startswith("perm") else array
        return as_grid(array.tolist())

    def invert(self, grid: Grid) -> Grid:
        array = np.array(grid)
        for step in reversed(self.steps):
            array = array.T if step == "tp" else np.rot90(array, -1) if step == "rt" else array
            array = np.argsort([int(c) for c in step[4:]])[array] if step.startswith("perm") else array
        return as_grid(array.tolist())


def rows(grid: Grid) -> str:
    return "\n".join("".join(map(str, row)) for row in grid)


def read(reply: str) -> Grid | Unreadable:
    lines = [line for line in reply.split("<|")[0].split("\n") if line]
    if not lines or any(not re.fullmatch("[0-9]+", line) or len(line) != len(lines[0]) for line in lines):
        return Unreadable(reason="no rectangle of digits")
    return tuple(tuple(map(int, line)) for line in lines)


def reply_text(grid: Grid, options: dict[str, str]) -> str:
    return rows(grid) + options["reply_end"]


def prompt_text(view: View, task: dict[str, Any], test: int, options: dict[str, str]) -> str:
    demos = [task["train"][n] for n in (view.order if view.order is not None else range(len(task["train"])))]
    texts = [
        f"{options['query_beg']}{rows(view.apply(d['input']))}{options['reply_beg']}{reply_text(view.apply(d['output']), options)}"
        for d in demos
    ]
    query = rows(view.apply(task["test"][test]["input"]))
    return f"{options['preprompt']}{''.join(texts)}{options['query_beg']}{query}{options['reply_beg']}"


class TextScorer:
    """Scores with the golden file's explicit function of the texts; a token is a character."""

    calls = 0

    async def score(self, groups: Sequence[TrainGroup], measure: Measure = JUST_LOGPROBS) -> tuple[tuple[TokenStats, ...], ...]:
        self.calls += 1
        return tuple(tuple(self.stats(group.prefix_T, row.token_T) for row in group.row_G) for group in groups)

    def stats(self, prompt_T: tuple[int, ...], reply_T: tuple[int, ...]) -> TokenStats:
        text = "".join(map(chr, prompt_T)) + "|" + "".join(map(chr, reply_T))
        nll = 0.01 + (int(hashlib.md5(text.encode()).hexdigest()[:6], 16) % 50000) / 10000
        return TokenStats(logprob_T=(-nll, *(0.0,) * (len(reply_T) - 1)))


def tokens(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


@pytest.mark.parametrize(("file", "case"), CASES, ids=range(len(CASES)))
def test_candidates_and_guesses(file: dict[str, Any], case: dict[str, Any]) -> None:
    options, finds = file["fmt_opts"], []
    guesses: list[list[Any]] = []
    for key, replies in case["replies"]:
        guess = GUESSES["lowest_nll"](finds)
        guesses.append([key, None if guess is None else reply_text(View(key).apply(guess), options)])
        of_view = ViewReplies(view=key, reply_G=tuple((text, nll) for text, nll in replies), invert=View(key).invert)
        found, bad = read_replies(of_view, read)
        assert len(found) + len(bad) == len(replies)
        finds += found
    assert guesses == case["expected"]["guess_passed"]
    solution = as_grid(file["tasks"][case["task"]]["solutions"][case["reply_num"]])
    candidates = candidates_of(finds)
    assert [(c.grid, c.grid == solution, {f.view: f.nll for f in c.find_F}) for c in candidates] == [
        (as_grid(c["output"]), c["correct"], c["scores_inf"]) for c in case["expected"]["candidates"]
    ]


@pytest.mark.parametrize("system", ["2024", "poe"])
@pytest.mark.parametrize(("file", "case"), CASES, ids=range(len(CASES)))
def test_experts_score_every_candidate_in_one_call(file: dict[str, Any], case: dict[str, Any], system: str) -> None:
    expected, options = case["expected"][f"aug_scores_{system}"], file["fmt_opts"]
    grids = [as_grid(candidate["output"]) for candidate in case["expected"]["candidates"]]
    keys = list(dict.fromkeys(key for scores in expected for key in scores))
    experts = [
        Expert(
            view=key,
            prompt_T=tokens(prompt_text(View(key), file["tasks"][case["task"]], case["reply_num"], options)),
            reply_C=tuple(
                tokens(reply_text(View(key).apply(grid), options)) if key in scores else None
                for grid, scores in zip(grids, expected, strict=True)
            ),
        )
        for key in keys
    ]
    scorer = TextScorer()
    assert list(asyncio.run(score_experts(scorer, experts))) == [pytest.approx(scores) for scores in expected]
    assert scorer.calls == 1
