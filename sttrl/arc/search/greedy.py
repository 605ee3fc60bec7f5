"""The likeliest token at every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sttrl.arc.search.base import Ask, Cut, Found, Reply, Sampler, SearchConfig, never
from sttrl.types import MOST_TOP_LOGPROBS, Request, Rollout, Sampling


async def greedy_search(
    policy: Sampler, asks: Sequence[Ask], config: SearchConfig, *, out_of_time: Callable[[], bool] = never
) -> tuple[Found, ...]:
    """One greedy reply to each prompt, or none where a limit cuts it.

    Where the likeliest token is forbidden, the likeliest allowed one takes its place, and the rest is decoded again. If it is not among
    the `MOST_TOP_LOGPROBS` likeliest tokens, there is no reply.
    """
    paths = [_Path(ask, config) for ask in asks]
    while (going := [path for path in paths if path.goes_on]) and not out_of_time():
        rollouts = await policy.sample([path.request() for path in going])
        for path, rollout in zip(going, rollouts, strict=True):
            path.decoded(rollout)
    return tuple(path.found() for path in paths)


class _Path:
    """The reply to one prompt as far as it is decoded."""

    def __init__(self, ask: Ask, config: SearchConfig) -> None:
        self.ask, self.config = ask, config
        self.reply = Reply(token_T=(), logprob_T=(), ended=False)
        self.requests = self.tokens = 0
        self.lost = False

    @property
    def room(self) -> int:
        """The tokens that a request may have."""
        tokens = self.config.limits.tokens
        whole = self.config.max_tokens - len(self.reply.token_T)
        return whole if tokens is None else min(whole, tokens - self.tokens)

    @property
    def goes_on(self) -> bool:
        """Whether the reply needs another request, and the limits allow it."""
        requests = self.config.limits.requests
        return not (self.lost or self.reply.ended) and self.room > 0 and (requests is None or self.requests < requests)

    def request(self) -> Request:
        """The request for the rest of the reply."""
        self.requests += 1
        top_logprobs = 0 if self.config.allowed is None else MOST_TOP_LOGPROBS
        sampling = Sampling(temperature=0.0, max_tokens=self.room, top_logprobs=top_logprobs)
        return Request(prompt_T=(*self.ask.prompt_T, *self.reply.token_T), sampling=sampling, seed=0)

    def decoded(self, rollout: Rollout) -> None:
        """Take in what the engine decoded, up to the first forbidden token."""
        asked, before = self.room, self.tokens
        for place, (token, logprob) in enumerate(zip(rollout.token_T, rollout.logprob_T, strict=True)):
            if self.config.allows(token):
                self._add(token, logprob)
                continue
            likeliest = next((pair for pair in rollout.top_T[place] if self.config.allows(pair[0])), None)
            self.lost = likeliest is None
            if likeliest is not None:
                self._add(*likeliest)
            break
        else:
            self.lost = not self.reply.ended and len(rollout.token_T) < asked
        self.tokens = before + len(rollout.token_T)

    def _add(self, token: int, logprob: float) -> None:
        token_T, logprob_T = (*self.reply.token_T, token), (*self.reply.logprob_T, logprob)
        self.reply = Reply(token_T=token_T, logprob_T=logprob_T, ended=token in self.config.end_T)

    def found(self) -> Found:
        """The reply, also one that was cut at ``max_tokens``, but not one that a limit cut."""
        limits = self.config.limits
        if self.reply.ended or len(self.reply.token_T) >= self.config.max_tokens:
            return Found(reply_G=(self.reply,), requests=self.requests, tokens=self.tokens)
        no_requests = limits.requests is not None and self.requests >= limits.requests
        no_tokens = limits.tokens is not None and self.tokens >= limits.tokens
        reason: Cut = Cut(
            reason="context" if self.lost else "tokens" if no_tokens else "requests" if no_requests else "time", branches=1, mass=1.0
        )
        return Found(reply_G=(), cut=(reason,), requests=self.requests, tokens=self.tokens)
