"""Seeded sampling inside vLLM: every request has random numbers of its own, so its response does not depend on other requests.

A request carries its seed, temperature and top-p in ``extra_args``. The generator Philox, keyed by the seed, makes uniform numbers for
every token, and a token is drawn by inverting the cumulative distribution. vLLM's own seeds are slower: they call a generator for each
request at every step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import LogitsProcessor
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from sttrl.engine.names import BIAS, BIAS_FILE, EXTRA_KEY, LOWEST, STOP, TOP

DRAWS = 5
"""Uniform numbers for each token: more than one, because top-p may reject a draw."""
CUT = 1e30
"""The logit of the end token where a response is cut because it is too unlikely. No log-probability is so large."""
BLOCK = 256
"""Tokens of a block. The cumulative sum runs over the sums of blocks and then inside one block, which is faster than over all tokens."""


class _Row:
    """One request in the batch. ``output``: vLLM's own list of its tokens, which grows."""

    def __init__(self, extra: dict[str, Any], max_tokens: int, output: list[int]) -> None:
        self.uniform_T = np.random.Generator(np.random.Philox(key=extra["seed"])).random((max_tokens, DRAWS), dtype=np.float32)
        self.temperature, self.top_p, self.output = extra["temperature"], extra["top_p"], output
        self.bias_file: str | None = extra.get(BIAS_FILE)
        self.shows_top: bool = extra.get(TOP, 0) > 0
        self.lowest: float | None = extra.get(LOWEST)
        self.stop_token: int = extra.get(STOP, 0)
        self.logprob_T: list[float] = []

    @property
    def uniform(self) -> np.ndarray[Any, Any]:
        return self.uniform_T[len(self.output)]

    def becomes_too_unlikely(self, logprob: float) -> bool:
        """Whether the response is cut before a token with this log-probability.

        vLLM may compute a prompt in several parts. It then draws a token after each part and discards it, and ``output`` does not grow.
        The log-probability of such a token does not count.
        """
        if self.lowest is None:
            return False
        del self.logprob_T[len(self.output) :]
        self.logprob_T.append(logprob)
        return math.fsum(self.logprob_T) < self.lowest


class SeededSampling(LogitsProcessor):
    """Draws the token of every request, and sets all other logits to minus infinity. The logit of the drawn token is its log-probability.

    vLLM runs greedily (``temperature=0``), so it takes the drawn token, and with ``logprobs_mode="processed_logits"`` it reports that
    logit: log p at the request's temperature, before top-p. A request that asks for its likeliest tokens keeps the log-probabilities of all
    tokens instead. There the drawn token gets minus its log-probability, which is the greatest value; the reader changes the sign back.
    A response that becomes too unlikely gets an end token with the logit `CUT`.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self.rows: dict[int, _Row] = {}
        self.bias_of: dict[str, torch.Tensor] = {}

    def is_argmax_invariant(self) -> bool:
        """vLLM must call `apply` for greedy requests too."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow the changes of vLLM's batch: first requests that were removed, then added, then moved."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self.rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            self.rows.pop(index, None)
            extra: dict[str, Any] | None = (params.extra_args or {}).get(EXTRA_KEY)
            if extra is not None:
                self.rows[index] = _Row(extra, params.max_tokens or 1, output)
        for source, target, direction in batch_update.moved:
            moved, displaced = self.rows.pop(source, None), self.rows.pop(target, None)
            if moved is not None:
                self.rows[target] = moved
            if direction == MoveDirectionality.SWAP and displaced is not None:
                self.rows[source] = displaced
        self._keep_biases()

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Draw a token for each request of ours and rewrite its row, in place. ``logits``: ``[rows, V]`` in float32."""
        indices = sorted(i for i in self.rows if i < logits.shape[0])
        if not indices:
            return logits
        rows = [self.rows[i] for i in indices]
        at = torch.tensor(indices, device=logits.device)
        mine = logits if len(indices) == logits.shape[0] else logits[at]
        mine = self._biased(mine, rows)
        temperature = torch.tensor([r.temperature for r in rows], device=logits.device)
        uniform = torch.from_numpy(np.stack([r.uniform for r in rows])).to(logits.device)
        top_p = torch.tensor([r.top_p for r in rows], device=logits.device)
        token, logprob = choose(mine, temperature, top_p, uniform)
        shows = torch.tensor([r.shows_top for r in rows], device=logits.device)
        shown = logprobs(mine[shows], temperature[shows]) if any(r.shows_top for r in rows) else None
        if len(indices) == logits.shape[0]:
            logits.fill_(float("-inf"))
        else:
            logits.index_fill_(0, at, float("-inf"))
        if shown is not None:
            logits[at[shows]] = shown
        logits[at, token] = torch.where(shows, -logprob, logprob)
        if any(r.lowest is not None for r in rows):
            cut = [(i, r.stop_token) for i, r, p in zip(indices, rows, logprob.tolist(), strict=True) if r.becomes_too_unlikely(p)]
            for index, stop_token in cut:
                logits[index, stop_token] = CUT
        return logits

    def _keep_biases(self) -> None:
        """Keep the logit biases of the requests in the batch only. A bias is read from its file when its first request comes."""
        files = {row.bias_file for row in self.rows.values() if row.bias_file is not None}
        self.bias_of = {file: self.bias_of[file] if file in self.bias_of else read_bias(file) for file in files}

    def _biased(self, logits: torch.Tensor, rows: list[_Row]) -> torch.Tensor:
        """Each row's logits with its own bias added, as a new tensor. ``logits``: ``[rows, V]``."""
        if not self.bias_of:
            return logits
        zero = torch.zeros(logits.shape[1])
        bias = torch.stack([zero if r.bias_file is None else self.bias_of[r.bias_file] for r in rows])
        return logits + bias.to(logits.device)


def read_bias(file: str) -> torch.Tensor:
    """The logit bias ``[V]`` in a file that a vector fork has written."""
    with safe_open(file, framework="pt") as tensors:
        return torch.as_tensor(tensors.get_tensor(BIAS))


def choose(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token for each row by inverting the cumulative distribution.

    ``logits`` ``[R, V]``; ``temperature`` (0 is greedy) and ``top_p`` ``[R]``; ``uniform`` ``[R, DRAWS]``. Returns the
    tokens ``[R]`` and their log-probabilities ``[R]`` at the temperature, before top-p; a greedy row is scored at
    temperature 1.
    """
    greedy = temperature <= 0
    probability = _probability(logits, torch.where(greedy, 1.0, temperature))
    token = _invert(probability, uniform[:, 0])
    if bool((top_p < 1).any()):
        token = _nucleus(probability, top_p, uniform, token)
    if bool(greedy.any()):
        token = torch.where(greedy, logits.argmax(dim=-1), token)
    token = token.clamp(max=logits.shape[1] - 1)  # NaN logits may lead into the padding of the last block
    return token, probability.gather(1, token[:, None])[:, 0].log()


def logprobs(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Log-probabilities ``[R, V]`` at each row's temperature ``[R]``; a greedy row is scored at temperature 1."""
    return torch.log_softmax(logits / torch.where(temperature <= 0, 1.0, temperature)[:, None], dim=-1)


def _probability(logits: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Softmax at each row's temperature, padded with zeros to whole blocks. On CPU a few rows at a time, so that they stay in the cache."""
    width = logits.shape[1]
    probability = logits.new_zeros(len(logits), -(-width // BLOCK) * BLOCK)
    at_once = len(logits) if logits.is_cuda else max(1, (1 << 18) // width)
    for start in range(0, len(logits), at_once):
        rows = slice(start, start + at_once)
        probability[rows, :width] = torch.softmax(logits[rows] / temperature[rows, None], dim=-1)
    return probability


def _invert(weight: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """The first token where the cumulative sum of ``weight`` exceeds ``uniform`` times the total: first its block, then its place there."""
    blocks = weight.unflatten(1, (-1, BLOCK))
    upto = blocks.sum(dim=-1).cumsum(dim=-1)
    block, rest = _first_above(upto, uniform * upto[:, -1])
    token, _ = _first_above(blocks[torch.arange(len(blocks), device=blocks.device), block].cumsum(dim=-1), rest)
    return block * BLOCK + token


def _first_above(cumulative: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of the first sum above the target ``[R]``, and the target less the sum before it.

    Rounding may have made the target as large as the last sum: it is then lowered a little. Where the sums are NaN, the index is any.
    """
    below = torch.minimum(target, torch.nextafter(cumulative[:, -1], cumulative.new_zeros(())))[:, None]
    found = torch.searchsorted(cumulative, below, right=True).clamp_(max=cumulative.shape[1] - 1)
    before = torch.where(found > 0, cumulative.gather(1, (found - 1).clamp(min=0)), 0.0)
    return found[:, 0], (below - before)[:, 0]


def _nucleus(probability: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Top-p (Holtzman 2020) by rejection: draw again while the token is outside the smallest set of tokens with mass ``top_p``.

    Sorting the vocabulary takes about twenty times as long as a draw. Only rows whose every draw was rejected are sorted.
    """
    outside = _outside(probability, top_p, token).nonzero()[:, 0]
    for draw in range(1, DRAWS - 1):
        if not len(outside):
            return token
        token[outside] = _invert(probability[outside], uniform[outside, draw])
        outside = outside[_outside(probability[outside], top_p[outside], token[outside])]
    if len(outside):
        ordered, order = probability[outside].sort(dim=-1, descending=True)
        kept = ordered * (ordered.cumsum(dim=-1) - ordered < top_p[outside, None])
        token[outside] = order.gather(1, _invert(kept, uniform[outside, -1])[:, None])[:, 0]
    return token


def _outside(probability: torch.Tensor, top_p: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """Whether the tokens that are more likely than this one already have the mass ``top_p``."""
    own = probability.gather(1, token[:, None])
    return (probability * (probability > own)).sum(dim=-1) >= top_p
