"""Threshold search against the results of four published systems on explicit models."""

from __future__ import annotations

import math
from typing import Any

import pytest
from explicit_model import ExplicitPolicy, Model, depth_first, log_softmax
from golden import cases
from test_search import TOLERANCE, replies, search

from sttrl.arc.search import Ask, SearchConfig, ThresholdConfig

CASES = cases("dfs")


def model_of(file: dict[str, Any], name: str) -> Model:
    definition, vocab, eos = file["models"][name], file["vocab"], file["eos"]

    def table(sequence: tuple[int, ...], begin: int) -> list[float]:
        row = definition["probs"][sequence[-1]]
        return log_softmax([math.log(p) if p > 0 else -1e9 for p in row])

    def hashed(sequence: tuple[int, ...], begin: int) -> list[float]:
        length, last, before = len(sequence), sequence[-1], sequence[-2] if len(sequence) > 1 else 0
        logits = []
        for t in range(vocab):
            h = (37 * last + 101 * before + 53 * length + 17 * t + 29 * last * t + 7 * t * t + definition["salt"]) % 211
            bonus = definition["eos_slope"] * (length - begin - definition["eos_from"]) if t == eos else 0.0
            logits.append(definition["scale"] * h / 211 + bonus)
        return log_softmax(logits)

    return table if definition["kind"] == "table" else hashed


def expected(entries: list[dict[str, Any]]) -> Any:
    return pytest.approx({tuple(entry["tokens"]): entry["nll"] for entry in entries}, abs=TOLERANCE)


@pytest.mark.parametrize(("file", "case"), CASES, ids=range(len(CASES)))
def test_the_same_replies_as_the_published_systems(file: dict[str, Any], case: dict[str, Any]) -> None:
    ends = frozenset({file["eos"]})
    model = model_of(file, case["model"])
    prompts = [tuple(prompt) for prompt in case.get("prompts", [case.get("prompt")])]
    policy = ExplicitPolicy(model, prompts, ends)

    def found(
        allowed: list[int] | None = None, guesses: tuple[tuple[int, ...], ...] = (), **settings: Any
    ) -> list[dict[tuple[int, ...], float]]:
        config = SearchConfig(
            max_tokens=case["max_new_tokens"],
            end_T=ends,
            allowed=None if allowed is None else frozenset(allowed),
            threshold=ThresholdConfig(min_prob=case["min_prob"], **settings),
        )
        asks = [Ask(prompt_T=prompt, guess_G=guesses) for prompt in prompts]
        results = search("threshold", policy, asks, config)
        assert not any(result.cut for result in results)
        return [replies(result) for result in results]

    if case.get("op") == "nvarc_batched":
        assert found(case["allowed"]) == list(map(expected, case["expected"]))
    elif case.get("op") == "kaggle_min_prob_greedy":
        assert found(min_prob_greedy=case["min_prob_greedy"]) == [expected(case["expected"])]
    else:
        assert "op" not in case
        assert found() == [expected(case["expected"])]
        assert depth_first(model, prompts[0], case["max_new_tokens"], case["min_prob"], ends) == expected(case["expected"])
        guesses = {name: tuple(guess["guess"]) for name, guess in case["with_guess"].items()}
        for guess in guesses.values():
            assert found(guesses=(guess,)) == [expected(case["expected"])]
        assert found(guesses=tuple(guesses.values())) == [expected(case["expected"])]
        restricted = case["nvarc_restricted"]
        assert found(restricted["allowed"]) == [expected(case["expected"] if restricted["same_as_full"] else restricted["expected"])]
        (greedy,) = search("greedy", policy, [Ask(prompt_T=prompts[0])], SearchConfig(max_tokens=case["max_new_tokens"], end_T=ends))
        assert list(greedy.reply_G[0].token_T) == case["greedy"]
