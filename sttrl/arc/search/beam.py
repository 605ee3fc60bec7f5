"""Beam search by the sum of log-probs, without a length penalty: one token a step for all beams of all prompts in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sttrl.arc.search.base import Ask, Cut, CutReason, Found, Reply, Sampler, SearchConfig, never
from sttrl.types import MOST_TOP_LOGPROBS, Request, Rollout, Sampling


async def beam_search(
    policy: Sampler, asks: Sequence[Ask], config: SearchConfig, *, out_of_time: Callable[[], bool] = never
) -> tuple[Found, ...]:
    """The ``config.beam.width`` likeliest replies that the beams reach.

    Every step keeps the ``width`` likeliest beginnings that have not ended, and the ``width`` likeliest replies. A prompt is done when no
    beginning is likelier than the last of its replies.
    """
    beams = [_Beams(ask, config) for ask in asks]
    while (going := [beam for beam in beams if beam.may_go_on]) and not out_of_time():
        requests = [request for beam in going for request in beam.requests_now()]
        rollouts = iter(await policy.sample(requests))
        for beam in going:
            beam.step([next(rollouts) for _ in beam.open])
    return tuple(beam.found() for beam in beams)


class _Beams:
    """The beginnings that are kept for one prompt, and its replies."""

    def __init__(self, ask: Ask, config: SearchConfig) -> None:
        self.ask, self.config, self.width = ask, config, config.beam.width
        self.open = [Reply(token_T=(), logprob_T=(), ended=False)] if config.max_tokens > 0 else []
        self.replies: list[Reply] = []
        self.no_room: list[float] = []
        self.requests = 0

    @property
    def may_go_on(self) -> bool:
        """Whether beginnings are open, and the limits allow another step. A step costs a request and a token for each beginning."""
        limits = (self.config.limits.requests, self.config.limits.tokens)
        return bool(self.open) and all(limit is None or self.requests + len(self.open) <= limit for limit in limits)

    def requests_now(self) -> list[Request]:
        """A request of one token for each beginning."""
        enough = self.width + len(self.config.end_T) if self.config.allowed is None else MOST_TOP_LOGPROBS
        sampling = Sampling(temperature=0.0, max_tokens=1, top_logprobs=min(enough, MOST_TOP_LOGPROBS))
        return [Request(prompt_T=(*self.ask.prompt_T, *beam.token_T), sampling=sampling, seed=0) for beam in self.open]

    def step(self, rollouts: Sequence[Rollout]) -> None:
        """Lengthen every beginning by each of its likeliest tokens, and keep the best."""
        self.requests += len(rollouts)
        self.no_room += [math.exp(-beam.nll) for beam, rollout in zip(self.open, rollouts, strict=True) if not rollout.top_T]
        longer = [
            Reply(token_T=(*beam.token_T, token), logprob_T=(*beam.logprob_T, logprob), ended=token in self.config.end_T)
            for beam, rollout in zip(self.open, rollouts, strict=True)
            for top in rollout.top_T
            for token, logprob in top
            if self.config.allows(token)
        ]
        self.replies = self._best([*self.replies, *(reply for reply in longer if reply.ended)])
        worst = self.replies[-1].nll if len(self.replies) == self.width else math.inf
        going = [reply for reply in longer if not reply.ended and reply.nll < worst and len(reply.token_T) < self.config.max_tokens]
        self.open = self._best(going)

    def _best(self, replies: Sequence[Reply]) -> list[Reply]:
        return sorted(replies, key=lambda reply: (reply.nll, reply.token_T))[: self.width]

    def found(self) -> Found:
        """The replies. Beginnings that are open are what a limit has cut."""
        requests, tokens = self.config.limits.requests, self.config.limits.tokens
        needed = self.requests + len(self.open)
        reason: CutReason = (
            "requests" if requests is not None and needed > requests else "tokens" if tokens is not None and needed > tokens else "time"
        )
        masses = {reason: [math.exp(-beam.nll) for beam in self.open], "context": self.no_room}
        cut = tuple(Cut(reason=why, branches=len(mass), mass=min(math.fsum(mass), 1.0)) for why, mass in masses.items() if mass)
        return Found(reply_G=tuple(self.replies), cut=cut, requests=self.requests, tokens=self.requests)
