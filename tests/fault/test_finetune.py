"""Fine-tuning on the stand-in engine: rows of a mix of data sets, the loss on held-out tasks, killed at any moment."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from arc_stand_in import TOKENIZER, ArcStandIn, arc_attempt, arc_config, text_of
from test_arc_runs import data_set, two_tests
from test_kill import KILLED, Instants

from sttrl.arc import training_set
from sttrl.arc.rows import ChosenRows
from sttrl.config import RunConfig
from sttrl.errors import DataError, UsageError
from sttrl.ledger.journal import read_lines
from sttrl.run.kind import check_kind

PAIRS = [{"input": [[n, 1]], "output": [[n, n, 1, 1], [n, n, 1, 1]]} for n in range(8)]


def generated(folder: Path) -> Path:
    """Two files of generated pairs, as re-arc has them."""
    (folder / "tasks").mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / "tasks" / f"{name}.json").write_text(json.dumps(PAIRS))
    (folder / "metadata.json").write_text(json.dumps({name: {"pso_difficulties": [n / 10 for n in range(8)]} for name in "ab"}))
    return folder


def finetuning(folder: Path, **changes: Any) -> RunConfig:
    """A small fine-tuning, held out: the two tasks of `two_tests`."""
    parent = folder.parent
    train = (f"{generated(parent / 're_arc')}*3", str(data_set(parent / "demo")))
    settings: dict[str, Any] = {
        "dataset": str(two_tests(parent / "data")), "adaptation_method": "finetune", "train_dataset": train, "pairs_per_task": (3, 4),
        "ttt_batch": 5, "ttt_epochs": 2, "eval_every": 2, "checkpoint_every": 2, "ttt_rows": 80, "views": 8, "score_views": 8,
    }  # fmt: skip
    config = arc_config(folder, **{**settings, **changes})
    check_kind(config)
    return config


def outcome(folder: Path) -> tuple[bytes, bytes]:
    """What must be the same byte for byte."""
    steps = [line for line in read_lines(folder) if line["kind"] == "trained"]
    return (folder / "results.jsonl").read_bytes(), json.dumps(steps[-1]).encode()


def test_a_fine_tuning_lowers_the_loss_on_held_out_tasks(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    engine, said = ArcStandIn(), list[str]()
    arc_attempt(finetuning(folder), engine, said)
    assert not engine.requests, "nothing is sampled"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["metrics"]["all"] == ["loss", "likelihood"] and summary["adapted"]["loss"] < summary["base"]["loss"]
    assert summary["gain"]["ci95_by_metric"]["loss"][0] < 0 < summary["gain"]["likelihood"]
    assert [row["step"] for row in summary["over_time"]] == [0, 2, 4, 6], "12 rows an epoch, five in a step"
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(step["id"], step["step"]) for step in steps] == [("all", number) for number in range(6)]
    lines = [line for line in read_lines(folder) if line["kind"] == "step"]
    assert summary["tokens"]["trained"] == sum(line["tokens_trained"] for line in lines) > 0
    assert (folder / "adapters" / "all" / "delta.json").exists()
    assert any(line.startswith("step 6 of 6, about 0:00:00 left") for line in said)


def test_rows_come_from_every_data_set_and_never_twice_alike(tmp_path: Path) -> None:
    chosen = ChosenRows(finetuning(tmp_path / "run"))
    chosen.build(TOKENIZER, 4096)
    training = chosen.training
    assert training is not None and len(training) == 2 * 3 + 6
    assert sorted(training.order(0)) == sorted(training.order(1)) == list(range(12)) and training.order(0) != training.order(1)
    epochs = [[training.row(number, epoch) for number in range(12)] for epoch in (0, 1)]
    texts = [text_of(row.token_T) for rows in epochs for row in rows if row is not None]
    assert len(texts) == 24 and max(Counter(texts).values()) == 1
    assert [text.count("\nO") for text in texts[:6]] == [3, 4, 3, 3, 4, 3], "the sizes come in turn"
    assert [training.row(number, 0) for number in range(12)] == epochs[0]


def test_the_easiest_generated_pairs_are_left_out(tmp_path: Path) -> None:
    chosen = ChosenRows(finetuning(tmp_path / "run", drop_easiest=0.5, train_colours="no", pairs_per_task=(4,)))
    chosen.build(TOKENIZER, 4096)
    assert chosen.training is not None
    texts = [text_of(row.token_T) for number in range(6) if (row := chosen.training.row(number, 0)) is not None]
    assert len(texts) == 6 and not any(str(easy) in text for text in texts for easy in (0, 2, 3))


def test_rows_that_do_not_fit_are_no_silent_steps(tmp_path: Path) -> None:
    said = list[str]()
    config = finetuning(tmp_path / "run", max_prompt_tokens=20, ttt_epochs=1)
    arc_attempt(config.changed(train_dataset=config.arc_training.train_dataset[1:]), said=said)
    assert any("no update (gate: too_long)" in line for line in said)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no training set": ({"train_dataset": ()}, "finetune needs a training set"),
    "one pair": ({"pairs_per_task": (1,)}, "--pairs_per_task is .*Use numbers of 2 or more"),
    "rows of ttt": ({"ttt_rows": 3}, "--ttt_rows 3 does nothing with --adaptation_method finetune"),
    "votes": ({"n_votes": 32}, "--n_votes 32 does nothing with --adaptation_method finetune"),
    "temperature": ({"temp": 0.5}, "--temp 0.5 does nothing with --adaptation_method finetune"),
    "views": ({"views": 3}, "--views 3 does nothing"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(UsageError, match=message) as stop:
        ChosenRows(finetuning(tmp_path / "run", **changes))
    assert "\n" not in str(stop.value)


def test_generated_tasks_have_every_symmetry_and_new_pairs_in_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: list[int] = []
    drawn = training_set.drawn_view
    monkeypatch.setattr(training_set, "drawn_view", lambda demos, number, *rest: numbers.append(number % 8) or drawn(demos, number, *rest))
    chosen = ChosenRows(finetuning(tmp_path / "run", pairs_per_task=(3,), train_dataset=(f"{generated(tmp_path / 're_arc')}*8",)))
    chosen.build(TOKENIZER, 4096)
    (part,) = chosen.parts
    for epoch in (0, 1):
        numbers.clear()
        assert all(chosen.training.row(number, epoch) is not None for number in range(16))  # type: ignore[union-attr]
        assert sorted(numbers) == sorted([*range(8), *range(8)])
    first, again, later = ([part.task(number, epoch)[0].demos for number in range(16)] for epoch in (0, 0, 1))
    assert first == again != later


def test_too_few_pairs_and_faulty_files_are_named_before_anything_starts(tmp_path: Path) -> None:
    config = finetuning(tmp_path / "run", pairs_per_task=(9,))
    with pytest.raises(DataError, match="a.json: 8 pairs to use, and 9 are needed"):
        ChosenRows(config)
    small = config.changed(pairs_per_task=(3,), train_dataset=(f"{tmp_path / 're_arc'}",))
    file = tmp_path / "re_arc" / "tasks" / "b.json"
    file.write_text(json.dumps([*PAIRS[:7], {"input": [[1], [2, 3]], "output": [[1]]}]))
    with pytest.raises(DataError, match="b.json, task b, pair 8, input: "):
        ChosenRows(small)
    file.write_text("[{")
    with pytest.raises(DataError, match="b.json"):
        ChosenRows(small)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    whole = finetuning(tmp_path / "whole", ttt_epochs=1)
    arc_attempt(whole)
    expected, last = outcome(tmp_path / "whole"), 0
    for number, instant in enumerate(range(1, 10_000, 11)):
        config = finetuning(tmp_path / f"killed{number}", ttt_epochs=1)
        child = os.fork()
        if child == 0:
            try:
                instants = Instants(last=instant)
                instants.install(pytest.MonkeyPatch())
                arc_attempt(config, ArcStandIn())
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED)
        arc_attempt(config)
        assert outcome(tmp_path / f"killed{number}") == expected
        last = number
        if status == 0:
            break
    assert last >= 5, "there were moments to be killed at"
