"""Independent samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sttrl.arc.search.base import Ask, Cut, CutReason, Found, Reply, Sampler, SearchConfig, never
from sttrl.types import Request, Rollout, Sampling


async def sample_search(
    policy: Sampler, asks: Sequence[Ask], config: SearchConfig, *, out_of_time: Callable[[], bool] = never
) -> tuple[Found, ...]:
    """A sample for each seed of each prompt, in one batch, as far as the limit on requests goes; equal samples are kept.

    Log-probs are those at the sampling temperature. A sample with a forbidden token is left out, which samples exactly from the replies of
    allowed tokens. Samples are not decoded in parts, so the limit on tokens shortens each of them instead.
    """
    seeds = [() if out_of_time() else ask.seed_G[: config.limits.requests] for ask in asks]
    requests = [_request(ask, config, seed, len(seed_G)) for ask, seed_G in zip(asks, seeds, strict=True) for seed in seed_G]
    rollouts = iter(await policy.sample(requests) if requests else ())
    return tuple(_found(ask, config, [next(rollouts) for _ in seed_G]) for ask, seed_G in zip(asks, seeds, strict=True))


def _request(ask: Ask, config: SearchConfig, seed: int, samples: int) -> Request:
    tokens = config.limits.tokens
    room = config.max_tokens if tokens is None else min(config.max_tokens, max(tokens // samples, 1))
    sampling = Sampling(temperature=config.sample.temperature, top_p=config.sample.top_p, max_tokens=room)
    return Request(prompt_T=ask.prompt_T, sampling=sampling, seed=seed)


def _found(ask: Ask, config: SearchConfig, rollouts: Sequence[Rollout]) -> Found:
    kept = [rollout for rollout in rollouts if all(map(config.allows, rollout.token_T))]
    cuts: tuple[tuple[CutReason, int], ...] = (
        ("forbidden", len(rollouts) - len(kept)),
        ("requests" if rollouts else "time", len(ask.seed_G) - len(rollouts)),
    )
    return Found(
        reply_G=tuple(Reply(token_T=r.token_T, logprob_T=r.logprob_T, ended=_ended(r, config)) for r in kept),
        cut=tuple(Cut(reason=reason, branches=n, mass=1.0) for reason, n in cuts if n),
        requests=len(rollouts),
        tokens=sum(len(rollout.token_T) for rollout in rollouts),
    )


def _ended(rollout: Rollout, config: SearchConfig) -> bool:
    return bool(rollout.token_T) and rollout.token_T[-1] in config.end_T
