"""How a batch becomes mini-batches, and a group the rows of a rank."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from live_engine import rollout

from sttrl.engine.verl.rows import longest_row, mini_batches, rows_of, share_of_rank
from sttrl.types import TrainBatch, TrainGroup

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def group(length_G: list[int], number: int = 0) -> TrainGroup:
    """Responses that differ, with advantages that say which is which."""
    rollout_G = tuple(rollout((number, i, *range(n - 1))) for i, n in enumerate(length_G))
    return TrainGroup(
        prompt_T=(1, 2), rollout_G=rollout_G, advantage_GT=tuple((10.0 * number + i,) * len(r.token_T) for i, r in enumerate(rollout_G))
    )


@given(st.lists(LENGTHS, min_size=1, max_size=5), st.integers(1, 40))
def test_no_mini_batch_is_empty_and_every_response_is_in_one(lengths_P: list[list[int]], count: int) -> None:
    groups = tuple(group(length_G, number) for number, length_G in enumerate(lengths_P))
    batches = mini_batches(TrainBatch(group_P=groups, temperature=1.0), count)
    assert 1 <= len(batches) <= count and all(g.rollout_G for b in batches for g in b.group_P)
    found = [(r, a) for b in batches for g in b.group_P for r, a in zip(g.rollout_G, g.advantage_GT, strict=True)]
    assert sorted(found, key=repr) == sorted(((r, a) for g in groups for r, a in zip(g.rollout_G, g.advantage_GT, strict=True)), key=repr)
    if len(groups) > 1:
        assert all(g in groups for b in batches for g in b.group_P), "a question of several is never split"


@given(LENGTHS, st.integers(1, 4))
def test_every_rank_has_as_many_rows_and_every_response_carries_loss_once(length_G: list[int], ranks: int) -> None:
    """verl ends the update where a rank has fewer rows than another has passes."""
    whole = group(length_G)
    found = []
    for rank in range(ranks):
        mine, padding = share_of_rank(whole, rank, ranks)
        data = rows_of(mine, 1.0, budget=100, longest=longest_row(whole), padding=padding)
        assert len(data) == -(-len(length_G) // ranks)
        masks = [mask.tolist() for mask in data["response_mask"].unbind()]
        found += [tuple(tokens.tolist()) for tokens, mask in zip(data["responses"].unbind(), masks, strict=True) if any(mask)]
        assert sum(map(sum, masks)) == sum(len(r.token_T) for r in mine.rollout_G[: len(mine.rollout_G) - padding])
    assert sorted(found) == sorted(r.token_T for r in whole.rollout_G)
