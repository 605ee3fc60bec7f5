"""How a batch becomes mini-batches, and a group the rows of a rank."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sttrl.engine.verl.rows import longest_row, mini_batches, rows_of_rank, tensors_of
from sttrl.types import Row, TrainGroup

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=9)


def group(length_G: list[int], number: int = 0) -> TrainGroup:
    """Rows that differ, with advantages that say which is which."""
    row_G = tuple(
        Row(token_T=(number, i, *range(n - 1)), weight_T=(1.0,) * (n + 1), advantage_T=(10.0 * number + i,) * (n + 1))
        for i, n in enumerate(length_G)
    )
    return TrainGroup(prefix_T=(1, 2), row_G=row_G)


@given(st.lists(LENGTHS, min_size=1, max_size=5), st.integers(1, 40))
def test_no_mini_batch_is_empty_and_every_response_is_in_one(lengths_P: list[list[int]], count: int) -> None:
    groups = tuple(group(length_G, number) for number, length_G in enumerate(lengths_P))
    batches = mini_batches(groups, count)
    assert 1 <= len(batches) <= count and all(g.row_G for batch in batches for g in batch)
    assert sorted((r for batch in batches for g in batch for r in g.row_G), key=repr) == sorted(
        (r for g in groups for r in g.row_G), key=repr
    )
    if len(groups) > 1:
        assert all(g in groups for batch in batches for g in batch), "a question of several is never split"


@given(st.lists(st.lists(LENGTHS, min_size=1, max_size=3), min_size=1, max_size=4), st.integers(1, 40))
def test_a_problem_under_several_views_is_never_split_where_there_are_several(lengths_PV: list[list[list[int]]], count: int) -> None:
    """Every view is a group of its own. A single problem is split by rows, as evenly as one prompt would be."""
    groups = [replace(group(n, 10 * p + v), problem=p) for p, of_one in enumerate(lengths_PV) for v, n in enumerate(of_one)]
    batches = mini_batches(groups, count)
    assert 1 <= len(batches) <= count and all(g.row_G for batch in batches for g in batch)
    assert sorted((r for batch in batches for g in batch for r in g.row_G), key=repr) == sorted(
        (r for g in groups for r in g.row_G), key=repr
    )
    if len(lengths_PV) > 1:
        assert all(g in groups for batch in batches for g in batch)
        assert sum(len({g.problem for g in batch}) for batch in batches) == len(lengths_PV), "all views of a problem are together"
    else:
        sizes = [sum(len(g.row_G) for g in batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1 and {g.prefix_T for batch in batches for g in batch} == {(1, 2)}


@given(LENGTHS, st.integers(1, 4))
def test_every_rank_has_as_many_rows_and_every_response_carries_loss_once(length_G: list[int], ranks: int) -> None:
    """verl ends the update where a rank has fewer rows than another has passes."""
    whole = group(length_G)
    found = []
    for rank in range(ranks):
        mine, padding = rows_of_rank(whole, rank, ranks)
        data = tensors_of(mine, 1.0, budget=100, longest=longest_row(whole), padding=padding)
        assert len(data) == -(-len(length_G) // ranks)
        masks = [mask.tolist() for mask in data["response_mask"].unbind()]
        found += [tuple(tokens.tolist()) for tokens, mask in zip(data["responses"].unbind(), masks, strict=True) if any(mask)]
        assert sum(map(sum, masks)) == sum(len(r.token_T) for r in mine.row_G[: len(mine.row_G) - padding])
    assert sorted(found) == sorted(r.token_T for r in whole.row_G)
