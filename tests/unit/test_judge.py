"""The judge: classes, hostile answers, lost workers, and the same verdict wherever it runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sttrl.errors import EngineError
from sttrl.questions.answers import Judge, JudgeConfig, Limits, NoVerdict, read_answer
from sttrl.questions.answers.equivalence import decide
from sttrl.questions.answers.pool import Worker
from sttrl.types import Ballots, FinishReason
from sttrl.voting import VoteConfig, majority

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("STTRL_DATA", ROOT.parent / "shared" / "data"))
HONEST = (r"\frac{\sqrt{3}}{2}", "0.5", "1/2", "(1,2]")
HONEST_CLASSES = (0, 1, 1, 2)
SAME_EVERYWHERE = (
    "power tower", "exponent hidden in a fraction", "binomial of great numbers", "5000 balanced braces", "begin bomb", "set of radicals",
    "division by zero", "python code", "NUL bytes", "Arabic digits", "one megabyte of open boxes", "unbalanced", "twelve nested roots",
)  # fmt: skip


def written(recipe: dict[str, Any]) -> str:
    (part, times), (closing, closing_times) = recipe.get("repeat", ("", 0)), recipe.get("close", ("", 0))
    text = recipe.get("before", "") + part * times + recipe.get("after", "") + closing * closing_times
    return f"\\boxed{{{text}}}" if recipe.get("boxed", True) else text


CORPUS = {r["name"]: written(r) for r in map(json.loads, (ROOT / "tests/golden/hostile_answers.jsonl").read_text().splitlines())}


def boxed(*answers: str) -> list[tuple[str, FinishReason]]:
    return [(f"\\boxed{{{answer}}}", "stop") for answer in answers]


def rss_mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):
        return 0.0


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    judge = Judge()
    yield judge
    judge.close_sync()


def among_honest(judge: Judge, hostile: str) -> Ballots:
    return judge.ballots_sync("math", [*boxed(*HONEST), (hostile, "stop")])


def survives(judge: Judge, name: str) -> None:
    """The hostile answer stands first and so is what every other one is compared with."""
    before_s = judge.statistics.cpu_s
    ballots = judge.ballots_sync("math", [(CORPUS[name], "stop"), *boxed(*HONEST)])
    assert judge.statistics.cpu_s - before_s < 6, name
    honest = [c for c in ballots.class_G[1:] if c is not None]
    assert tuple(map(list(dict.fromkeys(honest)).index, honest)) == HONEST_CLASSES, name


async def test_classes_and_representatives(judge: Judge) -> None:
    texts = boxed("0.5", r"\frac12", "3", "2(k+1)", "2k+2")
    ballots = await judge.ballots("math", [("nothing here", "stop"), *texts, (r"\boxed{3}", "length")])
    assert ballots.class_G == (None, 0, 0, 1, 2, 2, None)
    assert ballots.representative_C == ("0.5", "3", "2(k+1)")
    assert [a.invalid for a in ballots.answer_G] == ["unparsable", None, None, None, None, None, "cut"]


async def test_choices_compare_only_exactly(judge: Judge) -> None:
    ballots = await judge.ballots("choice", [*boxed("B", r"\text{(B)}", "C"), ("none", "stop")])
    assert ballots.class_G == (0, 0, 1, None) and ballots.representative_C == ("B", "C")
    assert await judge.equal("choice", "A", "(A)") is True and await judge.equal("choice", "A", "B") is False


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("025", "25", True),
        ("142", "142.0", True),
        ("1000", "1,000", True),
        ("5", "x = 5", True),
        ("(1,2)", "1<x<2", True),
        ("1<x<2", "(1,2)", True),
        (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt{3}}", True),
        (r"\frac{275}{2}", r"137 \frac{1}{2}", True),
        ("3,5,7", "7, 5, 3", True),
        (r"1 \pm \sqrt{19}", r"\{1+\sqrt{19}, 1-\sqrt{19}\}", True),
        (r"50\%", "50.0 %", True),
        (r"5.4 \text{ cents}", "5.4", True),
        (r"\text{Evelyn}", "evelyn", True),
        (r"\frac{1}{2}", "2", False),
        ("10 %", "0.1", False),
        ("10 %", "10", False),
        ("listen", "silent", False),
        ("204_5", "204_6", False),
        ("(3,5)", "(5,3)", False),
        ("(1,2)", "[1,2]", False),
        ("2 3", "5", False),
        ("5m", "5", False),
        (r"\cot x", r"\tan x", False),
        ("10^{20}", "10^{20}+1", False),
        (r"(-\infty,2)", r"(-\infty,2]", False),
        ("9" * 500, "9" * 500, False),
    ],
)
async def test_equal(judge: Judge, a: str, b: str, verdict: bool) -> None:
    assert await judge.equal("math", a, b) is verdict
    assert await judge.equal("math", b, a) is verdict


def test_exact_rules_keep_apart_what_algebra_blurs() -> None:
    assert decide("10%", "0.1") is False and decide("24", "25") is False and decide(r"0.5\pi", r"\frac{\pi}{2}") is None


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("x^2+3x-6", "-6+x^2+3X", True),
        ("x^2+3x-6", "x^2+3x+6", False),
        ("x^2+3x-6", "y^2+3y-6", False),
        ("2x+x", "3x", None),
        ("x-x+1", "y-y+1", None),
        ("x^{12}+1", "x^12+1", None),
        ("3+2i", "2i+3", None),
        ("x+y", "y+x", None),
        ("2x+1", "7", None),
        (r"2\sqrt{3}", r"\sqrt{12}", True),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", True),
        (r"-\frac{2\sqrt{3}}{3}", r"\frac{-2}{\sqrt{3}}", True),
        (r"-\frac{-2\sqrt{3}}{3}", r"\frac{2}{\sqrt{3}}", True),
        (r"-\sqrt{3}", r"\sqrt{3}", False),
        (r"\sqrt{3}", r"\sqrt{5}", False),
        (r"\sqrt{4}", "2", None),
        (r"0\sqrt{4}", r"0\sqrt{5}", None),
        (r"\frac{\sqrt{4}}{0}", r"\sqrt{5}", None),
        (r"\sqrt{\sqrt{4}}", r"\sqrt{2}", None),
        ("(1,-2)", "(1,2)", False),
        ("[1,2)", "[1,3)", False),
        ("[1,2)", "[1,2]", False),
        ("[3,1)", "[5,1)", False),
        ("(1,2)", "1<x<2", None),
    ],
)
def test_polynomials_roots_and_integers_in_brackets_are_compared_by_value(a: str, b: str, verdict: bool | None) -> None:
    assert decide(a, b) is verdict and decide(b, a) is verdict


async def test_an_unparsable_answer_does_not_become_a_winning_empty_string(judge: Judge) -> None:
    ballots = await judge.ballots("math", [("I do not know", "stop")] * 5 + boxed("7"))
    election = majority(ballots, VoteConfig())
    assert election.answer == "7" and election.in_winner_G == (0.0,) * 5 + (1.0,) and "" not in ballots.representative_C


async def test_the_elected_label_is_not_extracted_a_second_time(judge: Judge) -> None:
    election = majority(await judge.ballots("number", boxed(r"\frac{1}{2}", r"\frac{1}{2}", "2")), VoteConfig())
    assert election.answer == r"\frac{1}{2}" and election.in_winner_G == (1.0, 1.0, 0.0)
    assert await judge.equal("number", election.answer, "0.5") is True and await judge.equal("number", election.answer, "2") is False


async def test_a_text_cut_at_the_limit_does_not_vote(judge: Judge) -> None:
    cut: list[tuple[str, FinishReason]] = [("so far we have 9", "length")] * 5
    election = majority(await judge.ballots("number", [*cut, ("The answer is 4.", "stop")]), VoteConfig())
    assert election.answer == "4" and election.voters == 1 and sum(election.in_winner_G) == 1


async def test_votes_are_counted_on_classes_and_not_on_strings(judge: Judge) -> None:
    election = majority(await judge.ballots("math", boxed("3", "0.5", "3", "1/2", r"\frac{2}{4}")), VoteConfig())
    assert election.answer == "0.5" and election.count_C == (2, 3)


def test_plain_numbers_are_compared_without_a_question_to_a_worker(judge: Judge) -> None:
    before = judge.statistics.comparisons
    forms = (
        "0.125",
        "1/8",
        r"\frac{2}{16}",
        r"1.25\times10^{-1}",
        "12.5e-2",
        "0.126",
        "1e-9",
        r"10^{-9}",
        r"1\frac{1}{8}",
        "(1, 0.5)",
        "(1,1/2)",
    )
    assert judge.ballots_sync("math", boxed(*forms)).class_G == (0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 4)
    assert judge.statistics.comparisons == before


def test_a_pair_that_is_joined_or_told_apart_by_exact_rules_is_not_asked(judge: Judge) -> None:
    before = judge.statistics.comparisons
    judge.ballots_sync("math", boxed(*(f"{i % 4 + 1}(y+{i % 4})" for i in range(64)), *map(str, range(32))))
    assert judge.statistics.comparisons - before <= 4 + 6 + 4 * 32


@pytest.mark.skipif(not (DATA / "MATH-TTT.json").is_file(), reason="no benchmark data: set STTRL_DATA")
async def test_every_math_label_equals_itself_and_is_compared_in_time(judge: Judge) -> None:
    labels = [row["answer"] for row in json.loads((DATA / "MATH-TTT.json").read_text())]
    before = judge.statistics
    ballots = await judge.ballots("math", boxed(*labels[:60]))
    assert all(a.text for a in ballots.answer_G) and judge.statistics.timeouts == before.timeouts
    for label in labels:
        assert await judge.equal("math", label, label) is True


@pytest.mark.slow
def test_no_hostile_answer_hangs_eats_memory_or_hurts_a_neighbour() -> None:
    assert len(CORPUS) >= 40
    judges, names = (Judge(), Judge()), list(CORPUS)
    peak_mib, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak_mib[0] = max(peak_mib[0], *(rss_mib(pid) for judge in judges for pid in judge.pids))

    def half(judge: Judge, start: int) -> None:
        for name in names[start::2]:
            survives(judge, name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for judge in judges:
        among_honest(judge, "")
    base_mib = max(rss_mib(pid) for judge in judges for pid in judge.pids)
    try:
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(half, judges, range(2)))
    finally:
        done.set()
        watcher.join()
        for judge in judges:
            judge.close_sync()
    lost = sum(judge.statistics.timeouts + judge.statistics.errors for judge in judges)
    assert base_mib > 0 and peak_mib[0] < base_mib + 1024
    assert 5 <= lost <= len(CORPUS) / 4, "static limits catch almost all, the CPU time the rest"
    assert all(judge.statistics.late == 0 for judge in judges) and not Path("/tmp/sttrl_pwned").exists()


def test_static_limits_need_no_worker() -> None:
    for name in ("power tower", "small power tower", "5000 balanced braces", "one megabyte of digits", "huge factorial", "huge matrix"):
        assert read_answer(CORPUS[name], "math", "stop", Limits()).invalid == "too_long", name


def test_a_hostile_answer_abstains_is_counted_and_not_compared_again() -> None:
    judge = Judge(JudgeConfig(comparison_s=0.5))
    hostile = CORPUS["exponent hidden in a fraction"]
    first = among_honest(judge, hostile)
    assert first.answer_G[4].text is None and first.answer_G[4].invalid == "timeout" and first.class_G[4] is None
    assert (judge.statistics.timeouts, judge.statistics.kills) == (1, 1)
    assert among_honest(judge, hostile) == first
    assert judge.equal_sync("math", hostile.removeprefix("\\boxed{")[:-1], "5") is None
    assert (judge.statistics.timeouts, judge.statistics.kills) == (1, 1)
    judge.close_sync()


def test_an_answer_does_not_pay_for_a_processor_that_others_use() -> None:
    judge = Judge(JudgeConfig(comparison_s=0.5, answer_s=0.5))
    judge.ballots_sync("math", boxed("3(x+1)", "3x+3"))
    os.kill(judge.pids[0], signal.SIGSTOP)
    resume = threading.Timer(1.5, os.kill, (judge.pids[0], signal.SIGCONT))
    resume.start()
    ballots = judge.ballots_sync("math", boxed("2(x+1)", "2x+2"))
    resume.join()
    assert ballots.class_G == (0, 0) and judge.statistics.timeouts == judge.statistics.late == judge.statistics.kills == 0
    judge.close_sync()


@pytest.mark.slow
def test_no_verdict_at_the_backstop_is_not_held_against_the_answer() -> None:
    judge = Judge(JudgeConfig(comparison_s=600, answer_s=600, backstop_s=0.5))
    hostile = CORPUS["exponent hidden in a fraction"]
    for times in (1, 2):
        ballots = among_honest(judge, hostile)
        assert ballots.answer_G[4].invalid == "timeout" and judge.statistics.late >= times
    with pytest.raises(NoVerdict):
        judge.equal_sync("math", hostile.removeprefix("\\boxed{")[:-1], "5")
    assert judge.statistics.timeouts == 0
    judge.close_sync()


def verdicts(judge: Judge) -> list[Ballots]:
    return [among_honest(judge, CORPUS[name]) for name in SAME_EVERYWHERE]


@pytest.mark.slow
def test_the_verdict_is_the_same_from_the_main_thread_a_second_thread_and_a_ray_actor() -> None:
    ray = pytest.importorskip("ray")
    config = JudgeConfig(comparison_s=1.0)

    def fresh() -> list[Ballots]:
        judge = Judge(config)
        try:
            return verdicts(judge)
        finally:
            judge.close_sync()

    in_main = fresh()
    assert {b.answer_G[4].invalid for b in in_main} == {None, "too_long", "unparsable", "timeout"}
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(fresh).result() == in_main

    class Actor:
        async def judge(self) -> list[Ballots]:
            async with Judge(config) as judge:
                return [await judge.ballots("math", [*boxed(*HONEST), (CORPUS[name], "stop")]) for name in SAME_EVERYWHERE]

    alone = not ray.is_initialized()
    if alone:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "unit")))}}
        actor = ray.remote(Actor).options(num_cpus=0, runtime_env=environment).remote()
        assert ray.get(actor.judge.remote(), timeout=300) == in_main
    finally:
        if alone:
            ray.shutdown()


def test_a_killed_worker_is_replaced_and_its_neighbours_lose_nothing(judge: Judge) -> None:
    for factor in (11, 13, 15):
        before = judge.pids
        os.kill(before[0], signal.SIGKILL)
        ballots = judge.ballots_sync("math", boxed(f"{factor}(x+1)", f"{factor}x+{factor}", f"{factor}(x+2)"))
        assert ballots.class_G == (0, 0, 1) and judge.pids != before


def test_memory_is_limited_beyond_what_the_worker_starts_with() -> None:
    worker = Worker(memory_mib=64)
    assert worker.ask({"do": "equal", "a": "0.5", "b": "1/2"}, 5.0).equal is True
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    size = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    worker.close()
    worker.release()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max address space"))
    assert size - 2**25 <= int(line.split()[3]) <= size + 2**26


def test_a_closed_judge_says_so() -> None:
    judge = Judge()
    judge.close_sync()
    with pytest.raises(EngineError, match="closed"):
        judge.ballots_sync("math", boxed("2(x+1)", "2x+2"))


async def test_groups_from_many_tasks_do_not_mix(judge: Judge) -> None:
    groups = await asyncio.gather(*(judge.ballots("math", boxed(f"{i}/8", str(i / 8), f"{i}x")) for i in range(1, 8)))
    assert all(ballots.class_G == (0, 0, 1) for ballots in groups)


def test_a_worker_dies_with_its_parent() -> None:
    script = (
        "import os, sys, threading, time\n"
        "from sttrl.questions.answers.pool import Worker\n"
        "w = Worker(1024)\n"
        "w.await_ready()\n"
        "print(w.pid, flush=True)\n"
        "ask = {'do': 'examine', 'a': r'3^{\\frac{99999999999}{2}}'}\n"
        "threading.Thread(target=w.ask, args=(ask, 1.0 if sys.argv[1] == 'busy' else 60), daemon=True).start()\n"
        "time.sleep(0.3)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.run([sys.executable, "-c", script, "busy"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    pid = int(process.stdout)
    deadline = time.monotonic() + 120
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert time.monotonic() < deadline


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    script = (
        "import sys, sttrl.questions.answers, sttrl.voting;"
        "print([m for m in ('torch', 'ray', 'vllm', 'math_verify', 'sympy', 'verl', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300).stdout.strip() == "[]"
