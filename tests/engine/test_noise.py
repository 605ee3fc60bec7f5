"""Seeded sampling: the right distribution, the right log-probs, and every request its own uniforms wherever vLLM moves it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import TopPLogitsWarper
from vllm import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

from sttrl.engine.names import EXTRA_KEY
from sttrl.engine.vllm.noise import DRAWS, SeededSampling, choose

V = 17


def logits_of(seed: int, rows: int = 1, width: float = 2.0) -> torch.Tensor:
    return width * torch.randn(rows, V, generator=torch.Generator().manual_seed(seed))


def uniforms(seed: int, rows: int) -> torch.Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=seed)).random((rows, DRAWS), dtype=np.float32))


def sampled(logits_V: torch.Tensor, uniform: torch.Tensor, temperature: float = 1.0, top_p: float = 1.0) -> torch.Tensor:
    """One token for every row of uniforms."""
    rows = len(uniform)
    return choose(logits_V.expand(rows, V), torch.full((rows,), temperature), torch.full((rows,), top_p), uniform)[0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_evenly_spread_uniforms_give_every_token_its_probability(temperature: float) -> None:
    logits, n = logits_of(1), 20_000
    even = ((torch.arange(n) + 0.5) / n)[:, None].expand(n, DRAWS)
    share = torch.bincount(sampled(logits, even, temperature), minlength=V) / n
    assert (share - torch.softmax(logits[0] / temperature, 0)).abs().max() < 2 / n


def test_the_token_is_the_inverse_of_the_cumulative_distribution() -> None:
    logits, uniform = logits_of(2), uniforms(5, 300)
    cumulative = torch.softmax(logits[0].double(), 0).cumsum(0)
    expected = torch.searchsorted(cumulative, uniform[:, 0].double(), right=True)
    assert torch.equal(sampled(logits, uniform), expected)


def test_the_ends_of_the_unit_interval_are_tokens_with_probability() -> None:
    logits = torch.full((1, V), float("-inf"))
    logits[0, 3:6] = 0.0
    ends = torch.tensor([[0.0], [np.nextafter(np.float32(1), np.float32(0))]]).expand(2, DRAWS)
    assert sampled(logits, ends).tolist() == [3, 5]


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_logits_that_are_no_numbers_give_a_token_and_no_number(top_p: float) -> None:
    """The learner's gate refuses such a sample; the sampler must live until then."""
    logits = torch.full((3, 300), float("nan"))
    token, logprob = choose(logits, torch.ones(3), torch.full((3,), top_p), uniforms(0, 3))
    assert logprob.isnan().all() and ((token >= 0) & (token < 300)).all()


def test_large_vocabularies_are_inverted_by_blocks() -> None:
    """Of 600 tokens some blocks have no weight at all, and the last is not full."""
    logits = 3 * torch.randn(1, 600, generator=torch.Generator().manual_seed(7))
    logits[0, 200:530] = float("-inf")
    uniform = uniforms(3, 2000)
    found = choose(logits.expand(2000, 600), torch.ones(2000), torch.ones(2000), uniform)[0]
    cumulative = torch.softmax(logits[0].double(), 0).cumsum(0)
    expected = torch.searchsorted(cumulative, uniform[:, 0].double(), right=True)
    near = (uniform[:, :1].double() - cumulative).abs().amin(dim=1) < 1e-6  # where float32 may round to the other side
    assert near.sum() < 20 and torch.equal(found[~near], expected[~near]) and not ((found >= 200) & (found < 530)).any()


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_the_nucleus_is_that_of_vllm_and_of_transformers(seed: int, top_p: float) -> None:
    logits = logits_of(seed)
    seen = set(sampled(logits, uniforms(seed, 40_000), top_p=top_p).tolist())
    vllm = apply_top_k_top_p(logits.clone(), None, torch.tensor([top_p]))
    theirs = {int(i) for i in vllm[0].isfinite().nonzero()[:, 0]}
    assert theirs == {int(i) for i in TopPLogitsWarper(top_p)(None, logits.clone())[0].isfinite().nonzero()[:, 0]}
    probability = torch.softmax(vllm[0], 0)
    assert seen <= theirs and {i for i in theirs if probability[i] > 1e-3} <= seen


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
def test_random_uniforms_follow_the_renormalised_nucleus(top_p: float) -> None:
    logits, n = logits_of(3), 50_000
    kept = torch.softmax(apply_top_k_top_p(logits.clone(), None, torch.tensor([top_p]))[0], 0).double()
    count = torch.bincount(sampled(logits, uniforms(9, n), top_p=top_p), minlength=V)
    inside = kept > 0
    assert int(count[~inside].sum()) == 0
    if int(inside.sum()) > 1:
        assert chisquare(count[inside], kept[inside] / kept[inside].sum() * n).pvalue > 1e-3


def test_a_row_whose_draws_all_fall_outside_takes_its_last_from_the_sorted_nucleus() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.5]])
    outside = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.3], [0.0, 0.0, 0.0, 0.0, 0.9]])  # 0.0 is token 0, outside
    assert choose(logits.expand(2, 4), torch.ones(2), torch.full((2,), 0.8), outside)[0].tolist() == [3, 1]


def test_greedy_rows_take_the_likeliest_token_beside_sampled_ones() -> None:
    logits, uniform = logits_of(4, rows=6), uniforms(3, 6)
    temperature = torch.tensor([0.0, 1.0, 0.0, 0.7, 1.0, 0.0])
    token, logprob = choose(logits, temperature, torch.ones(6), uniform)
    greedy = temperature == 0
    assert torch.equal(token[greedy], logits[greedy].argmax(-1))
    torch.testing.assert_close(logprob[greedy], logits[greedy].log_softmax(-1).max(-1).values)
    assert not torch.equal(token[~greedy], logits[~greedy].argmax(-1))


@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_log_probs_are_those_of_the_temperature_before_top_p(top_p: float) -> None:
    logits, uniform = logits_of(6, rows=200), uniforms(4, 200)
    temperature = torch.linspace(0.2, 3.0, 200)
    token, logprob = choose(logits, temperature, torch.full((200,), top_p), uniform)
    expected = torch.log_softmax(logits / temperature[:, None], -1).gather(1, token[:, None])[:, 0]
    torch.testing.assert_close(logprob, expected, atol=1e-5, rtol=1e-5)


@dataclass
class Request:
    """A request as vLLM's batch has it."""

    seed: int
    output: list[int] = field(default_factory=list)

    def params(self) -> SamplingParams:
        return SamplingParams(temperature=0.0, max_tokens=40, extra_args={EXTRA_KEY: {"seed": self.seed, "temperature": 1.0, "top_p": 1.0}})

    def added_at(self, index: int) -> Any:
        return index, self.params(), [1], self.output

    def choice(self, logits_V: torch.Tensor) -> int:
        """The token this request must get now, wherever it is."""
        uniform = np.random.Generator(np.random.Philox(key=self.seed)).random((40, DRAWS), dtype=np.float32)[len(self.output)]
        return int(choose(logits_V[None], torch.ones(1), torch.ones(1), torch.from_numpy(uniform)[None])[0])


def processor() -> SeededSampling:
    return SeededSampling(None, torch.device("cpu"), False)  # type: ignore[arg-type]


def check_step(sampling: SeededSampling, batch: list[Request | None], seed: int) -> None:
    """One decode step: every row of the batch gets the token of its own request, and nothing else is finite."""
    logits = logits_of(seed, rows=len(batch))
    before = logits.clone()
    after = sampling.apply(logits)
    for index, request in enumerate(batch):
        if request is None:
            assert torch.equal(after[index], before[index]), "a request without a seed keeps its logits"
            continue
        token = request.choice(before[index])
        assert after[index].isfinite().nonzero()[:, 0].tolist() == [token]
        torch.testing.assert_close(after[index, token], before[index].log_softmax(-1)[token])
        request.output.append(token)


def update(size: int, removed: Any = (), added: Any = (), moved: Any = ()) -> BatchUpdate:
    return BatchUpdate(batch_size=size, removed=list(removed), added=list(added), moved=list(moved))


def test_rows_follow_vllms_batch_through_removals_moves_and_swaps() -> None:
    sampling, (a, b, c, d, e) = processor(), [Request(seed) for seed in range(5)]
    sampling.update_state(update(3, added=[r.added_at(i) for i, r in enumerate((a, b, c))]))
    check_step(sampling, [a, b, c], 0)
    sampling.update_state(None)
    check_step(sampling, [a, b, c], 1)
    sampling.update_state(update(2, removed=[0], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    check_step(sampling, [c, b], 2)
    sampling.update_state(update(3, removed=[1], added=[d.added_at(1), e.added_at(2)]))
    check_step(sampling, [c, d, e], 3)
    sampling.update_state(update(3, moved=[(0, 2, MoveDirectionality.SWAP)]))
    check_step(sampling, [e, d, c], 4)
    sampling.update_state(update(3, added=[b.added_at(1)]))
    check_step(sampling, [e, b, c], 5)
    plain: Any = (1, SamplingParams(temperature=0.0, max_tokens=9), [1], [])
    sampling.update_state(update(3, removed=[1], added=[plain]))
    check_step(sampling, [e, None, c], 6)
    sampling.update_state(update(2, removed=[0], moved=[(2, 0, MoveDirectionality.UNIDIRECTIONAL)]))
    check_step(sampling, [c, None], 7)


def test_random_traffic_never_mixes_requests_up() -> None:
    chance, sampling, batch, seed = random.Random(3), processor(), [], 100
    for step in range(60):
        leaving = [i for i in range(len(batch)) if chance.random() < 0.15]
        arriving = chance.randrange(3)
        removed, added, moved = leaving[:], [], []
        slots: list[Request | None] = [None if i in leaving else r for i, r in enumerate(batch)]
        for _ in range(arriving):
            seed += 1
            index = slots.index(None) if None in slots else len(slots)
            request = Request(seed)
            if index == len(slots):
                slots.append(request)
            else:
                slots[index] = request
                removed = [i for i in removed if i != index]
            added.append(request.added_at(index))
        while None in slots:  # vLLM closes gaps with the last request
            last = slots.pop()
            if last is not None:
                gap = slots.index(None)
                slots[gap] = last
                moved.append((len(slots), gap, MoveDirectionality.UNIDIRECTIONAL))
        if len(slots) > 2 and chance.random() < 0.3:
            i, j = chance.sample(range(len(slots)), 2)
            slots[i], slots[j] = slots[j], slots[i]
            moved.append((i, j, MoveDirectionality.SWAP))
        batch = [r for r in slots if r is not None]
        sampling.update_state(update(len(batch), removed, added, moved))
        assert sorted(sampling.rows) == list(range(len(batch))), "no row outlives its request"
        if batch:
            check_step(sampling, list(batch), step)
        if any(len(r.output) > 35 for r in batch):
            break


def test_what_vllm_draws_for_a_part_of_a_prompt_does_not_count() -> None:
    """A prompt in three parts: two tokens are drawn and discarded before the first one of the response."""
    sampling, output, stop = processor(), list[int](), 3
    probabilities = torch.tensor([[0.5, 0.3, 0.2, 0.0]])
    extra = {"seed": 0, "temperature": 0.0, "top_p": 1.0, "lowest_logprob": math.log(0.2), "stop_token_id": stop}
    params = SamplingParams(temperature=0.0, max_tokens=40, extra_args={EXTRA_KEY: extra})
    sampling.update_state(update(1, added=[(0, params, [1], output)]))
    drawn = []
    for step in range(5):
        logits = sampling.apply(probabilities.log().clone())
        drawn.append(int(logits[0].argmax()))
        if step >= 2:
            output.append(drawn[-1])
    assert drawn == [0, 0, 0, 0, stop], "two tokens of a half are likely enough, and a third is not"
