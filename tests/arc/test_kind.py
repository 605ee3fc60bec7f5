"""Tasks as problems: their prompts, turns and rows, what is recorded of an evaluation, and how it scores."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from arc_files import save

from sttrl.arc.candidates import Candidate, Find, promising
from sttrl.arc.codecs.cells import Cells
from sttrl.arc.codecs.loss import RULES
from sttrl.arc.codecs.registry import CODECS, codec_for
from sttrl.arc.codecs.vocabulary import small_vocabulary
from sttrl.arc.grids import Grid
from sttrl.arc.kind import Arc, Setting, candidate_records
from sttrl.arc.problem import TaskProblem
from sttrl.arc.records import CandidateRecord, TaskRecord, TestRecord, answer_text, answers_of, grid_text, record_from_json
from sttrl.arc.search import SEARCHES, Found, Reply
from sttrl.arc.selections import SELECTIONS
from sttrl.arc.source import ChosenTasks, codec_name, end_token
from sttrl.arc.sources import ArcSpec, read_tasks
from sttrl.arc.time_left import TimeLeft
from sttrl.arc.views.key import View
from sttrl.config import RunConfig
from sttrl.config.arc import WITHOUT_EXPERTS, ArcTrainingSettings, CodecName, SearchName, SelectionName
from sttrl.engine.shrink import small_tokenizer
from sttrl.errors import DataError, UsageError
from sttrl.ledger.records import QuestionRecord
from sttrl.ledger.seeds import seed_source
from sttrl.methods import METHODS
from sttrl.run.kind import KINDS, check_kind
from sttrl.types import Group, Rollout

ONE: Grid = ((1,),)
TWO: Grid = ((2, 2),)
THREE: Grid = ((3,), (3,))
SPECIAL = ("<begin>", "<end>", "<pad>")
CELLS_16 = small_tokenizer((*"0123456789IO\n", *SPECIAL), SPECIAL, *SPECIAL)
PAIRS = [{"input": [[n, n + 1, n + 2]], "output": [[n + 2, n + 1, n]]} for n in range(4)]
TASKS = {
    "four": {"train": PAIRS, "test": [{"input": [[5, 6, 7]]}, {"input": [[8, 9, 0]]}]},
    "single": {"train": PAIRS[:1], "test": [{"input": [[1, 1, 2]]}]},
}


def config_of(tmp_path: Path, tasks: Any = None, **settings: Any) -> RunConfig:
    path = save(tmp_path / "own_challenges.json", TASKS if tasks is None else tasks)
    return RunConfig.of(**{"dataset": str(path), "adaptation_method": "ttt", "views": 4, "score_views": 4, **settings})


def built(config: RunConfig, context: int | None = 4096) -> dict[str, TaskProblem]:
    return {problem.id: problem for problem in ChosenTasks(config).build(CELLS_16, context).problems}  # type: ignore[misc]


def kind_of(config: RunConfig) -> Arc:
    chosen = ChosenTasks(config)
    setting = Setting(tasks=chosen.arc.tasks, chosen=len(chosen.tasks), reply_tokens=932, end_T=frozenset({14}))
    return Arc(config, setting, TimeLeft(config, 1), seed_source(0), lambda problem, activity: pytest.MonkeyPatch.context())


def text(token_T: tuple[int, ...]) -> str:
    return str(CELLS_16.decode(token_T, skip_special_tokens=False))


def with_candidates(*grids: Grid, unscored: int = 0, **other: Any) -> TestRecord:
    """A test input with candidates, the best first; the last ones without a score."""
    scores = [None if place >= len(grids) - unscored else -float(place) for place in range(len(grids))]
    records = [
        CandidateRecord(grid=grid_text(grid), score=score, search_nll={"": 0.5}, expert_nll={"rt": 1.5})
        for grid, score in zip(grids, scores, strict=True)
    ]
    return TestRecord(**{"candidates": records, "tied": [], "unreadable": {}, "cut": {}, **other})


def recorded(*tests: TestRecord) -> TaskRecord:
    return TaskRecord(views=4, selection="mul_aug_prob", version=2, tests=list(tests), tokens=10, scored_tokens=4, requests=3)


VERDICTS = {answer_text(0, TWO): True, answer_text(0, ONE): False, answer_text(1, ONE): True, answer_text(1, TWO): None}


def test_a_score_counts_outputs_attempts_and_what_was_found() -> None:
    score = recorded(with_candidates(ONE, TWO), with_candidates(TWO, THREE, ONE)).score(VERDICTS)
    assert score.metrics == {"kaggle": 0.5, "per_task_mean": 0.5, "all_or_nothing": 0.0, "attempt_1": 0.0, "oracle": 1.0}
    assert (score.weight, score.k) == (2.0, 4)
    assert recorded(with_candidates(TWO), with_candidates(ONE)).right(VERDICTS)
    nothing = recorded(with_candidates(), with_candidates()).score(VERDICTS)
    assert set(nothing.metrics.values()) == {0.0} and recorded(with_candidates()).answer is None


def test_a_candidate_that_was_not_scored_is_no_attempt() -> None:
    record = recorded(with_candidates(ONE, TWO, unscored=1))
    assert record.tests[0].attempts == (ONE,)
    assert record.score(VERDICTS).metrics["kaggle"] == 0.0 and record.score(VERDICTS).metrics["oracle"] == 1.0


def test_a_right_grid_of_another_test_input_is_wrong() -> None:
    assert recorded(with_candidates(ONE), with_candidates(TWO)).score(VERDICTS).metrics["kaggle"] == 0.0


def test_a_record_comes_back_from_json() -> None:
    record = recorded(with_candidates(ONE, TWO, tied=[[0, 1]], unreadable={"no cells": 2}, cut={"requests": 3}), with_candidates())
    assert record_from_json(json.loads(json.dumps(asdict(record)))) == record
    assert record.counts == {"requests": 3, "tokens decoded": 6, "tokens scored": 4, "candidates": 2, "unreadable": 2, "cut by requests": 3}


def test_where_the_adapted_policy_found_nothing_the_base_answers() -> None:
    base, adapted = recorded(with_candidates(ONE), with_candidates(TWO)), recorded(with_candidates(THREE), with_candidates())
    question = QuestionRecord(
        id="t", index=0, attempt=1, status="done", stop="steps", error=None, answer=None, answer_source="adapted",
        polls={"base": base, "adapted": adapted}, steps=1, tokens_sampled=0, tokens_trained=0, tokens_evaluated=0,
    )  # fmt: skip
    assert answers_of(question) == {("t", 0): (THREE,), ("t", 1): (TWO,)}
    assert answers_of(replace(question, answer_source=None, polls={})) == {}


def candidate(grid: Grid, *nlls: float, expert: float | None = None) -> Candidate:
    finds = tuple(Find(view=f"rt.ex{n}", grid=grid, nll=nll, group="Rot270") for n, nll in enumerate(nlls))
    return Candidate(grid=grid, find_F=finds, expert_nll={} if expert is None else {"tp": expert})


def test_the_most_promising_candidates_are_found_often_then_likely() -> None:
    rare, likely, often = candidate(ONE, 0.2), candidate(TWO, 0.1), candidate(THREE, 2.0, 2.0)
    assert promising([rare, likely, often], 3) == (rare, likely, often), "in the order in which they were found"
    assert promising([rare, likely, often], 2) == (likely, often)
    assert promising([rare, likely, often], 1) == (often,)


def test_records_are_ranked_and_those_without_a_score_are_last() -> None:
    every = [candidate(ONE, 0.1), candidate(TWO, 0.2, expert=3.0), candidate(THREE, 0.3, expert=1.0)]
    records = candidate_records(every, SELECTIONS["mul_aug_prob"](every[1:]))
    assert [(record.grid, record.score) for record in records] == [("3/3", -1.0), ("22", -3.0), ("1", None)]
    assert records[0].search_nll == {"rt.ex0": 0.3} and records[0].expert_nll == {"tp": 1.0}


def test_a_grid_that_marc_s_vote_makes_is_an_attempt() -> None:
    grids: list[Grid] = [((1, 1), (2, 2)), ((1, 1), (3, 3)), ((4, 4), (2, 2))]
    every = [candidate(grid, 0.1 * place) for place, grid in enumerate(grids)][:2]
    selected = SELECTIONS["marc"](every)
    records = candidate_records(every, selected)
    assert [record.grid for record in records] == [
        "/".join("".join(map(str, row)) for row in grid) for grid in dict.fromkeys(selected.grid_R)
    ]
    single = candidate_records(every[:1], SELECTIONS["marc"](every[:1]))
    assert len(single) == 1


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_selection_takes_no_candidates(name: str) -> None:
    assert SELECTIONS[name]([]).grid_R == ()


def test_the_selections_that_need_the_product_of_experts_are_the_others() -> None:
    without = [candidate(ONE, 0.1), candidate(TWO, 0.2)]
    for name, selection in SELECTIONS.items():
        if name in WITHOUT_EXPERTS:
            assert selection(without).grid_R
        else:
            with pytest.raises(ValueError, match="product of experts"):
                selection(without)
            with pytest.raises(UsageError, match=f"--selection {name} needs the product of experts"):
                RunConfig.of(selection=name, score_views=0)


def test_choices_agree_with_the_registries() -> None:
    assert set(get_args(CodecName)) == {"auto", *CODECS} and get_args(CodecName)[0] == "auto"
    assert get_args(SearchName) == tuple(SEARCHES)
    assert get_args(SelectionName) == tuple(SELECTIONS) and set(SELECTIONS) >= WITHOUT_EXPERTS
    assert get_args(get_type_hints(ArcTrainingSettings)["train_loss"]) == tuple(RULES)


@pytest.mark.parametrize("name", ["cells", "cells_16", "dialogue"])
def test_auto_is_the_codec_to_which_a_tokenizer_was_cut(name: str) -> None:
    small = small_vocabulary(name, codec_for(name, CELLS_16), CELLS_16)
    tokenizer = small_tokenizer(small.token_V, small.special, small.begin, small.end, small.pad)
    assert codec_name("auto", tokenizer) == name
    assert codec_name("numpy", tokenizer) == "numpy", "a name is taken as it is"


def test_auto_is_chat_for_a_large_vocabulary_and_one_line_for_a_small_one_that_fits_nothing() -> None:
    large = small_tokenizer([*(f"word{n}" for n in range(300)), *SPECIAL], SPECIAL, *SPECIAL)
    assert codec_name("auto", large) == "chat"
    with pytest.raises(UsageError, match="4 tokens fit no codec"):
        codec_name("auto", small_tokenizer(("x", *SPECIAL), SPECIAL, *SPECIAL))


@pytest.mark.parametrize("codec", ["cells", "dialogue"])
def test_a_codec_that_a_cut_model_was_not_cut_to_is_refused(tmp_path: Path, codec: str) -> None:
    with pytest.raises(UsageError, match=f"--codec {codec} writes what the model's 16 tokens do not have"):
        ChosenTasks(config_of(tmp_path, codec=codec)).build(CELLS_16, 4096)


def test_the_end_mark_of_the_codec_ends_a_response(tmp_path: Path) -> None:
    built_problems = ChosenTasks(config_of(tmp_path)).build(CELLS_16, 4096)
    assert built_problems.end_T == (CELLS_16.convert_tokens_to_ids("<end>"),)
    with pytest.raises(UsageError, match="ends a reply with a mark that is no special token"):
        end_token("cells", Cells(end="O"), CELLS_16)


def test_views_that_do_not_move_the_grid_vote_in_marc_s_group_for_them(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    kind, problem = kind_of(config), built(config)["single"]
    view_V = [View(), View.read("perm0213456789"), View.read("tp")]
    reply = Reply(token_T=problem.scribe.reply(ONE, ONE), logprob_T=(-0.1,))
    finds, _ = kind._read(problem, 0, view_V, [Found(reply_G=(reply,), requests=1, tokens=1)] * 3)
    assert [find.group for find in finds] == [None, None, "Transpose"]


def test_the_turns_of_a_vote_are_the_test_inputs(tmp_path: Path) -> None:
    problem = built(config_of(tmp_path))["four"]
    assert problem.turns == 2 and [turn.test for turn in problem.turn_S] == [0, 1]
    assert [text(problem.prompt_of(step)).rpartition("I")[2] for step in range(3)] == ["567\nO", "890\nO", "567\nO"]
    assert problem.prompt_T == problem.prompt_of(0)


def test_the_turns_of_rewards_are_demonstrations_that_the_prompt_does_not_show(tmp_path: Path) -> None:
    problem = built(config_of(tmp_path, adaptation_method="sttrl", reward="demonstrations", steps=8))["four"]
    assert problem.turns == 8
    for step in range(8):
        turn = problem.turn_of(step)
        assert turn.test is None and turn.puzzle.query == ((step % 4, step % 4 + 1, step % 4 + 2),)
        assert len(turn.puzzle.demos) == 3 and turn.puzzle.query not in [pair.input for pair in turn.puzzle.demos]
        assert text(problem.prompt_of(step)).count("<end>") == 3
        assert len(problem.prompt_of(step)) <= problem.longest_prompt


async def test_ballots_read_the_turn_that_was_asked(tmp_path: Path) -> None:
    config = config_of(tmp_path, adaptation_method="sttrl", reward="demonstrations", steps=8)
    problem, kind = built(config)["four"], kind_of(config)
    turn = problem.turn_of(5)
    assert turn.puzzle.answer is not None and turn.puzzle.query is not None
    right = problem.scribe.reply(turn.view.apply(turn.puzzle.query), turn.view.apply(turn.puzzle.answer))
    replies = [(right, "stop"), (right[:-1], "length"), ((10, 14), "stop")]
    rollouts = tuple(
        Rollout(seed=0, version=0, token_T=token_T, logprob_T=(0.0,) * len(token_T), finish=finish, text="")  # type: ignore[arg-type]
        for token_T, finish in replies
    )
    ballots = await kind.ballots(problem, Group(prompt_T=problem.prompt_of(5), rollout_G=rollouts))
    assert [answer.invalid for answer in ballots.answer_G] == [None, "cut", "unparsable"]
    assert ballots.answer_G[0].text == answer_text(-1, turn.puzzle.answer), "in the space of the task, and no answer to a test input"
    assert ballots.reward_G == (2.0, 0.0, 0.0)


def queries_of(kind: Arc, problem: TaskProblem) -> list[str]:
    return [text(row.token_T) for row in kind.rows(problem)]


def test_rows_with_all_demonstrations_learn_every_output_but_the_first(tmp_path: Path) -> None:
    config = config_of(tmp_path, ttt_rows=10)
    problem, kind = built(config)["four"], kind_of(config)
    rows = kind.rows(problem)
    assert len(rows) == 10 and rows == kind.rows(problem)
    for row in rows:
        learnt = text(tuple(token for token, weight in zip(row.token_T, row.weight_T, strict=True) if weight))
        assert text(row.token_T).count("<end>") == 4 and learnt.count("<end>") == 3
    assert len({row.token_T for row in rows}) > 5, "each has a view of its own"


def test_rows_with_a_held_out_demonstration_take_each_in_turn(tmp_path: Path) -> None:
    config = config_of(tmp_path, ttt_rows=8, train_form="held_out", train_loss="answer", train_colours="no")
    problem, kind = built(config)["four"], kind_of(config)
    learnt = [text(tuple(token for token, weight in zip(row.token_T, row.weight_T, strict=True) if weight)) for row in kind.rows(problem)]
    assert len(learnt) == 8 and all(answer.count("<end>") == 1 for answer in learnt)
    assert len(set(learnt[:4])) == 4, "the first view has every demonstration"


def test_a_task_with_one_demonstration_can_be_trained_on_searched_and_rewarded(tmp_path: Path) -> None:
    config = config_of(tmp_path, ttt_rows=4)
    problem, kind = built(config)["single"], kind_of(config)
    rows = kind.rows(problem)
    assert len(rows) == 4 and all(any(row.weight_T) for row in rows)
    rewarded = built(config_of(tmp_path, adaptation_method="sttrl", reward="demonstrations"))["single"]
    assert not any(turn.puzzle.demos for turn in rewarded.turn_S), "the prompt must not show the answer that is rewarded"


def test_the_context_drops_demonstrations_and_leaves_room_for_a_reply(tmp_path: Path) -> None:
    whole = built(config_of(tmp_path))["four"]
    reply = 932
    context = reply + len(whole.prompt_T) - 1
    problem = built(config_of(tmp_path), context)["four"]
    assert text(whole.prompt_T).count("<end>") == 4 and text(problem.prompt_T).count("<end>") < 4
    assert problem.longest_prompt + reply <= context
    first = built(config_of(tmp_path, drop_demos="first"), context)["four"]
    assert "I345\nO543" in text(first.prompt_T) and "I345\nO543" not in text(problem.prompt_T)


def test_max_prompt_tokens_shortens_prompts_but_never_lengthens_them_beyond_the_context(tmp_path: Path) -> None:
    limit = built(config_of(tmp_path))["four"].longest_prompt - 1
    assert built(config_of(tmp_path, max_prompt_tokens=limit))["four"].longest_prompt <= limit
    assert built(config_of(tmp_path, max_prompt_tokens=100_000), 932 + limit)["four"].longest_prompt <= limit


def test_a_task_that_does_not_fit_is_an_error_or_left_out(tmp_path: Path) -> None:
    big = {"train": [{"input": [[1] * 30] * 30, "output": [[1]]}], "test": [{"input": [[1]]}]}
    config = config_of(tmp_path, {**TASKS, "big": big})
    with pytest.raises(DataError, match="task big: a prompt with one demonstration has more than 268 tokens"):
        built(config, 1200)
    built_without = ChosenTasks(config.changed(on_bad_row="skip")).build(CELLS_16, 1200)
    assert [problem.id for problem in built_without.problems] == ["four", "single"]
    assert [skipped.field for skipped in built_without.skipped] == ["task big"]
    with pytest.raises(UsageError, match="A reply may need 932 tokens"):
        built(config, 900)


def test_a_faulty_task_is_an_error_or_left_out(tmp_path: Path) -> None:
    config = config_of(tmp_path, {**TASKS, "ragged": {"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": [{"input": [[1]]}]}})
    with pytest.raises(DataError, match="task ragged, demonstration 1, input"):
        ChosenTasks(config)
    built_without = ChosenTasks(config.changed(on_bad_row="skip")).build(CELLS_16, 4096)
    assert [problem.id for problem in built_without.problems] == ["four", "single"]
    assert str(built_without.skipped[0]).startswith(f"{tmp_path}/own_challenges.json, task ragged: ")
    config = config_of(tmp_path, {"ragged": {"train": [], "test": []}}, on_bad_row="skip")
    with pytest.raises(DataError, match="task ragged: there are no demonstrations"):
        ChosenTasks(config)


def test_a_run_knows_the_tasks_that_it_trains_on(tmp_path: Path) -> None:
    own, other = config_of(tmp_path), config_of(tmp_path, train_dataset=("arc-demo",))
    one, trained = ChosenTasks(own), ChosenTasks(other)
    assert one.revision == one.arc.fingerprint == trained.revision
    assert one.training_revision is None and trained.training_revision == read_tasks(ArcSpec(dataset="arc-demo")).fingerprint


def test_guesses_need_a_small_vocabulary(tmp_path: Path) -> None:
    large = small_tokenizer([*(f"word{n}" for n in range(300)), *SPECIAL], SPECIAL, *SPECIAL)
    with pytest.raises(UsageError, match="--search_guess lowest_nll needs a model with at most 64 tokens; this one has"):
        ChosenTasks(config_of(tmp_path, search_guess="lowest_nll", codec="numpy")).build(large, 4096)


def test_a_turn_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    """Held out, the small demonstration leaves only the large one, which is too long for the limit; the other way round fits."""
    odd = {"train": [{"input": [[1] * 12], "output": [[1]]}, PAIRS[0]], "test": [{"input": [[1]]}]}
    config = config_of(
        tmp_path, {"odd": odd}, adaptation_method="sttrl", reward="demonstrations", drop_demos="first", views=1, score_views=1
    )
    problem = built(config.changed(max_prompt_tokens=33))["odd"]
    assert 0 < problem.turns < 5 and all(len(problem.prompt_of(step)) <= 33 for step in range(problem.turns))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "slot": ({"adaptation_method": "slot"}, "--adaptation_method slot cannot adapt to arc-demo"),
    "memo_form": ({"adaptation_method": "memo", "memo_form": "token"}, "--memo_form token does nothing with arc-demo"),
    "question_column": ({"question_column": ("a",)}, "--question_column .* does nothing with arc-demo"),
    "prompt_format": ({"prompt_format": "{question}"}, "--prompt_format {question} does nothing with arc-demo"),
    "val_samples": ({"val_samples": 3}, "--val_samples 3 does nothing with arc-demo"),
    "ttt for questions": ({"dataset": "arithmetic-demo", "adaptation_method": "ttt"}, "ttt cannot adapt to arithmetic-demo"),
    "views": ({"dataset": "arithmetic-demo", "views": 3}, "--views 3 does nothing with arithmetic-demo"),
    "reward": ({"dataset": "arithmetic-demo", "reward": "demonstrations"}, "--reward demonstrations needs demonstrations"),
    "reward_exact": ({"reward_exact": 2.0, "adaptation_method": "sttrl"}, "--reward_exact 2.0 does nothing with --reward agreement"),
    "beam_width": ({"search": "greedy", "beam_width": 2}, "--beam_width 2 does nothing with --search greedy. Leave it out, or use"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_to_the_kind_is_refused_in_one_line(name: str) -> None:
    settings, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as caught:
        check_kind(RunConfig.of(**{"dataset": "arc-demo", **settings}))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2 and caught.value.hint


@pytest.mark.parametrize("method", ["sttrl", "ttrl", "ttft", "memo", "ttt", "none"])
def test_every_other_method_is_taken(method: str) -> None:
    assert check_kind(RunConfig.of(dataset="arc-demo", adaptation_method=method)) == "arc"


def test_a_method_is_refused_only_by_a_kind_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {method for entry in KINDS.values() for method in entry.unfit}
    assert named < set(METHODS), "a new method adapts to every kind of problem until one says that it cannot"
    (tmp_path / "fits_every_kind.py").write_text("from sttrl.methods.none import NoAdaptation as Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for dataset, kind in (("arc-demo", "arc"), ("arithmetic-demo", "questions")):
        assert check_kind(RunConfig.of(dataset=dataset, adaptation_method="fits_every_kind:Mine")) == kind


def test_parts_make_up_the_whole_and_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    tasks = {f"task{n}": {"train": PAIRS, "test": [{"input": [[n]]}]} for n in range(10)}
    whole = ChosenTasks(config_of(tmp_path, tasks)).ids
    parts = [ChosenTasks(config_of(tmp_path, tasks, part=(number, 3), seed=number)).ids for number in (1, 2, 3)]
    assert sorted(map(len, parts)) == [3, 3, 4] and sorted(sum(parts, ())) == sorted(whole)
    assert all(list(part) == sorted(part) for part in parts), "in the order of the data set"
    assert parts[0] != whole[:4], "not the first ones"
    assert ChosenTasks(config_of(tmp_path, tasks, part=(2, 3), limit=1)).ids == parts[1][:1]
    with pytest.raises(UsageError, match="--part 11 12 has no task"):
        ChosenTasks(config_of(tmp_path, tasks, part=(11, 12))).ids  # noqa: B018
    with pytest.raises(UsageError, match=r"--part is \(3, 2\)"):
        config_of(tmp_path, part=(3, 2))
