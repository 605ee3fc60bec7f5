"""All replies with a probability strictly above p, exactly, from an engine that returns the likeliest tokens at each position.

A prompt is decoded greedily to the end, or until its path does not clear the threshold any more. At every position, every other token
whose path still clears it starts a branch, which is decoded greedily in the next round, and so on until no branch is open. So there are as
many requests as leaves, not as nodes, and the branches of all prompts of a round are one batch. The published systems walk token by token
(ARChitects 2024, da-fr/arc-prize-2024).

k = ceil(1/p) tokens a position suffice: a token on a wanted path has a conditional probability above p, because no factor of the path's
probability exceeds 1. The probabilities at a position sum to 1, so fewer than 1/p tokens are above p, and they are among the k likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sttrl.arc.search.base import Ask, Cut, CutReason, Found, Reply, Sampler, SearchConfig, never
from sttrl.types import MOST_TOP_LOGPROBS, Request, Rollout, Sampling, TopTokens


async def threshold_search(
    policy: Sampler, asks: Sequence[Ask], config: SearchConfig, *, out_of_time: Callable[[], bool] = never
) -> tuple[Found, ...]:
    """All replies that end and have a probability strictly above ``config.threshold.min_prob``, the likeliest first.

    Guesses only save decoding: the replies are the same without them. If more than `MOST_TOP_LOGPROBS` tokens may qualify at a position,
    each position is checked, and what it may have missed is reported as cut.
    """
    trees = [_Tree(ask, config) for ask in asks]
    while not out_of_time():
        batch = [(tree, path) for tree in trees for path in tree.take()]
        if not batch:
            return tuple(tree.found() for tree in trees)
        rollouts = await policy.sample([tree.request(path) for tree, path in batch])
        for (tree, path), rollout in zip(batch, rollouts, strict=True):
            tree.answered(path, rollout)
    return tuple(tree.found(out_of_time=True) for tree in trees)


ROUNDING = 1e-3
"""Nats by which the engine may let a path fall below the threshold: its sum of log-probs is rounded otherwise than the search's."""


@dataclass(frozen=True, kw_only=True)
class _Branch:
    """The beginning of a reply. ``likeliest``: each of its tokens was the likeliest one."""

    token_T: tuple[int, ...] = ()
    logprob_T: tuple[float, ...] = ()
    nll: float = 0.0
    likeliest: bool = True

    def then(self, token: int, logprob: float, top: TopTokens) -> _Branch:
        """The beginning with one more token; ``top``: the likeliest tokens at its position."""
        return _Branch(
            token_T=(*self.token_T, token),
            logprob_T=(*self.logprob_T, logprob),
            nll=self.nll - logprob,
            likeliest=self.likeliest and token == top[0][0],
        )


@dataclass(frozen=True, kw_only=True)
class _Path:
    """A branch that is followed: by decoding at most ``room`` tokens, or along ``given_T``, the rest of a guess."""

    branch: _Branch
    room: int
    given_T: tuple[int, ...] = ()


class _Tree:
    """What is known of the replies to one prompt: those found, and the branches that are open."""

    def __init__(self, ask: Ask, config: SearchConfig) -> None:
        self.ask, self.config = ask, config
        self.limit = -math.log(config.threshold.min_prob)
        self.greedy_limit = max(self.limit, -math.log(config.threshold.min_prob_greedy or 1.0))
        self.top_logprobs = min(math.ceil(1 / config.threshold.min_prob), MOST_TOP_LOGPROBS)
        self.open = [_Branch()] if config.max_tokens > 0 else []
        self.replies: list[Reply] = []
        self.no_room: list[float] = []
        self.unlisted: list[float] = []
        self.requests = self.tokens = 0

    def take(self) -> list[_Path]:
        """Take the branches that are followed next, the likeliest first, as far as the limits go."""
        self.open.sort(key=lambda branch: (branch.nll, branch.token_T))
        limits = self.config.limits
        count = len(self.open) if limits.requests is None else max(limits.requests - self.requests, 0)
        left = math.inf if limits.tokens is None else limits.tokens - self.tokens
        taken: list[_Path] = []
        while self.open and len(taken) < count and left > 0:
            branch = self.open.pop(0)
            given_T = self.rest_of_guess(branch)
            room = int(min(self.config.max_tokens - len(branch.token_T), left))
            taken.append(_Path(branch=branch, room=len(given_T) or room, given_T=given_T))
            left -= 0 if given_T else room
        self.requests += len(taken)
        return taken

    def rest_of_guess(self, branch: _Branch) -> tuple[int, ...]:
        """The rest of the first guess that begins with the branch; nothing if there is none."""
        done = len(branch.token_T)
        whole = (guess[: self.config.max_tokens] for guess in self.ask.guess_G if guess[:done] == branch.token_T)
        return next((guess[done:] for guess in whole if len(guess) > done), ())

    def request(self, path: _Path) -> Request:
        """The request that follows a branch."""
        lowest = path.branch.nll - self.limit_of(path.branch) - ROUNDING
        sampling = Sampling(temperature=0.0, max_tokens=path.room, top_logprobs=self.top_logprobs, lowest_logprob=lowest)
        return Request(prompt_T=(*self.ask.prompt_T, *path.branch.token_T), sampling=sampling, seed=0, given_T=path.given_T)

    def answered(self, path: _Path, rollout: Rollout) -> None:
        """Take in what the engine decoded, or what it says of a guess."""
        self.tokens += 0 if path.given_T else len(rollout.token_T)
        rest = self.follow(path.branch, rollout.token_T, rollout.logprob_T, rollout.top_T)
        if rest is None or rollout.finish == "unlikely":
            return
        if rollout.finish == "stop":
            raise ValueError(f"the engine ended a response at token {rollout.token_T[-1:]}, which is not among the end tokens")
        if len(rollout.token_T) < path.room:
            self.no_room.append(math.exp(-rest.nll))
        else:
            self.open.append(rest)

    def follow(self, branch: _Branch, token_T: Sequence[int], logprob_T: Sequence[float], top_T: Sequence[TopTokens]) -> _Branch | None:
        """Walk along a path and open a branch at every other token that clears the threshold; what is to be decoded after its end."""
        for token, logprob, top in zip(token_T, logprob_T, top_T, strict=True):
            others = [pair for pair in top if pair[0] != token and branch.nll - pair[1] < self.greedy_limit]
            self.open += [other for pair in others if self._lives(other := branch.then(*pair, top))]
            self._count_unlisted(branch, top)
            branch = branch.then(token, logprob, top)
            if not self._lives(branch):
                return None
        return branch

    def limit_of(self, branch: _Branch) -> float:
        """The NLL below which a branch must stay."""
        return self.greedy_limit if branch.likeliest else self.limit

    def _lives(self, branch: _Branch) -> bool:
        """Whether a branch is to be decoded. One that has ended is a reply."""
        if not (branch.nll < self.limit_of(branch) and self.config.allows(branch.token_T[-1])):
            return False
        if branch.token_T[-1] in self.config.end_T:
            self.replies.append(Reply(token_T=branch.token_T, logprob_T=branch.logprob_T))
            return False
        return len(branch.token_T) < self.config.max_tokens

    def _count_unlisted(self, branch: _Branch, top: TopTokens) -> None:
        """Note a position where a token that is not listed may clear the threshold: it is no likelier than the last one and the rest."""
        if self.config.allowed is not None and self.config.allowed <= {token for token, _ in top}:
            return
        rest = max(1 - math.fsum(math.exp(logprob) for _, logprob in top), 0.0)
        if math.exp(-branch.nll) * min(rest, math.exp(top[-1][1])) > self.config.threshold.min_prob:
            self.unlisted.append(math.exp(-branch.nll) * rest)

    def found(self, out_of_time: bool = False) -> Found:
        """The result. Open branches are what a limit has cut."""
        requests, tokens = self.config.limits.requests, self.config.limits.tokens
        no_requests = requests is not None and self.requests >= requests
        no_tokens = tokens is not None and self.tokens >= tokens
        reason: CutReason = "requests" if no_requests else "tokens" if no_tokens or not out_of_time else "time"
        masses = {reason: [math.exp(-branch.nll) for branch in self.open], "context": self.no_room, "top_logprobs": self.unlisted}
        return Found(
            reply_G=tuple(sorted(self.replies, key=lambda reply: (reply.nll, reply.token_T))),
            cut=tuple(Cut(reason=why, branches=len(mass), mass=min(math.fsum(mass), 1.0)) for why, mass in masses.items() if mass),
            requests=self.requests,
            tokens=self.tokens,
        )
