"""The page in a real browser: from a file and from a server, of questions, ARC tasks, two runs and a sweep, while a run goes on."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from arc_stand_in import arc_attempt, arc_config
from small_tokenizer import byte_level, saved
from stand_in import StandIn, attempt, config_for, digest, problems_for

from sttrl.questions.answers import Judge
from sttrl.report.runs import report_run, write_page
from sttrl.report.view.details import NO_TOKENIZER
from sttrl.sweep.table import report_sweep

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")]
ROOT = Path(__file__).resolve().parents[2]
LONG_MS = 60_000
ATTACK = "<script>window.attacked=1</script><img src=x onerror='window.attacked=1'>"


def hostile(prompt_T: Any, seed: int, answer: int) -> Any:
    """An answer between what would be a program if it were HTML."""
    return f"{ATTACK}</script> Let me see. The answer is {answer}.", "stop"


def questions(path: Path, count: int) -> Path:
    """Sums whose labels are small numbers, so that some answers of the stand-in are right."""
    lines = [{"id": f"q{n}", "question": f"How much is {n} and one? {ATTACK}", "answer": str(n % 5)} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run_of(folder: Path, data: Path, judge: Judge, count: int | None = None, **settings: Any) -> Any:
    """The first ``count`` questions of a run. Its tokens are those of its texts, by the tokenizer of a model beside it."""
    model = saved(byte_level(), folder.parent / "model").parent
    config = config_for(folder, dataset=str(data), answer_kind="number", limit=None, model=str(model), **settings)
    apart(attempt, config, StandIn(texts=hostile), judge, problems_for(config)[:count])
    tokenizer = byte_level()
    for file in (folder / "rollouts").glob("*.jsonl"):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            line["tokens"] = tokenizer.encode(line["text"]).ids
            line["logprobs"] = [round(math.log((1 + digest(line["seed"], at) % 1000) / 1000), 5) for at in range(len(line["tokens"]))]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return config


def apart(work: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """The result of some work in a thread of its own: playwright has an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *given, **named).result()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page of the browser. At its end nothing has complained, and no program of a text has run."""
    opened, said = browser.new_page(), list[str]()
    opened.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    assert opened.evaluate("window.attacked") is None
    opened.close()
    assert said == []


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of eight questions, with its report."""
    folder = tmp_path_factory.mktemp("view") / "run"
    judge = Judge()
    try:
        run_of(folder, questions(folder.parent / "sums.jsonl", 8), judge)
    finally:
        judge.close_sync()
    apart(report_run, folder, find_pieces=pieces())
    return folder


def pieces() -> Any:
    from sttrl.engine.pieces import pieces_of

    return pieces_of


class Server:
    """The command ``view`` as a user gives it."""

    def __init__(self, *folders: Path) -> None:
        command = [sys.executable, str(ROOT / "main.py"), "view", *map(str, folders), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.address = self.line.split()[0] if self.line else ""

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *ended: object) -> None:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        assert (self.process.returncode, out, err) == (0, "", "")


@pytest.fixture(scope="module")
def served(a_run: Path) -> Iterator[str]:
    before = {path: path.stat().st_mtime_ns for path in a_run.rglob("*")}
    with Server(a_run) as server:
        yield server.address
    assert {path: path.stat().st_mtime_ns for path in a_run.rglob("*")} == before, "nothing is written into a run that is looked at"


@pytest.fixture(params=["file", "server"])
def address(request: pytest.FixtureRequest, a_run: Path) -> str:
    return f"file://{a_run}/report.html" if request.param == "file" else request.getfixturevalue("served")


def opened(tab: Any, address: str, place: str = "") -> None:
    tab.goto(f"{address}{place}")
    tab.wait_for_selector("body[data-ready]")


def listed(tab: Any, *ids: str) -> None:
    """Wait until the list has these questions. The page draws a moment after a click, and innerText is empty until a row is drawn."""
    sync_api.expect(tab.locator(".list li .line b")).to_have_text(list(ids), timeout=LONG_MS)


def test_results_first(address: str, tab: Any) -> None:
    opened(tab, address)
    assert tab.locator("h1").inner_text() == "run"
    rows = tab.locator(".results tbody tr").all_inner_texts()
    assert [row.split("\t")[0] for row in rows[:1]] == ["base"] and any(row.startswith("adapted") for row in rows)
    assert "8 finished" in tab.locator(".results dl").inner_text()
    tab.get_by_role("link", name="Settings").click()
    assert "answer_kind" in tab.locator(".settings").inner_text()


def test_filters_search_and_sort(address: str, tab: Any) -> None:
    opened(tab, address, "#tab=questions")
    every = [f"q{n}" for n in range(8)]
    listed(tab, *every)
    counts = {name: int(tab.locator(f"[data-filter={name}] small").inner_text()) for name in ("all", "won", "lost", "unchanged")
              if tab.locator(f"[data-filter={name}]").count()}  # fmt: skip
    assert counts["all"] == 8 == sum(count for name, count in counts.items() if name != "all")
    tab.locator("[data-filter=won]").click()
    sync_api.expect(tab.locator(".list li")).to_have_count(counts["won"], timeout=LONG_MS)
    assert tab.locator(".list .mark.won").count() == counts["won"]
    tab.locator("[data-filter=all]").click()
    tab.locator("#find").fill("much 5")
    listed(tab, "q5")
    assert "1 of 8" in tab.locator("#count").inner_text()
    tab.locator("#find").fill("no such words")
    listed(tab)
    assert "No question is like that" in tab.locator(".list").inner_text()
    tab.locator("#find").fill("")
    tab.get_by_label("sort").first.select_option("id")
    sync_api.expect(tab).to_have_url(re.compile("sort=id"), timeout=LONG_MS)
    listed(tab, *every)
    tab.go_back()
    sync_api.expect(tab, "the browser's back button goes back").not_to_have_url(re.compile("sort"), timeout=LONG_MS)


def test_an_opened_question(address: str, tab: Any) -> None:
    opened(tab, address, "#tab=questions")
    tab.locator(".list a").nth(3).click()
    tab.wait_for_selector(".sample")
    assert tab.locator(".question h2").inner_text() == "q3"
    assert tab.locator(".asked").inner_text() == f"How much is 3 and one? {ATTACK}", "text, not HTML"
    assert tab.get_by_text("label 3").count() == 1
    names = tab.locator(".course .when").all_inner_texts()
    assert names[:2] == ["base", "step 1"] and "adapted" in names and tab.locator(".stack .winner").count() > 0
    chosen = tab.locator(".columns select").evaluate_all("all => all.map(one => one.selectedOptions[0].textContent)")
    assert chosen == ["base", "adapted"] and tab.locator(".column").first.locator(".sample").count() == 5
    sample = tab.locator(".sample").first
    assert "log-prob" in sample.text_content() and "tokens" in sample.text_content()
    assert sample.locator("pre").text_content().startswith(ATTACK)
    levels = set(sample.locator("pre span").evaluate_all("all => all.map(one => one.className)"))
    assert {"t0", "t9"} <= levels <= {f"t{level}" for level in range(10)}
    sample.locator("pre span").first.hover()
    assert re.match(r"probability [.\d]", sample.locator("pre span").first.get_attribute("title"))
    tab.locator(".columns select").first.select_option(label="step 1")
    sync_api.expect(tab.locator(".column").first.locator(".sample")).to_have_count(12, timeout=LONG_MS)
    assert "reward" in tab.locator(".column").first.locator(".sample").first.text_content()
    tab.locator(".legend .chip").first.click()
    few = tab.locator(".column").first
    sync_api.expect(few).to_contain_text(" of 12 samples", timeout=LONG_MS)
    assert few.locator(".sample").count() < 12


def test_keys(address: str, tab: Any) -> None:
    opened(tab, address, "#tab=questions")
    won = tab.locator(".list a:has(.mark.won) .line b").all_text_contents()
    lost = tab.locator(".list a:has(.mark.lost) .line b").all_text_contents()
    tab.evaluate("document.activeElement.blur()")

    assert won
    then_shown = [
        ("n", "q0"),
        ("j", "q1"),
        ("p", "q0"),
        ("Escape", None),
        ("w", won[0]),
        ("Escape", None),
        *([("l", lost[0])] if lost else []),
    ]
    for key, question in then_shown:
        tab.keyboard.press(key)
        sync_api.expect(tab.locator(".question h2"), key).to_have_text([question] if question else [], timeout=LONG_MS)
    tab.keyboard.press("/")
    sync_api.expect(tab.locator("#find")).to_be_focused(timeout=LONG_MS)
    tab.keyboard.press("n")
    sync_api.expect(tab.locator("#find"), "letters that are typed are no commands").to_have_value("n", timeout=LONG_MS)


def test_without_the_tokenizer_the_text_is_plain_and_the_page_says_so(a_run: Path, tab: Any, tmp_path: Path) -> None:
    apart(write_page, [a_run], tmp_path / "plain.html")
    opened(tab, f"file://{tmp_path}/plain.html", "#tab=questions")
    tab.locator(".list a").first.click()
    tab.wait_for_selector(".sample pre")
    assert tab.locator(".sample pre span").count() == 0 and tab.locator(".sample pre").first.text_content().startswith(ATTACK)
    assert NO_TOKENIZER in tab.locator(".question").inner_text()


def test_a_page_follows_a_run(tab: Any, tmp_path: Path, judge: Judge) -> None:
    folder = tmp_path / "run"
    config = run_of(folder, questions(tmp_path / "sums.jsonl", 4), judge, count=2)
    with Server(folder) as server:
        opened(tab, server.address, "#tab=questions")
        graded = tab.locator(".list .mark:is([title=won], [title=lost], [title=unchanged])")
        sync_api.expect(graded).to_have_count(2, timeout=LONG_MS)
        tab.locator(".list a").nth(1).click()
        tab.wait_for_selector(".sample")
        assert not (folder / "grades.json").exists(), "answers are compared with labels without a trace"
        apart(attempt, config, StandIn(texts=hostile), judge, problems_for(config))
        sync_api.expect(tab.locator(".list li")).to_have_count(4, timeout=LONG_MS)
        assert tab.locator(".question h2").inner_text() == "q1", "the reader's place stays"
        tab.locator(".list a").nth(3).click()
        sync_api.expect(tab.locator(".question h2")).to_have_text("q3", timeout=LONG_MS)


def test_two_runs_side_by_side(tab: Any, tmp_path: Path, judge: Judge) -> None:
    data = questions(tmp_path / "sums.jsonl", 5)
    run_of(tmp_path / "first", data, judge)
    run_of(tmp_path / "second", data, judge, count=4, steps=1)
    apart(write_page, [tmp_path / "first", tmp_path / "second"], tmp_path / "both.html", find_pieces=pieces())
    opened(tab, f"file://{tmp_path}/both.html")
    text = tab.locator(".results").inner_text()
    assert "Against the first run" in text and "same base" in text and "Not comparable: the finished questions are not the same" in text
    tab.get_by_role("link", name="Settings").click()
    assert "steps\t3\t1" in tab.locator(".settings section").first.inner_text()
    tab.get_by_role("link", name="Questions").click()
    listed(tab, *(f"q{n}" for n in range(5)))
    assert tab.locator("[data-filter=differ]").count() == 1
    tab.locator(".list a").first.click()
    tab.wait_for_selector(".sample")
    chosen = tab.locator(".columns select").evaluate_all("all => all.map(one => one.selectedOptions[0].textContent)")
    assert chosen == ["A: adapted", "B: adapted"]
    tab.locator(".list a").nth(4).click()
    tab.get_by_text("not in this run").wait_for()


def test_arc_tasks_are_grids(tab: Any, tmp_path: Path) -> None:
    apart(arc_attempt, arc_config(tmp_path / "run", limit=2))
    opened(tab, f"file://{tmp_path}/run/report.html", "#tab=questions")
    assert tab.locator(".list .thumbnail").count() > 0
    tab.locator(".list a").first.click()
    tab.wait_for_selector(".test svg")
    assert tab.locator(".question .pair svg").count() >= 4
    assert re.search(r"attempt 1, (right|wrong)", tab.locator(".test").first.inner_text())
    box = tab.locator(".test svg").first.bounding_box()
    assert box["width"] > 20 and box["height"] > 20


def test_a_sweep_is_a_plot_and_its_runs_can_be_chosen(tab: Any, tmp_path: Path, judge: Judge) -> None:
    data, folders = questions(tmp_path / "sums.jsonl", 4), [tmp_path / "outputs" / "votes" / f"steps_{n}" for n in (1, 2, 3)]
    for folder in folders:
        run_of(folder, data, judge, steps=int(folder.name[-1]))
    sweep = folders[0].parent
    with Server(sweep) as server:
        opened(tab, server.address)
        assert "The sweep has not ended" in tab.locator(".sweep").inner_text()
        apart(report_sweep, "votes", folders)
        tab.wait_for_selector(".sweep .plot circle", timeout=LONG_MS)
        assert tab.locator(".sweep tbody tr").count() == 3
        tab.get_by_label("steps_3").click()
        sync_api.expect(tab.get_by_label("steps_3")).to_be_checked()
        tab.get_by_role("link", name="Questions").click()
        sync_api.expect(tab.locator("h1 .name")).to_have_count(2)
        assert tab.locator("h1 .name").all_inner_texts() == ["A steps_1", "B steps_3"]


def test_other_names_of_this_machine_are_refused(served: str) -> None:
    import httpx

    assert httpx.get(f"{served}api/index").status_code == 200
    assert httpx.get(f"{served}api/index", headers={"Host": "evil.example"}).status_code == 400
    index = httpx.get(f"{served}api/index").json()
    run = index["runs"][0]["key"]
    assert httpx.get(f"{served}api/index", params={"after": index["version"]}).status_code == 204
    for path in ("api/runs/none", f"api/runs/{run}/questions/none"):
        assert httpx.get(f"{served}{path}").status_code == 404
    assert httpx.get(f"{served}api/runs/..%2f..%2fetc").status_code == 404
