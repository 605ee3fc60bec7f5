"""Views: keys, inverses, composition; draws and training rows."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sttrl.arc.problem import drawn_view
from sttrl.arc.tasks import Pair, Puzzle, Task
from sttrl.arc.views import datasets, draws, marc, training
from sttrl.arc.views.key import VOTE_GROUPS, WORDS, View, recolouring
from sttrl.arc.views.problem import ProblemKey
from sttrl.errors import DataError

DEMOS = 4
colour_words = st.sampled_from(["perm", "permute"]).flatmap(
    lambda word: st.permutations("0123456789").map(lambda digits: word + "".join(digits))
)
orders = st.permutations(range(DEMOS)).map(lambda numbers: "ex" + "-".join(map(str, numbers)))
keys = st.lists(st.sampled_from(sorted(WORDS)) | colour_words | orders, max_size=6).map(".".join)
grids = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda sides: st.tuples(*[st.tuples(*[st.integers(0, 9)] * sides[1])] * sides[0])
)
pairs = st.builds(Pair, input=grids, output=grids)
puzzles = st.builds(Puzzle, demos=st.tuples(*[pairs] * DEMOS), query=grids, answer=st.none() | grids)


def task(demos: int = DEMOS) -> Task:
    pairs = tuple(Pair(input=((number, 0), (0, 5)), output=((number,), (9,))) for number in range(1, demos + 1))
    return Task(id="t", demos=pairs, tests=(((7, 7),), ((8, 8),)))


@given(keys, grids)
def test_the_inverse_of_a_view_of_a_grid_is_the_grid(key: str, grid: tuple[tuple[int, ...], ...]) -> None:
    view = View.read(key)
    assert view.invert(view.apply(grid)) == grid == view.apply(view.invert(grid))
    assert view.inverse().apply(view.apply(grid)) == grid


@given(keys)
def test_reading_a_written_key_gives_the_same_view(key: str) -> None:
    view = View.read(key)
    assert View.read(view.key) == view == View.read(view.written("kaggle"), dialect="kaggle")
    assert ProblemKey.read(ProblemKey(task="x", test=3, view=view).text) == ProblemKey(task="x", test=3, view=view)
    assert ProblemKey.read(ProblemKey(task="x_y", view=view).text) == ProblemKey(task="x_y", view=view)


@given(keys, keys, puzzles)
def test_views_compose(first: str, second: str, puzzle: Puzzle) -> None:
    one, two = View.read(first), View.read(second)
    assert one.then(two).on(puzzle) == two.on(one.on(puzzle))
    assert one.then(two).order(DEMOS) == tuple(one.order(DEMOS)[number] for number in two.order(DEMOS))
    assert View().then(one) == one == one.then(View())


@given(keys)
def test_a_view_is_one_to_one(key: str) -> None:
    view = View.read(key)
    row = (tuple(range(10)),)
    assert sorted(cell for row in view.apply(row) for cell in row) == list(range(10))
    assert sorted(view.order(DEMOS)) == list(range(DEMOS))


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 9)))
def test_some_colours_are_completed_to_a_permutation(targets: dict[int, int]) -> None:
    if len(set(targets.values())) < len(targets):
        with pytest.raises(DataError):
            recolouring(targets)
    else:
        view = recolouring(targets)
        assert all(view.apply(((colour,),)) == ((target,),) for colour, target in targets.items())


@pytest.mark.parametrize(
    "key",
    [
        "turn",
        "perm012",
        "perm0012345678",
        "perm01234567890",
        "ex0-",
        "ex-1",
        "ex0--1",
        "exa",
        "tp..rt",
        ".tp",
        "TP",
        "tp ",
        "perm０123456789",
    ],
)
def test_a_bad_key_is_an_error_of_one_line(key: str) -> None:
    with pytest.raises(DataError) as caught:
        View.read(key)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_unknown_operations_are_ignored_where_asked() -> None:
    assert View.read("tp.turn.rt", ignore_unknown=True) == View.read("tp.rt")
    assert ProblemKey.read("a_1.fb.tp", ignore_unknown=True) == ProblemKey.read("a_1.tp")


def test_both_spellings_are_read_and_written() -> None:
    assert View.read("transpose.rot90.permute3150482976.ex201").key == "tp.rt.perm3150482976.ex2-0-1"
    assert View.read("tp.rt.perm3150482976.ex2-0-1").written("kaggle") == "transpose.rot90.permute3150482976.ex201"
    assert View.read("ex12").order(13) == (12,)
    assert View.read("ex12", dialect="kaggle").order(3) == (1, 2)
    assert View.read("rot90.ex12").order(3) == (1, 2)
    assert View.read("ex").on(Puzzle(demos=task().demos, query=None)).demos == ()
    with pytest.raises(DataError, match="Kaggle"):
        View.read("ex0-10").written("kaggle")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("flip0", ((3, 4), (1, 2))),
        ("flip1", ((2, 1), (4, 3))),
        ("rot180", ((4, 3), (2, 1))),
        ("rot270", ((3, 1), (4, 2))),
        ("rt", ((2, 4), (1, 3))),
    ],
)
def test_symmetries_move_a_grid(key: str, shown: tuple[tuple[int, ...], ...]) -> None:
    assert View.read(key).apply(((1, 2), (3, 4))) == shown


def test_orders_compose_and_may_drop() -> None:
    assert View.read("ex3-1-0.ex2-0").order(4) == (0, 3)
    with pytest.raises(DataError, match="asks for demonstration 4 of 4"):
        View.read("ex0-4").order(4)


def test_a_vote_group_is_named_after_the_inverse() -> None:
    names = {"": "Identity", "perm1023456789.ex1-0": "Identity", "tp": "Transpose", "flip0": "Flip0", "flip1": "Flip1"}
    names |= {"rt": "Rot270", "rot180": "Rot180", "rot270": "Rot90", "tp.tp": "Identity"}
    assert {key: View.read(key).vote_group for key in names} == names
    assert {view.vote_group for view in draws.SYMMETRIES} == set(VOTE_GROUPS.values())


def test_a_key_shows_a_part_of_its_task() -> None:
    whole = task()
    assert ProblemKey.read("t_1.tp").puzzle(whole).query == ((8,), (8,))
    assert ProblemKey.read("t").puzzle(whole).query is None
    with pytest.raises(DataError, match="asks for test 2"):
        ProblemKey.read("t_2").puzzle(whole)
    for bad in ("a.b", "a_1"):
        with pytest.raises(DataError, match="cannot stand in a key"):
            _ = ProblemKey(task=bad).text


def test_draws_depend_on_their_seed_alone() -> None:
    assert draws.colours(draws.SeededDice(1, 2)) == draws.colours(draws.SeededDice(1, 2)) != draws.colours(draws.SeededDice(2, 1))
    assert draws.colours(draws.SeededDice(1)).apply(((0,),)) == ((0,),)
    assert {draws.colours(draws.SeededDice(seed), False).apply(((0,),)) for seed in range(99)} == {((colour,),) for colour in range(10)}
    assert {draws.order(draws.SeededDice(seed), 3).order(3) for seed in range(99)} == set(permutations(range(3)))


def test_demonstrations_are_dropped_until_the_puzzle_fits() -> None:
    view = View.read("ex3-2-1-0.tp")

    def shortened(most: int, **more: int) -> list[str | None]:
        cut = [draws.shortened(view, 4, lambda view: len(view.order(4)) <= most, drop, **more) for drop in ("first", "last")]  # type: ignore[arg-type]
        return [view and view.key for view in cut]

    assert shortened(4) == ["ex3-2-1-0.tp"] * 2
    assert shortened(2) == ["ex1-0.tp", "ex3-2.tp"]
    assert shortened(0) == ["ex.tp"] * 2
    assert shortened(0, fewest=1) == [None, None]


@given(st.frozensets(st.integers(0, 9)), st.integers(0, 1000))
def test_marcs_colours_prefer_unused_ones(used: frozenset[int], seed: int) -> None:
    view = marc.colours_preferring_unused(used, draws.SeededDice(seed))
    targets = {colour: view.apply(((colour,),))[0][0] for colour in used | {0}}
    assert targets[0] == 0
    mine, free = used - {0}, set(range(1, 10)) - used
    assert len({targets[colour] for colour in mine} & free) == min(len(mine), len(free))


def test_marcs_draws_are_complete() -> None:
    dice = draws.SeededDice(5)
    rows = marc.training_set(task().demos, 1, marc.draw_shifts(dice), dice)
    again = draws.SeededDice(5)
    assert rows == marc.training_set(task().demos, 1, marc.draw_shifts(again), again)
    assert len(set(rows)) == len(rows) > 48
    orders = marc.prompt_orders(4, 1, marc.draw_shuffles(4, 1, dice))
    views = marc.inference_views(orders, marc.draw_choices(orders, dice))
    assert 4 + 5 <= len(views) <= 3 * 4 + 5
    assert all(len(view.order(4)) == 3 for view in views)
    assert len(marc.to_size(range(9), range(9), 4, dice)) == 4
    assert marc.to_size((), range(9), 4, dice) == tuple(range(9))


def test_marcs_set_for_a_task_has_its_size() -> None:
    demos = task().demos
    assert len(marc.adaptation_set(demos, lambda puzzle: True, draws.SeededDice(0), size=250)) == 250
    assert len(marc.adaptation_set(demos, lambda puzzle: True, draws.SeededDice(0), size=20)) == 20
    uncut = marc.adaptation_set(demos, lambda puzzle: len(puzzle.demos) < 3, draws.SeededDice(0), size=20)
    assert len(uncut) > 20
    assert {len(puzzle.demos) for puzzle in uncut} == {2}
    assert marc.adaptation_set(demos, lambda puzzle: False, draws.SeededDice(0), size=20) == ()


def test_a_roll_moves_cells_around_the_edge() -> None:
    assert marc.rolled(((1, 2, 3), (4, 5, 6)), 1, 1) == ((6, 4, 5), (3, 1, 2))
    assert marc.augmented(Puzzle(demos=(), query=((1,),) * 16), "IncreaseHeight(2)", marc.draw_shifts(draws.SeededDice(0))) is None


def test_each_demonstration_is_held_out_once_a_view() -> None:
    whole = task()
    views = [View.read("tp.ex2-0-3-1"), View.read("perm0213456789")]
    rows = training.held_out(whole, views)
    asked = [(view, number) for view in views for number in view.order(4)]
    assert len(rows) == len(asked) == 8
    for (view, number), row in zip(asked, rows, strict=True):
        assert view.invert(row.query or ()) == whole.demos[number].input
        assert view.invert(row.answer or ()) == whole.demos[number].output
        shown = {view.invert(pair.input) for pair in row.demos}
        assert shown == {pair.input for other, pair in enumerate(whole.demos) if other != number}


def test_a_held_out_demonstration_is_not_shown_even_where_a_view_repeats_it() -> None:
    for row in training.held_out(task(), [View.read("ex0-0-1")]):
        assert row.query not in [pair.input for pair in row.demos]


def drawn(whole: Task, count: int, seed: int) -> list[View]:
    return [drawn_view(len(whole.demos), number, seed, "keep_background") for number in range(count)]


def test_rows_of_all_demonstrations_take_the_symmetries_in_turn() -> None:
    whole = task()
    views = drawn(whole, 80, 3)
    rows = training.all_demos(whole, views)
    assert rows[:40] == training.all_demos(whole, drawn(whole, 40, 3))
    assert rows == tuple(view.on(Puzzle(demos=whole.demos, query=None)) for view in views)
    assert [view.vote_group for view in views] == [draws.SYMMETRIES[number % 8].vote_group for number in range(80)]
    assert all(view.apply(((0,),)) == ((0,),) and sorted(view.order(4)) == [0, 1, 2, 3] for view in views)
    assert all(row.query is None and row.answer is None for row in rows)
    assert len({view.key for view in views}) == 80
    assert views != drawn(whole, 80, 4)
    assert training.all_demos(task(1), views) == ()


def test_keys_are_grouped_by_task_and_test() -> None:
    given = [ProblemKey.read(key) for key in ("a_1.tp", "b_0", "a_1")]
    got = {task: [[key.text for key in keys] for keys in tests] for task, tests in datasets.grouped(given).items()}
    assert got == {"a": [[], ["a_1.tp", "a_1"]], "b": [["b_0"]]}
    with pytest.raises(DataError, match="names no test input"):
        datasets.grouped([ProblemKey(task="a")])


def test_generated_examples_are_used_once() -> None:
    examples = {name: tuple(Pair(input=((n % 10, n // 10),), output=((n % 10,),)) for n in range(30)) for name in "ab"}
    got = datasets.generated(examples, 4, draws.SeededDice(0))
    assert len(got) == 8
    for name in "ab":
        used = [grid for one in got if one.key.task[6:7] == name for grid in (*(pair.input for pair in one.puzzle.demos), one.puzzle.query)]
        assert len(set(used)) == len(used) == 28
    with pytest.raises(DataError, match="5 epochs"):
        datasets.generated(examples, 5, draws.SeededDice(0))
    assert datasets.hardest(examples["a"], [-float(n) for n in range(30)], 0.5) == examples["a"][14::-1]


def test_views_load_nothing_heavy() -> None:
    heavy = ("torch", "ray", "vllm", "verl")
    modules = ("training", "marc", "datasets")
    code = (
        f"import sys, {', '.join(f'sttrl.arc.views.{name}' for name in modules)}; print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
