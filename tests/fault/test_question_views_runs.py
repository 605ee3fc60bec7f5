"""Views of questions in whole runs on the stand-in engine: votes, evaluations, the vote with the same tokens, kill and resume."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from stand_in import ByteTokenizer, Faults, StandIn, StandInPolicy, attempt, config_for, digest, results, rollouts
from test_kill import check_nothing_twice, run_and_die

from sttrl.config import RunConfig, to_plain
from sttrl.data import read_table
from sttrl.errors import StepError
from sttrl.ledger.journal import read_finished, read_lines
from sttrl.ledger.records import BallotsRecord
from sttrl.questions.answers import Judge
from sttrl.questions.options import option_spans
from sttrl.questions.paraphrases import NUMBER
from sttrl.questions.prompts import AskedQuestion
from sttrl.questions.records import poll_from_json
from sttrl.questions.source import ChosenQuestions
from sttrl.report.labels import Grades
from sttrl.report.summary import summarise
from sttrl.types import FinishReason, Objective, Problem, TrainGroup, UpdateStats

VIEWS = 4
METHODS: dict[str, dict[str, Any]] = {
    "sttrl": {"ties": "first"},
    "remax": {"adv_estimator": "remax"},
    "energy": {"voting_function": "energy"},
    "otb": {"adv_estimator": "optimal_token_baseline"},
    "two mini-batches": {"mini_batches": 2},
    "until": {"votes_until": 0.9},
    "balanced": {"train_samples": "balanced"},
    "guard": {"guard": ("frs", "mps"), "guard_window": 2, "advantage_shaping": "relative_entropy"},
    "restrain": {"reward": "restrain", "adv_estimator": "reinforce"},
    "scope": {"reward": "scope", "voting_function": "confidence", "confidence": "step_mean"},
    "ttft": {"adaptation_method": "ttft", "steps": 2},
    "memo": {"adaptation_method": "memo", "steps": 2},
    "none": {"adaptation_method": "none", "steps": None, "question_views": 1},
    "slot": {"adaptation_method": "slot", "steps": 1},
    "ttrl": {"adaptation_method": "ttrl", "steps": None, "epochs": 2, "train_batch_size": 2, "eval_every": 1, "checkpoint_every": 2},
}  # fmt: skip


@pytest.fixture
def choices(tmp_path: Path) -> Path:
    """Multiple-choice questions; the right option is the one with the number of the question in it."""
    path = tmp_path / "choices.jsonl"
    lines = [
        {"id": f"q{n}", "question": f"Number {n}?", "options": [f"it is {m}" for m in range(VIEWS)], "answer": "ABCD"[n % VIEWS]}
        for n in range(3)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def settings(folder: Path, choices: Path, method: str = "sttrl", **changes: Any) -> RunConfig:
    own: dict[str, Any] = {
        "dataset": str(choices), "limit": None, "prompt_format": "{question} Answer:", "steps": 2, "n_votes": 8, "n_train": 8,
        "question_views": VIEWS,
    }  # fmt: skip
    return config_for(folder, **{**own, **METHODS[method], **changes})


def built(config: RunConfig) -> Sequence[Problem]:
    return ChosenQuestions(config, read_table).build(ByteTokenizer(), None).problems


def shown(prompt_T: Sequence[int]) -> list[str]:
    """The options in the order of a prompt."""
    text = bytes(prompt_T).decode().removesuffix(" Answer:").rpartition("Please reason")[0].rstrip() or bytes(prompt_T).decode()
    spans = option_spans(text)
    assert spans is not None
    return [text[start:end] for start, end in spans]


def knowing(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
    """A model that knows the option "it is 2", wherever it stands; of four samples one errs."""
    place = shown(prompt_T).index("it is 2")
    return f"The answer is \\boxed{{{'ABCD'[place if digest('err', seed) % 4 else digest('which', seed) % VIEWS]}}}", "stop"


def first_place(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
    """A model that always takes option A."""
    return "The answer is \\boxed{A}", "stop"


def ballots_of(folder: Path) -> list[tuple[str, BallotsRecord]]:
    """The ballots of every step and poll of a run."""
    found: list[tuple[str, BallotsRecord]] = []
    for question in read_finished(folder, poll_from_json):
        found += [(name, poll.ballots) for name, poll in question.record.polls.items()]
        found += [("step", step.ballots) for step in question.steps if step.ballots is not None]
    return found


@pytest.mark.parametrize("method", [method for method in METHODS if method != "none"])
def test_every_vote_and_evaluation_is_spread_over_the_views_and_mapped_back(
    method: str, tmp_path: Path, choices: Path, judge: Judge
) -> None:
    config = settings(tmp_path / "run", choices, method)
    problems = built(config)
    attempt(config, StandIn(texts=knowing), judge, problems)
    finished = read_finished(tmp_path / "run", poll_from_json)
    assert {question.record.status for question in finished} == {"done"}
    for name, ballots in ballots_of(tmp_path / "run"):
        greedy = name in ("base", "adapted")
        assert ballots.view_G is not None and len(ballots.view_G) == len(ballots.answer_G)
        spread = ballots.view_G[:-1] if greedy else ballots.view_G
        assert spread == [number % VIEWS for number in range(len(spread))] and (not greedy or ballots.view_G[-1] == 0)
        letters = Counter(answer for answer in ballots.answer_G if answer is not None)
        assert letters["C"] >= len(ballots.answer_G) / 2, "it is 2 is option C of the file"
    for problem, question in zip(problems, finished, strict=True):
        assert isinstance(problem, AskedQuestion) and question.record.polls["base"].answer == "C"
        lines = [json.loads(line) for line in rollouts(tmp_path / "run")[f"{problem.id}.jsonl"].splitlines()]
        keys = {view.key for view in problem.view_V}
        assert {line["view"] for line in lines} == keys and len(keys) == VIEWS
        for line in lines:
            view = next(view for view in problem.view_V if view.key == line["view"])
            assert view.order is not None
            said = line["text"][-2]
            assert line["answer"] == "ABCD"[view.order["ABCD".index(said)]], (
                "the record has the letter of the file, the text that of the view"
            )


def test_a_model_that_prefers_a_place_elects_nothing(tmp_path: Path, choices: Path, judge: Judge) -> None:
    """Every option stands once at place A in four views, so each letter gets as many votes."""
    attempt(config := settings(tmp_path / "views", choices, ties="abstain"), StandIn(texts=first_place), judge, built(config))
    attempt(
        config := settings(tmp_path / "plain", choices, ties="abstain", question_views=1), StandIn(texts=first_place), judge, built(config)
    )
    for question in read_finished(tmp_path / "views", poll_from_json):
        assert question.record.stop == "tie" and question.record.polls["base"].election.share_C == [0.25] * VIEWS
    for question in read_finished(tmp_path / "plain", poll_from_json):
        assert question.record.stop == "unanimous" and question.record.answer == "A"
        assert all(ballots.view_G is None for _, ballots in ballots_of(tmp_path / "plain"))


def test_the_baseline_is_of_the_same_samples_as_the_first_vote(tmp_path: Path, choices: Path, judge: Judge) -> None:
    attempt(config := settings(tmp_path / "run", choices), StandIn(texts=knowing), judge, built(config))
    for question in read_finished(tmp_path / "run", poll_from_json):
        first, same = question.steps[0].ballots, question.record.polls["vote_same_tokens"].ballots
        assert first is not None and len(same.answer_G) >= len(first.answer_G)
        assert same.answer_G[: len(first.answer_G)] == first.answer_G and same.view_G[: len(first.answer_G)] == first.view_G


@pytest.mark.parametrize("method", ["sttrl", "ttrl"])
def test_a_killed_run_is_resumed_with_the_same_views(method: str, tmp_path: Path, choices: Path, judge: Judge) -> None:
    whole, cut = (settings(tmp_path / name, choices, method) for name in ("whole", "cut"))
    attempt(whole, StandIn(), judge, built(whole))
    chance, kills = random.Random(3), 0
    for _ in range(12):
        kills += run_and_die(cut, judge, chance.randrange(1, 50), built(cut))
    attempt(cut, StandIn(), judge, built(cut))
    assert kills >= 4
    check_nothing_twice(tmp_path / "cut")
    assert results(tmp_path / "cut") == results(tmp_path / "whole") and rollouts(tmp_path / "cut") == rollouts(tmp_path / "whole")


PARAPHRASED: dict[str, Any] = {"question_views": 3, "question_view_form": "paraphrases", "voting_function": "harmony", "temp": 0.5}


def rewriting(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
    """A model that rewrites a question, now and then not to the end, and otherwise answers."""
    _, asked_to, question = bytes(prompt_T).decode().partition("Reply with the rewritten question only.")
    if asked_to:
        numbers = ", ".join(NUMBER.findall(question))
        return f"Wording {seed % 1000}: which number is meant? {numbers}", "stop" if digest("rewrite", seed) % 3 else "length"
    return f"The answer is \\boxed{{{'ABCD'[answer % VIEWS]}}}", "stop"


def written(folder: Path) -> dict[str, list[str]]:
    lines = [line for line in read_lines(folder) if line["kind"] == "views"]
    assert len({line["id"] for line in lines}) == len(lines), "views are written once"
    return {line["id"]: line["texts"] for line in lines}


@pytest.mark.parametrize("method", ["sttrl", "ttrl"])
def test_paraphrases_are_journalled_before_they_are_asked_and_stay_after_a_kill(
    method: str, tmp_path: Path, choices: Path, judge: Judge
) -> None:
    whole, cut = (settings(tmp_path / name, choices, method, **PARAPHRASED) for name in ("whole", "cut"))
    attempt(whole, StandIn(texts=rewriting), judge, built(whole))
    texts, asked = written(tmp_path / "whole"), {problem.id: problem for problem in built(whole)}
    assert set(texts) == set(asked) and all(len(each) == 2 for each in texts.values()) and any("" in each for each in texts.values())
    views = {id: problem.with_views(texts[id]) for id, problem in asked.items()}
    for question in read_finished(tmp_path / "whole", poll_from_json):
        seen = views[question.record.id]
        assert isinstance(seen, AskedQuestion)
        lines = [json.loads(line) for line in rollouts(tmp_path / "whole")[f"{seen.id}.jsonl"].splitlines()]
        assert {line["view"] for line in lines} == {view.key for view in seen.view_V}
        tokens = sum(len(r["tokens"]) for r in lines if r.get("poll") in ("base", "adapted"))
        assert question.record.status == "done" and question.record.tokens_evaluated > tokens - sum(
            len(r["tokens"]) for r in lines if "step" in r
        )
    chance, kills = random.Random(5), 0
    for _ in range(12):
        kills += run_and_die(cut, judge, chance.randrange(1, 50), built(cut), rewriting)
    attempt(cut, StandIn(texts=rewriting), judge, built(cut))
    assert kills >= 4 and written(tmp_path / "cut") == texts
    assert results(tmp_path / "cut") == results(tmp_path / "whole") and rollouts(tmp_path / "cut") == rollouts(tmp_path / "whole")


def test_the_base_writes_with_its_own_seeds_and_is_asked_once(tmp_path: Path, choices: Path, judge: Judge) -> None:
    """A resumed training reads the journal: the engine of the second attempt is asked for no paraphrase."""
    config = settings(tmp_path / "run", choices, "ttrl", **PARAPHRASED)
    stopped = StandIn(Faults(plan={("update", 2): KeyboardInterrupt()}), texts=rewriting)
    with pytest.raises(KeyboardInterrupt):
        attempt(config, stopped, judge, built(config))
    before = written(tmp_path / "run")

    def only_answering(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
        assert b"Reply with the rewritten question only" not in bytes(prompt_T)
        return rewriting(prompt_T, seed, answer)

    attempt(config, StandIn(texts=only_answering), judge, built(config))
    assert len(before) == 3 and written(tmp_path / "run") == before
    assert {question.record.status for question in read_finished(tmp_path / "run", poll_from_json)} == {"done"}


def test_paraphrases_that_cannot_be_used_are_said_and_counted(tmp_path: Path, choices: Path, judge: Judge) -> None:
    """The base answers "no" to every request: each question is asked in its own words only, and no answer is given under every view."""

    def refusing(prompt_T: Sequence[int], seed: int, answer: int) -> tuple[str, FinishReason]:
        return ("no" if b"Reply with the rewritten question only" in bytes(prompt_T) else "I would rather not say."), "stop"

    config, said = settings(tmp_path / "run", choices, **PARAPHRASED), list[str]()
    attempt(config, StandIn(texts=refusing), judge, built(config), said)
    assert [line.strip() for line in said if "views" in line] == [f"q{n}: 0 of 2 views that the base wrote can be used" for n in range(3)]
    finished = list(read_finished(tmp_path / "run", poll_from_json))
    assert summarise(finished, Grades(verdicts={}), {}, to_plain(config))["views"] == {"wanted": 3, "fewer": 3}


def test_where_the_base_cannot_write_views_the_question_fails_and_the_others_go_on(tmp_path: Path, choices: Path, judge: Judge) -> None:
    config = settings(tmp_path / "run", choices, **PARAPHRASED)
    attempt(config, StandIn(Faults(plan={("sample", 1): StepError("no", "try")}), texts=rewriting), judge, built(config))
    statuses = [question.record.status for question in read_finished(tmp_path / "run", poll_from_json)]
    assert statuses == ["failed", "done", "done"]


@pytest.mark.parametrize("form", ["wordings", "paraphrases"])
def test_memo_averages_over_views_and_its_evaluations_ask_the_plain_question(
    form: str, tmp_path: Path, choices: Path, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    plain = StandInPolicy.update

    async def update(policy: StandInPolicy, groups: Sequence[TrainGroup], objective: Objective) -> UpdateStats:
        assert objective.loss == "marginal_entropy" and len(groups) == 1
        rows.append(len(groups[0].row_G))
        return await plain(policy, groups, objective)

    monkeypatch.setattr(StandInPolicy, "update", update)
    token: dict[str, Any] = {"memo_form": "token", "question_views": 3, "question_view_form": form}
    config = settings(tmp_path / "run", choices, "memo", prompt_format="Q: {question} Answer:", **token)
    attempt(config, StandIn(texts=rewriting), judge, built(config))
    attempt(
        plainly := settings(tmp_path / "none", choices, "none", prompt_format="Q: {question} Answer:"),
        StandIn(texts=rewriting),
        judge,
        built(plainly),
    )
    texts = list(written(tmp_path / "run").values()) if form == "paraphrases" else [["a", "b"]] * 3
    assert rows == [1 + len({text for text in each if text}) for each in texts for _ in range(2)]
    both = zip(*(read_finished(tmp_path / name, poll_from_json) for name in ("run", "none")), strict=True)
    for averaged, other in both:
        assert averaged.record.status == "done" and averaged.record.polls["base"] == other.record.polls["base"]
