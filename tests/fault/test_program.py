"""The whole program from command to exit code, with the stand-in where the engine is."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stand_in import ByteTokenizer, Faults, InlineJudge, Planned, StandIn, rollouts

from sttrl import cli
from sttrl.engine import model_checks
from sttrl.errors import DivergedError, EngineError
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import JOURNAL
from sttrl.questions import kind
from sttrl.run.workshop import Workshop


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., int]]:
    """`sttrl.cli.main` on the stand-in: everything but model, tokenizer and engine is the real thing."""
    state = SimpleNamespace(engine=None, main="a" * 40, context=2048)

    def model_folder(name: str, trust: bool, *, revision: str | None) -> Path:
        if name == "wrong/model":
            raise EngineError("wrong/model is gated.", "Accept its terms.")
        return Path("snapshots", revision or state.main) if name == "hub/model" else Path(name)

    models = SimpleNamespace(
        cached_numbers=lambda folder: None,
        commit_of=lambda folder: folder.name if folder.parent.name == "snapshots" else None,
        context_length=lambda folder: state.context,
        first_use=lambda name: None,
        load_tokenizer=lambda folder, trust: ByteTokenizer(),
        local_file=lambda name, file, revision: None,
        model_folder=model_folder,
        stop_token_ids=lambda folder, tokenizer: (0,),
    )
    monkeypatch.setitem(sys.modules, "sttrl.engine.models", models)
    monkeypatch.setattr(model_checks, "check_fit", lambda *_: None)
    monkeypatch.setitem(sys.modules, "sttrl.engine.lanes", SimpleNamespace(RayEngine=lambda *settings: state.engine))
    monkeypatch.setattr(kind, "Judge", InlineJudge)
    monkeypatch.chdir(tmp_path)

    def run(*flags: str, engine: StandIn | None = None) -> int:
        state.engine = engine or StandIn()
        small = {"steps": 2, "n_votes": 7, "n_train": 7, "val_samples": 3, "max_response_tokens": 64, "ties": "first"}
        return cli.main([*(f"--{name}={value}" for name, value in small.items()), "--prompt_format", "{question}", *flags])

    run.state = state  # type: ignore[attr-defined]
    yield run


def write_rows(path: Path, answers: list[int | None]) -> None:
    """Four questions with these labels; None leaves the label out."""
    rows = [{"id": f"q{n}", "question": f"What is {n} + 1?", **({} if a is None else {"answer": str(a)})} for n, a in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def untimed(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the clock."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def test_labels_are_out_of_reach(program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    for name, answers in (("right", [1, 2, 3, 4]), ("shuffled", [3, 1, 4, 2]), ("deleted", [None] * 4), ("half", [1, None, 2, None])):
        write_rows(tmp_path / "rows.jsonl", answers)
        assert program("--dataset", "rows.jsonl", "--answer_kind", "number", "--run_name", name) == 0
        folder = tmp_path / "outputs" / name
        adapters = {path.relative_to(folder): path.read_bytes() for path in (folder / "adapters").rglob("*") if path.is_file()}
        seen.append(((folder / "results.jsonl").read_bytes(), untimed(folder / "metrics.jsonl"), rollouts(folder), adapters))
    assert seen[0][0] and seen[0][1] and seen[0][2] and seen[0][3]
    assert all(each == seen[0] for each in seen[1:])
    summaries = [json.loads((tmp_path / "outputs" / name / "summary.json").read_text()) for name in ("right", "shuffled", "deleted")]
    assert summaries[0]["base"] != summaries[1]["base"], "the labels do enter, in the report"
    assert summaries[2]["base"] is None


def test_the_program_from_command_to_table(program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("--limit", "3", "--run_name", "r") == 0
    said = capsys.readouterr()
    assert "base" in said.out and "adapted" in said.out and said.out.endswith("run folder: outputs/r\n")
    assert "[3/3]" in said.err
    names = {path.name for path in (tmp_path / "outputs" / "r").iterdir()}
    assert names >= {
        "config.json",
        "environment.json",
        JOURNAL,
        "results.jsonl",
        "metrics.jsonl",
        "rollouts",
        "adapters",
        "report.html",
        "summary.json",
    }
    journal = (tmp_path / "outputs" / "r" / JOURNAL).read_bytes()
    assert program("--limit", "3", "--run_name", "r", engine=StandIn(Faults({("start", 1): RuntimeError("not needed")}))) == 0
    assert (tmp_path / "outputs" / "r" / JOURNAL).read_bytes() == journal, "a finished run starts no engine"
    assert capsys.readouterr().out == said.out


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal: a shell's background jobs inherit one that is ignored, and a program then rightly ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_exit_codes_of_a_run(program: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    def engine(place: tuple[str, int], error: Planned) -> StandIn:
        return StandIn(Faults({place: error}))

    diverged = DivergedError("The loss is not finite.", "Use a smaller --lr.")
    assert program("--run_name", "a", "--limit", "2", engine=engine(("update", 1), diverged)) == 5
    assert "error: 1 of 2 questions failed or diverged" in capsys.readouterr().err
    assert program("--run_name", "b", "--limit", "2", engine=engine(("sample", 3), EngineError("The sampler died."))) == 4
    assert capsys.readouterr().err.splitlines()[-1] == "error: The sampler died."
    for name in ("SIGINT", "SIGTERM"):
        interrupted = engine(("sample", 3), lambda name=name: signal.raise_signal(signal.Signals[name]))  # type: ignore[misc]
        assert program("--run_name", name, "--limit", "2", engine=interrupted) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "interrupted; run the same command again to go on"
        assert program("--run_name", name, "--limit", "2") == 0
    assert program("--run_name", "c", "--limit", "2") == 0
    assert program("--run_name", "c", "--limit", "2", "--seed", "9") == 2
    assert "--seed 0 then, 9 now" in capsys.readouterr().err


def test_a_sigterm_between_two_runs_ends_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    class Warm:
        settings = SimpleNamespace(covers=lambda other: True)

        def log_to(self, folder: Path) -> None:
            pass

        async def close(self) -> None:
            pass

    async def run() -> None:
        await asyncio.sleep(0.1)  # the judge starts
        await workshop.ready(SimpleNamespace(settings=None), Path())  # type: ignore[arg-type]
        await asyncio.sleep(0.1)
        finished.append(True)

    finished = list[bool]()
    monkeypatch.setitem(sys.modules, "sttrl.engine.lanes", SimpleNamespace(RayEngine=None))
    with Workshop(lambda line: None) as workshop:
        workshop.lanes = [Warm()]
        workshop.do(run())
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            workshop.do(run())
    assert len(finished) == 1


def test_a_run_that_never_began_leaves_its_folder_free(program: Callable[..., int], tmp_path: Path) -> None:
    """A wrong --model with --run_name must not forbid the right one."""
    assert program("--run_name", "r", "--limit", "1", "--model", "wrong/model") == 4
    assert program("--run_name", "r", "--limit", "1", "--model", "right/model") == 0
    assert json.loads((tmp_path / "outputs" / "r" / CONFIG).read_text())["model"] == "right/model"
    assert program("--run_name", "r", "--limit", "1", "--model", "wrong/model") == 2


@pytest.mark.parametrize("flags", [("--model", "wrong/model"), ("--max_response_tokens", "2048"), ("--dataset", "gone.jsonl")])
def test_a_refused_start_leaves_nothing(flags: tuple[str, ...], program: Callable[..., int], tmp_path: Path) -> None:
    assert program("--run_name", "r", "--limit", "1", *flags) in (2, 3, 4)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_does_not_start_leaves_its_logs_and_nothing_empty(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = EngineError("1 lanes of 1 GPUs need 1, and Ray has 0.", "Use fewer --lanes.")
    lost = EngineError("The sampler died: killed.", "Run the same command again.")
    lost.__cause__ = RuntimeError("what another process said")
    assert program("--run_name", "r", "--limit", "1", engine=StandIn(Faults({("start", 1): refused}))) == 4
    assert not (tmp_path / "outputs" / "r").exists()
    assert program("--run_name", "r", "--limit", "1", engine=StandIn(Faults({("start", 1): lost}))) == 4
    said = capsys.readouterr().err.splitlines()[-1]
    file = tmp_path / said.removesuffix(".").rpartition(" ")[2]
    assert said.startswith("error: The sampler died: killed. Run the same command again. The traceback is in outputs/r/logs/attempt_1/")
    assert "RuntimeError: what another process said" in file.read_text()
    assert program("--run_name", "r", "--limit", "1") == 0


def test_a_prompt_that_fills_the_context_is_told_what_would_work(program: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    program.state.context = 10  # type: ignore[attr-defined]
    assert program("--run_name", "r", "--limit", "1") == 2
    said = capsys.readouterr().err
    assert "The prompt of question '2-plus-5' has" in said and "--max_response_tokens" not in said
    assert "Use another model, or leave such questions out with --max_prompt_tokens 9 --on_bad_row skip." in said


def test_a_run_keeps_the_revision_of_the_hub_that_it_began_with(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--run_name", "r", "--limit", "2", "--model", "hub/model")
    assert program(*flags, engine=StandIn(Faults({("sample", 3): EngineError("The sampler died.")}))) == 4
    config = tmp_path / "outputs" / "r" / CONFIG
    began = json.loads(config.read_text())
    assert (began["model_revision"], began["dataset_revision"]) == ("a" * 40, None)
    program.state.main = "b" * 40  # type: ignore[attr-defined]
    assert program(*flags) == 0, "the model on the hub has changed; the run goes on with what it began with"
    assert json.loads(config.read_text()) == began
    config.write_text(json.dumps(began | {"model_revision": None}))
    with (tmp_path / "outputs" / "r" / JOURNAL).open("rb+") as journal:
        journal.truncate((tmp_path / "outputs" / "r" / JOURNAL).read_bytes().index(b"\n") + 1)
    assert program(*flags) == 2
    assert f"model revision None then, '{'b' * 40}' now" in capsys.readouterr().err, "a folder then, the hub now"
    assert program("--run_name", "s", "--limit", "1", "--model", "hub/model") == 0
    assert json.loads((tmp_path / "outputs" / "s" / CONFIG).read_text())["model_revision"] == "b" * 40


def test_prompts_that_are_too_long_start_no_engine_again(program: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "1 + 1?", "answer": "2"}\n' + json.dumps({"question": "?" * 99, "answer": "2"}) + "\n"
    )
    flags = ("--dataset", "rows.jsonl", "--max_prompt_tokens", "90", "--run_name", "r", "--prompt_format", "{question}")
    assert program(*flags) == 3, "stop is the default"
    assert program(*flags[:-3], "s", *flags[-2:], "--on_bad_row", "skip") == 0
    assert (
        program(*flags[:-3], "s", *flags[-2:], "--on_bad_row", "skip", engine=StandIn(Faults({("start", 1): RuntimeError("not needed")})))
        == 0
    )
