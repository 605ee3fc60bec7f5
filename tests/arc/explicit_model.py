"""Explicit models: a function from a sequence to the log-probs of the next token, and a policy that answers from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sttrl.types import FinishReason, Request, Rollout, TopTokens

Model = Callable[[tuple[int, ...], int], list[float]]
"""(prompt and reply so far, length of the prompt) -> log-prob of every token."""


def log_softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    total = top + math.log(math.fsum(math.exp(x - top) for x in logits))
    return [x - total for x in logits]


class ExplicitPolicy:
    """Answers greedily, with the likeliest tokens. ``prompts``: the prompts of the searches, to know where a reply begins."""

    def __init__(self, model: Model, prompts: Sequence[tuple[int, ...]], ends: frozenset[int], context: int = 10_000) -> None:
        self.model, self.prompts, self.ends, self.context = model, prompts, ends, context
        self.batches: list[tuple[Request, ...]] = []

    @property
    def requests(self) -> list[Request]:
        return [request for batch in self.batches for request in batch]

    async def sample(self, requests: Sequence[Request]) -> tuple[Rollout, ...]:
        self.batches.append(tuple(requests))
        return tuple(map(self.answer, requests))

    def start_of(self, sequence: tuple[int, ...]) -> int:
        return next(len(prompt) for prompt in self.prompts if sequence[: len(prompt)] == prompt)

    def top(self, sequence: tuple[int, ...], k: int) -> TopTokens:
        logprob_V = self.model(sequence, self.start_of(sequence))
        return tuple(sorted(enumerate(logprob_V), key=lambda pair: (-pair[1], pair[0]))[:k])

    def answer(self, request: Request) -> Rollout:
        assert request.sampling.temperature == 0 and request.sampling.max_tokens > 0
        sequence, token_T, logprob_T, top_T = request.prompt_T, [], [], []
        while len(token_T) < request.sampling.max_tokens and len(sequence) < self.context:
            token, logprob = self.top(sequence, 1)[0]
            if request.given_T:
                token = request.given_T[len(token_T)]
                logprob = self.model(sequence, self.start_of(sequence))[token]
            lowest = request.sampling.lowest_logprob
            if lowest is not None and not request.given_T and math.fsum(logprob_T) + logprob < lowest:
                return self.rollout(request, token_T, logprob_T, top_T, "unlikely")
            top_T.append(self.top(sequence, request.sampling.top_logprobs))
            token_T.append(token)
            logprob_T.append(logprob)
            sequence = (*sequence, token)
            if token in self.ends:
                break
        finish = "stop" if token_T and token_T[-1] in self.ends else "length"
        return self.rollout(request, token_T, logprob_T, top_T, finish)

    def rollout(
        self, request: Request, token_T: list[int], logprob_T: list[float], top_T: list[TopTokens], finish: FinishReason
    ) -> Rollout:
        return Rollout(
            seed=request.seed, version=0, token_T=tuple(token_T), logprob_T=tuple(logprob_T), finish=finish, text="", top_T=tuple(top_T)
        )


def depth_first(
    model: Model, prompt: tuple[int, ...], max_tokens: int, min_prob: float, ends: frozenset[int], allowed: frozenset[int] | None = None
) -> dict[tuple[int, ...], float]:
    """The plain search, token by token: every reply that ends, with an NLL strictly below the limit."""
    found: dict[tuple[int, ...], float] = {}

    def visit(reply: tuple[int, ...], nll: float) -> None:
        for token, logprob in enumerate(model((*prompt, *reply), len(prompt))):
            if (allowed is None or token in allowed) and nll - logprob < -math.log(min_prob):
                if token in ends:
                    found[(*reply, token)] = nll - logprob
                elif len(reply) + 1 < max_tokens:
                    visit((*reply, token), nll - logprob)

    if max_tokens > 0:
        visit((), 0.0)
    return found
