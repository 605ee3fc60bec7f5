"""Views, draws and training sets give what the published systems give."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from golden import FOLDER, cases

from sttrl.arc.grids import as_grid, shape
from sttrl.arc.tasks import Pair, Puzzle, Task
from sttrl.arc.views import datasets, draws, marc
from sttrl.arc.views.key import View, recolouring
from sttrl.arc.views.problem import ProblemKey
from sttrl.errors import DataError

RE_ARC = [folder / "re_arc" for folder in (FOLDER.parent / "data", FOLDER.parent / "data" / "arc")]


def grid(rows: Any) -> Any:
    return as_grid(rows)


def pairs(rows: Any) -> tuple[Pair, ...]:
    return tuple(Pair(input=grid(row["input"]), output=grid(row["output"])) for row in rows)


def task_of(file: dict[str, Any], task: str) -> Task:
    rows = file["tasks"][task]
    return Task(id=task, demos=pairs(rows["train"]), tests=tuple(grid(row["input"]) for row in rows["test"]))


def solution(file: dict[str, Any], task: str, test: int | None) -> Any:
    return None if test is None else grid(file["tasks"][task]["solutions"][test])


def puzzle(rows: Any) -> Puzzle:
    """A puzzle as marc's cases write it: test is one pair, or its input."""
    test = rows["test"]
    return Puzzle(demos=pairs(rows["train"]), query=grid(test["input"]), answer=grid(test["output"]) if "output" in test else None)


def named(family: str, *ops: str | None) -> Any:
    """The cases of a family with one of the operations."""
    chosen = [pytest.param(file, case, id=str(number)) for number, (file, case) in enumerate(cases(family)) if case.get("op") in ops]
    return pytest.mark.parametrize(("file", "case"), chosen)


@named("architects_transforms", None)
def test_a_key_gives_the_puzzle_and_its_inverse(file: dict, case: dict) -> None:
    key = ProblemKey.read(case["key"], ignore_unknown=True)
    expected = case["expected"]
    assert (key.task, -1 if key.test is None else key.test) == (case["base_key"], case["reply_num"])
    seen = key.puzzle(task_of(file, key.task), solution(file, key.task, key.test))
    assert seen.demos == pairs(expected["train"])
    assert seen.query == (grid(expected["query"]) if "query" in expected else None)
    assert seen.answer == (grid(expected["reply"]) if "reply" in expected else None)
    probe = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (1, 1, 0, 2, 3))
    assert key.view.apply(probe) == grid(expected["forward_of_probe"])
    assert key.view.invert(probe) == grid(expected["inverse_of_probe"])


def structure(key: ProblemKey, demos: int) -> tuple[Any, ...]:
    """What does not depend on draws; colours and orders are permutations."""
    moves = Counter(op for op in key.view.ops if isinstance(op, str))
    kinds = tuple(sorted({type(op).__name__ for op in key.view.ops if not isinstance(op, str)}))
    assert sorted(key.view.order(demos)) == list(range(demos))
    return key.base, moves["tp"], moves["rt"], kinds


def wish_of(value: Any) -> Any:
    return "all" if value == "all" else "random" if value else "no"


def augmentation(opts: dict[str, Any]) -> draws.Augmentation:
    return draws.Augmentation(
        transpose=wish_of(opts.get("tp")),
        turn=wish_of(opts.get("rt")),
        repeats=opts.get("n", 1),
        shuffle=bool(opts.get("shfl_keys")),
        colours="no" if not opts.get("perm") else "keep background" if opts.get("keep_bg") else "any",
        orders=bool(opts.get("shfl_ex")),
    )


@named("architects_augment_keys", None)
def test_augmented_keys_are_architects(file: dict, case: dict) -> None:
    def demos(task: str) -> int:
        return len(file["tasks"][task]["train"])

    def augmented(dice: draws.Dice) -> tuple[ProblemKey, ...]:
        keys = [ProblemKey.read(key) for _ in range(case["n_repeat"] or 1) for key in case["in_keys"]]
        return (draws.augment_2024 if case["version"] == "2024" else draws.augment)(keys, wish, dice, demos)

    wish = augmentation(case["opts"])
    got = augmented(draws.LegacyDice(case["seed"]))
    # How Product of Experts draws for what is left out is not known.
    if case["version"] == "2024" or {"tp", "rt", "perm", "shfl_ex"} <= set(case["opts"]):
        assert [key.text for key in got] == case["expected_keys"]
    expected = [ProblemKey.read(key) for key in case["expected_keys"]]
    assert [ProblemKey.read(key).text for key in case["expected_keys"]] == case["expected_keys"]
    seeded = augmented(draws.SeededDice(case["seed"]))
    assert augmented(draws.SeededDice(case["seed"])) == seeded
    if "random" not in (wish.transpose, wish.turn):
        assert structures(seeded, demos) == structures(got, demos) == structures(expected, demos)


def structures(keys: Iterable[ProblemKey], demos: Any) -> Counter[tuple[Any, ...]]:
    return Counter(structure(key, demos(key.task)) for key in keys)


@named("kaggle_nvarc_format", "augment")
def test_augmented_keys_are_kaggles_and_nvarcs(file: dict, case: dict) -> None:
    opts = {"perm": "rnd_all", "shfl_ex": True} | case.get("opts", {})
    wish = draws.Augmentation(
        transpose="all" if opts.get("tp", True) else "no",
        turn="all" if opts.get("rot", True) else "no",
        repeats=opts.get("n", case.get("n", 1)),
        colours={"rnd_all": "any", "keep_bg": "keep background"}.get(opts["perm"], "no"),
        orders=bool(opts["shfl_ex"]),
    )
    own = draws.LegacyDice(case["seed"]) if case["system"] == "kaggle-2024" else None
    keys = [ProblemKey.read(key) for key in case["in_keys"]]
    got = draws.augment(keys, wish, draws.LegacyDice(case["seed"]), lambda task: len(file["tasks"][task]["train"]), order_dice=own)
    assert [key.written("kaggle") for key in got] == case["expected_keys"]
    if "sorted_keys" in case:
        assert sorted(key.written("kaggle") for key in got) == case["sorted_keys"]


def test_training_keys_are_all_symmetries_of_each_key() -> None:
    for file, case in cases("kaggle_nvarc_format"):
        if case.get("op") == "ttt_keys" and "expected_keys" in case:
            expected = [ProblemKey.read(key) for key in case["expected_keys"]]
            keys = marc.distinct(ProblemKey(task=key.task, test=key.test) for key in expected)
            wish = draws.Augmentation(transpose="all", turn="all", repeats=len(expected) // len(keys) // 8, colours="any", orders=True)
            got = draws.augment(keys, wish, draws.SeededDice(1), lambda task, file=file: len(file["tasks"][task]["train"]))
            assert structures(got, lambda task, file=file: len(file["tasks"][task]["train"])) == structures(
                expected, lambda task, file=file: len(file["tasks"][task]["train"])
            )


@named("kaggle_nvarc_format", None)
def test_a_key_in_kaggles_spelling_gives_the_puzzle(file: dict, case: dict) -> None:
    key = ProblemKey.read(case["key"])
    assert key.written("kaggle") == case["key"]
    assert ProblemKey.read(key.text) == key
    seen = key.puzzle(task_of(file, key.task), solution(file, key.task, key.test))
    expected = case["expected"]
    reply = expected.get("reply_grid", expected.get("reply"))
    assert seen.demos == pairs(expected["train"])
    assert seen.query == grid(expected["test"][0]["input"])
    assert seen.answer == grid(reply)
    assert key.view.invert(grid(reply)) == grid(case["inverse_of_reply"])


def cells_in(rows: Any) -> int:
    """Cells, and a line break after every row."""
    return shape(rows)[0] * (shape(rows)[1] + 1)


def characters(system: str, seen: Puzzle) -> int:
    """The length of a text without reply, each special token counted once."""
    cells = cells_in
    if system == "nvarc":  # user and assistant, a line break each, in marks; the last row has no line break
        return sum(cells(pair.input) + cells(pair.output) + 6 for pair in seen.demos) + cells(seen.query) + 6
    return 48 + sum(cells(pair.input) + cells(pair.output) + 7 for pair in seen.demos) + cells(seen.query) + 6


@named("kaggle_nvarc_format", "cut_to_len")
def test_the_first_demonstrations_are_dropped_until_the_text_fits(file: dict, case: dict) -> None:
    if case["name"] != "input":
        pytest.skip("lengths of other texts belong to codecs")
    key = ProblemKey.read(case["key"])
    task = task_of(file, key.task)

    def length(view: View) -> int:
        return characters(case["system"], ProblemKey(task=key.task, test=key.test, view=view).puzzle(task))

    if "full" in case:
        assert length(key.view) == case["full"]
    view = draws.shortened(key.view, len(task.demos), lambda view: length(view) <= case["max_len"], "first")
    assert view is not None
    cut = ProblemKey(task=key.task, test=key.test, view=view)
    assert cut.written("kaggle") == case["expected"]["key"]
    assert cut.puzzle(task).demos == pairs(case["expected"]["train"])


@named("architects_token_limit", None)
def test_the_last_demonstrations_are_dropped_until_the_text_fits(file: dict, case: dict) -> None:
    key = ProblemKey.read(case["key"])
    task = task_of(file, key.task)

    def length(view: View) -> int:
        seen = ProblemKey(task=key.task, test=key.test, view=view).puzzle(task, solution(file, key.task, key.test))
        return characters("architects", seen) + (0 if case["len_name"] == "input" else cells_in(seen.answer) + 1)

    if "fmt_opts" in case or case["len_name"] not in ("input", "text") or key.test is None:
        pytest.skip("lengths of other texts belong to codecs")
    if "full_count" in case:
        assert length(key.view) == case["full_count"]
    view = draws.shortened(key.view, len(task.demos), lambda view: length(view) <= case["max_tokens"], "last", fewest=1)
    if "error" in case["expected"]:
        assert view is None
    else:
        assert view is not None
        assert ProblemKey(task=key.task, test=key.test, view=view).text == case["expected"]["key"]
        assert length(view) == case["expected"]["count"]


@named("architects_dataset_ops", "keys", "grouped_keys", "move_test_to_train", "remove_test_data")
def test_lists_and_tasks_of_a_data_set(file: dict, case: dict) -> None:
    tasks = [task_of(file, task) for task in case.get("ids", [case.get("id")])]
    if case["op"] == "keys":
        assert [key.text for key in datasets.keys_of(tasks)] == case["expected"]
    elif case["op"] == "grouped_keys":
        keys = [ProblemKey.read(key) for key in case["keys"]] if "keys" in case else datasets.keys_of(tasks)
        got = {task: [[key.text for key in keys] for keys in tests] for task, tests in datasets.grouped(keys).items()}
        assert got == case["expected"]
    elif case["op"] == "move_test_to_train":
        got_task = datasets.tests_as_demos(tasks[0], [grid(rows) for rows in file["tasks"][case["id"]]["solutions"]])
        assert (got_task.demos, got_task.tests) == (pairs(case["expected"]["train"]), ())
    else:
        assert all(datasets.without_tests(task) == Task(id=task.id, demos=task.demos, tests=()) for task in tasks)


def cells_of(task: Task) -> int:
    """The length of the demonstrations as text without any marks."""
    return sum(cells_in(rows) for pair in task.demos for rows in (pair.input, pair.output))


@named("architects_dataset_ops", "split", "sorted_by_len")
def test_parts_and_order_of_a_data_set(file: dict, case: dict) -> None:
    if case["op"] == "sorted_by_len":
        keys = datasets.keys_of(task_of(file, task) for task in case["ids"])
        got = datasets.sorted_by_length(keys, lambda key: case["lengths"][key.text], bool(case.get("opts", {}).get("reverse")))
        assert [key.text for key in got] == case["expected"]
    elif case["split_seed"] == "len":
        got_parts = datasets.split_by_length(case["ids"], case["n"], lambda task: cells_of(task_of(file, task)))
        assert [list(part) for part in got_parts] == case["expected"]
    else:
        got_parts = datasets.split(case["ids"], case["n"], draws.LegacyDice(case["split_seed"]))
        assert [list(part) for part in got_parts] == case["expected"]


@named("architects_dataset_ops", "load_from_rearc")
def test_puzzles_from_generated_examples(file: dict, case: dict) -> None:
    folder = next((folder for folder in RE_ARC if folder.is_dir()), None)
    if folder is None:
        pytest.skip(f"no re-arc examples beside {FOLDER}")
    opts, expected = case["opts"], case["expected"]
    examples = {path.stem: pairs(json.loads(path.read_text())) for path in sorted((folder / "tasks").glob("*.json"))}
    difficulty = {task: one["pso_difficulties"] for task, one in json.loads((folder / "metadata.json").read_text()).items()}
    if "remove_easiest" in opts:
        examples = {task: datasets.hardest(pairs_, difficulty[task], opts["remove_easiest"]) for task, pairs_ in examples.items()}
    [demos] = opts["sizes"]
    got = datasets.generated(examples, opts["n"], draws.LegacyDice(opts["seed"]), demos)
    assert len(got) == expected["n_keys"]
    assert [one.key.text for one in got][: len(expected["first_keys"])] == expected["first_keys"]
    assert sorted({len(one.puzzle.demos) for one in got}) == expected["n_demos"]
    first = expected["first_task"]
    rows = first["challenge"] | {"test": {"input": first["challenge"]["test"][0]["input"], "output": first["solution"][0]}}
    assert {one.key.text: one.puzzle for one in got}[first["key"]] == puzzle(rows)


@named("marc_augmenters", None)
def test_training_operations_are_marcs(file: dict, case: dict) -> None:
    task = task_of(file, case["task"])
    whole = Puzzle(demos=task.demos, query=task.tests[0], answer=solution(file, case["task"], 0))
    drawn = case.get("drawn_shifts", [{"input": [1, 1], "output": [1, 1]}])
    assert all(shifts == drawn[0] for shifts in drawn)
    shifts = marc.Shifts(input=tuple(drawn[0]["input"]), output=tuple(drawn[0]["output"]))
    got = marc.augmented(whole, case["augmenter"], shifts)
    assert (got is None) == case["dropped_over_30"]
    if got is not None:
        expected = case["expected"]
        test = expected["test"] if isinstance(expected["test"], dict) else expected["test"][0]
        assert got == puzzle(expected | {"test": test})


def test_training_operations_are_in_marcs_order() -> None:
    for file in {id(file): file for file, _ in cases("marc_augmenters")}.values():
        assert list(marc.AUGMENTERS) == file["augmenter_order"]


@named("marc_augmenters", "inference_view")
def test_inference_views_are_marcs(file: dict, case: dict) -> None:
    view = marc.INFERENCE_VIEWS[case["augmenter"]]
    assert view.apply(solution(file, case["task"], 0)) == grid(case["forward_of_solution"])
    assert view.invert(grid(case["forward_of_solution"])) == grid(case["inverse_of_forward"])
    assert view.vote_group == group_of(case["inverter"])


def group_of(inverter: str | None) -> str:
    """Our name of a vote group, by marc's inverse operation."""
    return "Identity" if inverter is None else inverter.replace("ate(", "").translate(str.maketrans("", "", "()"))


@named("marc_colours", None)
def test_colours_are_marcs(file: dict, case: dict) -> None:
    targets = {int(colour): target for colour, target in case["color_map"].items()}
    if not case["injective_on_used"]:
        with pytest.raises(DataError):
            recolouring(targets)
        return
    view = recolouring(targets)
    if "grid" in case:
        assert view.apply(grid(case["grid"])) == grid(case["expected_grid"])
        return
    task = task_of(file, case["task"])
    whole = Puzzle(demos=task.demos, query=task.tests[0], answer=solution(file, case["task"], 0))
    assert sorted(marc.colours_of(whole)) == case["used_colours"]
    if case["expected"] is not None:
        assert view.on(whole) == puzzle(case["expected"])


@named("marc_leave_n", None)
def test_held_out_demonstrations_are_marcs(file: dict, case: dict) -> None:
    got = marc.held_out_sets(case["n_demos"], case["leave_n"])
    assert [[one.query, list(one.kept)] for one in got] == case["expected"]


@named("marc_ttt_data", None)
def test_a_training_set_has_marcs_size(file: dict, case: dict) -> None:
    task = task_of(file, case["task"])
    held_out = marc.held_out_puzzles(task.demos, case["leave_n"])
    shifts = [marc.Shifts(input=(a, b), output=(c, d)) for a, b, c, d in product((1, 2, 3), repeat=4)]
    # The roll's shifts are a draw, and a shift by a whole side leaves a grid as it was.
    assert any(case["n_after_augmenters"] == len(marc.with_augmenters(held_out, one)) for one in shifts)
    dice = draws.SeededDice(3)
    drawn = marc.draw_shifts(dice)
    got = marc.training_set(task.demos, case["leave_n"], drawn, dice, case["permute_n"])
    assert len(marc.with_augmenters(held_out, drawn)) <= len(got) <= case["upper_bound"]
    shapes = [shape(one) for puzzle_ in got for one in marc.grids_of(puzzle_)]
    assert (max(height for height, _ in shapes), max(width for _, width in shapes)) == (case["max_height"], case["max_width"])


@named("marc_ttt_data", "full")
def test_a_training_set_is_marcs(file: dict, case: dict) -> None:
    task = task_of(file, case["task"])
    still = marc.Shifts(input=(1, 1), output=(1, 1))
    sources = marc.with_augmenters(marc.held_out_puzzles(task.demos, case["leave_n"]), still, case["augmenters"])
    assert set(sources) == {puzzle(draw["source"]) for draw in case["draws"]}
    drawn = {puzzle(draw["source"]): draw for draw in case["draws"]}

    def view(source: Puzzle) -> View:
        draw = drawn[source]
        order = View.read("ex" + "-".join(map(str, draw["example_perm"])))
        return recolouring({int(colour): target for colour, target in draw["color_map"].items()}).then(order)

    got = marc.with_permutations(sources, view, case["permute_n"])
    assert set(got) == {puzzle(draw[part]) for draw in case["draws"] for part in ("source", "result")}
    assert len(got) == case["n_result"]


@named("marc_ttt_data", "size_rule")
def test_a_training_set_is_topped_up_or_cut(file: dict, case: dict) -> None:
    first, second = [(1, number) for number in range(case["n_leave1"])], [(2, number) for number in range(case["n_leave2"])]
    got = marc.to_size(first, second, case["Nmax"], draws.SeededDice(0))
    assert len(set(got)) == len(got) == case["expected_n"]
    assert sum(one[0] == 1 for one in got) == case["expected_n_from_leave1"]
    assert [one for one in got if one[0] == 2] == second[: case["expected_n"] - case["expected_n_from_leave1"]]


@named("marc_inference_views", None)
def test_prompts_are_marcs(file: dict, case: dict) -> None:
    shuffles: dict[tuple[int, ...], list[list[int]]] = {}
    for draw in case["shuffles"]:
        shuffles.setdefault(tuple(draw["kept"]), []).append(draw["perm"])
    orders = marc.prompt_orders(case["n_demos"], case["include_n"], shuffles)
    expected = [(group_of(one["inverter"]), tuple(one["demos"])) for one in case["expected"]]
    numbers = [order.order(case["n_demos"]) for order in orders]
    of_group = dict(expected)
    choices = {name: numbers.index(of_group[view.vote_group]) for name, view in marc.INFERENCE_VIEWS.items()}
    got = [(view.vote_group, view.order(case["n_demos"])) for view in marc.inference_views(orders, choices)]
    assert sorted(got) == sorted(expected)
    assert len(got) == case["n_prompts"] <= case["upper_bound"]
