"""Sessions on the stand-in engine: what `sttrl.Session` and `sttrl.AsyncSession` answer, keep, refuse and survive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import MODEL, SETTINGS, TOKENIZERS, Lane, lanes_into, until
from stand_in import Faults

import sttrl
from sttrl.errors import DataError, EngineError, UsageError

SMALL: dict[str, Any] = {"method": "sttrl", "steps": 2, "n_votes": 8, "n_train": 4, "val_samples": 4}
REFUSED = (UsageError, DataError)


@contextmanager
def opened(lanes: list[Lane], folder: Path | None = None, faults: Faults | None = None, **settings: Any) -> Iterator[sttrl.Session]:
    """A session. ``lanes``: gets those that are started."""
    session = sttrl.Session(MODEL, output_dir=folder, start_lanes=lanes_into(lanes, faults=faults), **{**SETTINGS, **settings})
    session.twin.shared = TOKENIZERS
    with session:
        yield session
    assert not any(lane.open for lane in lanes), "forks are left open"


def test_a_question_is_adapted_to_and_asked_once(tmp_path: Path) -> None:
    lanes: list[Lane] = []
    with opened(lanes, tmp_path) as session:
        answer = session.solve("What is 9 * 4?", label="36", **SMALL)
        assert answer.status == "done" and answer.text and answer.answer in answer.text and answer.right is False
        assert len(answer.votes) == len(answer.steps) == 2 and answer.base.text and answer.base.vote is not None
        of_steps = [sample for sample in answer.samples if sample.step is not None]
        assert len(of_steps) == 2 * 8 and sum(sample.evaluation == "base" for sample in answer.samples) == 5
        assert answer.tokens.trained > 0 and answer.adapter is not None
        asked = len(lanes[0].asked)
        assert session.solve("What is 9 * 4?", label="36", **SMALL) == answer and len(lanes[0].asked) == asked
        other = session.solve("What is 9 * 4?", label="36", **{**SMALL, "seed": 1})
        assert other.folder != answer.folder and len(lanes[0].asked) > asked
        assert sttrl.load_run(answer.folder).status == "finished"
    with opened(lanes, tmp_path) as session:
        assert session.solve("What is 9 * 4?", label="36", **SMALL) == answer and not lanes[1].asked, "kept in the folder"


def test_several_questions_are_in_flight_and_keep_their_order(tmp_path: Path) -> None:
    lanes, seen = list[Lane](), list[tuple[int, int]]()
    questions = [f"What is {n} + 1?" for n in range(5)]
    with opened(lanes, tmp_path, parallel_problems=3) as session:
        answers = session.solve_all(questions, progress=lambda done, every: seen.append((done, every)), **SMALL)
    assert [answer.question for answer in answers] == questions and seen == [(n, 5) for n in range(1, 6)]
    assert 2 <= lanes[0].most_open <= 6, "three questions, two forks each"
    with opened(lanes, tmp_path / "alone", parallel_problems=1) as session:
        alone = session.solve_all(questions, **SMALL)
    assert [(a.text, a.answer, a.tokens) for a in alone] == [(a.text, a.answer, a.tokens) for a in answers], "company changes nothing"


def test_the_messages_of_a_conversation_reach_the_model(tmp_path: Path) -> None:
    lanes: list[Lane] = []
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "And 9 * 4?"},
    ]
    with opened(lanes, tmp_path) as session:
        answer = session.solve(talk, **SMALL)
        assert answer.question == "And 9 * 4?"
        read = lanes[0].tokenizer.decode(lanes[0].asked[0].prompt_T)
        places = [read.index(text) for text in ("Be brief.", "1 + 1", "2", "And 9 * 4?")]
        assert places[0] < places[1] < places[3]
        session.sample(talk)
        assert lanes[0].asked[-1].prompt_T == lanes[0].asked[0].prompt_T
        with pytest.raises(REFUSED):
            session.solve(talk[:-1], **SMALL)


def test_a_kept_adapter_answers_as_its_policy_did(tmp_path: Path) -> None:
    lanes: list[Lane] = []
    with opened(lanes, tmp_path) as session:
        answer = session.solve("What is 9 * 4?", **{**SMALL, "steps": 6})
        (greedy,) = session.sample("What is 9 * 4?", adapter=answer, temperature=0)
        assert greedy.text == answer.text
        assert session.sample("What is 9 * 4?", adapter=answer.adapter, temperature=0)[0].text == answer.text
        drawn = session.sample("What is 9 * 4?", 6, seed=4, top_logprobs=2, max_tokens=2)
        assert [r.seed for r in drawn] == [4, 5, 6, 7, 8, 9] and all(len(r.token_T) == 2 and len(r.top_T[0]) == 2 for r in drawn)
        assert session.sample("What is 9 * 4?", 6, seed=4, top_logprobs=2, max_tokens=2) == drawn
        with pytest.raises(UsageError, match="is no folder"):
            session.sample("What?", adapter=tmp_path / "none")


def test_what_a_session_cannot_do_is_one_line(tmp_path: Path) -> None:
    for settings, said in (
        ({"stepz": 3}, "There is no setting stepz"),
        ({"dataset": "x"}, "dataset is no setting of a session"),
        ({"temp": -1}, "temp"),
        ({"temp": "hot"}, "temp"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            sttrl.Session(MODEL, **settings)
        assert "\n" not in str(caught.value)
    lanes: list[Lane] = []
    with opened(lanes, tmp_path) as session:
        for question, settings, said in (
            ("What?", {"steps": -1}, "steps"),
            ("What?", {"n_train": 9, "n_votes": 4}, "n_train"),
            ("What?", {"max_response_tokens": 500}, "the session was started for"),
            ("What?", {"lora_rank": 99}, "The session's engine was started with another"),
            ("word " * 500, {}, "tokens"),
        ):
            with pytest.raises(REFUSED, match=said) as refused:
                session.solve(question, **settings)
            assert "\n" not in str(refused.value)
        assert not lanes[0].asked and len(lanes) == 1
        assert session.solve("What is 1 + 1?", **{**SMALL, "n_votes": 100}).votes, "more votes than fit at once only take longer"
    with pytest.raises(RuntimeError, match="not open"):
        session.solve("What?")


@pytest.mark.parametrize("at", [1, 3])
def test_an_engine_that_dies_is_started_again(at: int, tmp_path: Path) -> None:
    lanes: list[Lane] = []
    with opened(lanes, tmp_path / "whole") as session:
        whole = session.solve("What is 9 * 4?", **SMALL)
    lanes.clear()
    dies = Faults({("sample", at): EngineError("The sampler died.", "Run again.")})
    with opened(lanes, tmp_path / "dies", faults=dies) as session:
        answer = session.solve("What is 9 * 4?", **SMALL)
        assert len(lanes) == 2 and (answer.text, answer.tokens) == (whole.text, whole.tokens)
        lanes[1].faults.plan["sample", lanes[1].faults.calls["sample"] + 1] = EngineError("Again.")
        assert session.sample("What is 9 * 4?") and len(lanes) == 3


async def test_the_twin_without_threads_answers_many_at_once(tmp_path: Path) -> None:
    lanes: list[Lane] = []
    session = sttrl.AsyncSession(MODEL, output_dir=tmp_path, start_lanes=lanes_into(lanes), **SETTINGS)
    session.shared = TOKENIZERS
    async with session:
        one, other, same, samples = await asyncio.gather(
            session.solve("What is 9 * 4?", **SMALL),
            session.solve("What is 5 - 2?", **SMALL),
            session.solve("What is 9 * 4?", **SMALL),
            session.sample("What is 9 * 4?", 2),
        )
        assert one == same and one.id != other.id and len(samples) == 2
        lanes[0].holds["update"] = asyncio.Event()
        left = asyncio.create_task(session.solve("What is 1 + 1?", **SMALL))
        await until(lambda: lanes[0].held["update"] == 1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert not lanes[0].open and not session.turns
        lanes[0].holds.clear()
        assert (await session.solve("What is 1 + 1?", **SMALL)).text, "it goes on after an interrupt"


def test_without_a_folder_nothing_stays(tmp_path: Path) -> None:
    lanes: list[Lane] = []
    with opened(lanes) as session:
        folder = session.solve("What is 9 * 4?", **SMALL).folder
        assert json.loads((folder / "config.json").read_text())["n_votes"] == 8
    assert not folder.exists()
