"""What people read: the tables, report.html and the glossary."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from pages import around, held, loaded, page_of
from test_report_metrics import LABELLED, UPDATE, a_run, poll, question, step
from test_report_over_time import trained_on_all

from sttrl.ledger.step_metrics import step_metrics
from sttrl.report import NO_GRADES, ComparedRun, Grades, before_after_table, compare_table, summarise
from sttrl.report.metrics import ROW_NAMES
from sttrl.report.tables import metric_cell
from sttrl.report.texts import NO_TEXTS, Texts

GLOSSARY = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
SECONDS = {"total": 310.2, "start_up": 24.0, "sample": 120.5, "update": 99.0, "judge": 1.0, "score": 3.0, "save": 2.0}
CONFIG: dict[str, Any] = {"dataset": "AIME-TTT", "model": "m", "adaptation_method": "sttrl", "val_samples": 4, "ids": [], "val_temp": 0.6}
ATTACK = "</script></title></style></pre><script>alert(1)</script><img src=x onerror=alert(1)>{{ config }}\"'&\x00\u202e"


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and finds out whether tags match."""

    void = {"meta", "br", "link"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        """Close a tag."""
        assert self.open.pop() == tag


def winning(count: int = 30) -> tuple[list[Any], Grades]:
    polls = {"base": poll(["7", "3", "3", "3"], "3"), "adapted": poll(["7", "7", "7", "3"], "7")}
    finished = [question(number, polls, [step(0, ["7", "7", "3", "3"])]) for number in range(count)]
    return finished, Grades(verdicts={f"q{number}": {"7": True, "3": False} for number in range(count)})


def test_the_table_a_run_ends_on() -> None:
    table = before_after_table(summarise(a_run(), LABELLED, SECONDS))
    lines = table.splitlines()
    assert lines[0].split() == ["greedy", "mean@4", "maj@4", "pass@4"]
    assert [line[:20].strip() for line in lines[1:6]] == ["base", "vote (same tokens)", "conf. (same tokens)", "adapted", "gain"]
    assert "includes 0" in table
    assert "1 won / 1 lost / 2 unchanged" in table
    assert all(
        fact in table for fact in ("majority ratio .750", "label accuracy .500", "reward accuracy .625", "sampled 240", "start_up 24.0")
    )


def test_no_table_is_wider_than_a_hundred_columns() -> None:
    lost = [question(number, {"base": poll(["7"] * 4, "7"), "vote_same_tokens": poll(["7"] * 64), "adapted": poll(["3"] * 4, "3")},
                     [step(0, ["3", "7"])]) for number in range(9)]  # fmt: skip
    grades = Grades(verdicts={f"q{number}": {"7": True, "3": False} for number in range(9)})
    seconds = {f"activity_{number}": 123456.7 for number in range(12)}
    for finished, verdicts in ((lost, grades), (a_run(), LABELLED), winning(), (a_run(), NO_GRADES), ([], NO_GRADES)):
        summary = summarise(finished, verdicts, seconds)
        compared = ComparedRun(name="x" * 300, summary=summary, config=CONFIG, finished=finished, grades=verdicts)
        for table in (before_after_table(summary), compare_table([compared] * 3)):
            assert max(map(len, table.splitlines())) <= 100
    assert "-1.00 [-1.0, -.33]" in before_after_table(summarise(lost, grades, {}))


def test_a_gain_that_is_one_is_said_to_be_one() -> None:
    assert "excludes 0: adapting raised" in before_after_table(summarise(*winning(), {}))


def test_tables_without_labels_or_adaptation() -> None:
    assert "No question could be scored" in before_after_table(summarise(a_run(), NO_GRADES, {}))
    base_only = before_after_table(summarise([question(0, {"base": poll(["7"])})], LABELLED, {}))
    assert "adapted" not in base_only
    assert "won" not in base_only


def test_cells() -> None:
    block = {"mean@k": 0.25, "ci95_by_metric": {"mean@k": [0.1, 1.0]}}
    assert metric_cell({"base": block}, "base", "mean@k") == ".250 [.10, 1.0]"
    assert metric_cell({"gain": block}, "gain", "mean@k") == "+.250 [+.10, +1.0]"
    nothing = {"mean@k": -0.0001, "ci95_by_metric": {"mean@k": [-0.001, 0.0]}}
    assert metric_cell({"gain": nothing}, "gain", "mean@k") == ".000 [.00, .00]"
    assert metric_cell({"gain": None}, "gain", "mean@k") == "-"


def page(finished: list[Any], grades: Grades, config: dict[str, Any], name: str = "run", texts: Texts = NO_TEXTS) -> tuple[str, Tags]:
    text = page_of(loaded(finished, grades, config, texts=texts, seconds=SECONDS), name)
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return text, tags


def test_the_page_of_a_run() -> None:
    text, _ = page(a_run(), LABELLED, CONFIG)
    assert "prefers-color-scheme" in text and "viewport" in text
    run = held(text).runs[0]
    assert (run["headline"], run["metrics"][0], run["dataset"]) == ("mean@4", "greedy", "AIME-TTT")
    assert [row["label"] for row in run["rows"]] == ["base", "vote (same tokens)", "conf. (same tokens)", "adapted", "gain"]
    assert run["rows"][0]["bar"]["value"] == 0.4375 and run["rows"][-1]["bar"] is None
    won, lost, same, diverged = run["questions"]
    assert (won["base"], won["adapted"], won["ratios"], won["right"]) == (0.25, 0.75, [0.5, 0.75], True)
    assert [row["flags"] for row in (won, lost, same, diverged)] == [
        ["won"],
        ["lost", "tie"],
        ["unchanged"],
        ["unchanged", "diverged"],
    ]
    assert diverged["error"] == "the loss is not finite" and run["config"]["val_samples"] == "4"
    assert "1 won / 1 lost / 2 unchanged" in run["facts"]["questions"]


@pytest.mark.parametrize("finished", [a_run(), trained_on_all()])
def test_the_page_needs_nothing_else(finished: list[Any]) -> None:
    text, tags = page(finished, LABELLED, CONFIG)
    assert not tags.tags & {"img", "iframe", "object", "embed", "base", "form"}
    assert not tags.attributes & {"src", "onload", "onclick", "onerror"}
    assert re.findall(r'href="([^"]*)"', text) == ["data:,"]
    program = text[text.rindex("<script>") :]
    assert not re.search(r"https?:|url\(|@import|innerHTML|insertAdjacentHTML|eval\(", program.replace("http://www.w3.org/2000/svg", ""))
    assert "default-src 'none'" in unescape(text) and "connect-src" not in text


def test_only_the_program_of_the_page_may_run() -> None:
    text, _ = page(a_run(), LABELLED, CONFIG)
    program = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    digest = base64.b64encode(hashlib.sha256(program.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in unescape(text[: text.index("<title>")])


def test_hostile_text_stays_text() -> None:
    """In the name, settings, id, error, answers, question, label and samples."""
    hostile = question(0, {"base": poll([ATTACK, ATTACK], ATTACK)}, id=ATTACK, error=ATTACK, status="failed")
    config = {"dataset": ATTACK, "model": ATTACK, ATTACK: ATTACK}
    texts = Texts(by_id={ATTACK: ATTACK}, label_by_id={ATTACK: ATTACK}, remark=ATTACK)
    text, tags = page([hostile], Grades(verdicts={ATTACK: {ATTACK: True}}), config, name=ATTACK, texts=texts)
    clean, _ = page([question(0, {"base": poll(["7"])})], LABELLED, CONFIG)
    assert not tags.tags & {"img"} and "onerror" not in tags.attributes
    assert text.count("<script") == clean.count("<script") and text.count("</title>") == 1
    shown, expected = held(text), ATTACK.replace("\x00", "·").replace("\u202e", "·")
    assert not {"\x00", "\u202e"} & set(text)
    row, detail = shown.runs[0]["questions"][0], shown.details[0][0]
    assert {row["id"], row["error"], row["text"], row["label"], row["answer"], detail["text"], detail["answers"][0]["text"]} == {expected}
    assert expected in shown.runs[0]["remarks"] and expected in around(text)


def test_pages_without_labels_and_of_nothing() -> None:
    for finished, config in ((a_run(), CONFIG), ([], {})):
        run = held(page(finished, NO_GRADES, config)[0]).runs[0]
        assert run["rows"] == [] and len(run["questions"]) == len(finished)


def test_a_file_leaves_out_what_makes_it_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sttrl.report.view.page.MOST_MIB", 0)
    shown = held(page(a_run(), LABELLED, CONFIG)[0])
    assert shown.details == [[]] and any("The samples of 4 questions are not in this file" in text for text in shown.runs[0]["remarks"])


def keys(value: Any, path: str = "") -> set[str]:
    """Every key of a nested record, by its dotted path; seconds and counts by reason have keys of their own making."""
    if isinstance(value, list):
        return {path}.union(*(keys(each, path) for each in value))
    if not isinstance(value, dict) or path in ("seconds", "questions.stops", "votes.gated"):
        return {path} if path else set()
    return ({path} if path else set()).union(*(keys(inner, f"{path}.{name}" if path else name) for name, inner in value.items()))


def glossary(section: str) -> set[str]:
    """First column of a section's table."""
    content = GLOSSARY.split(f"## {section}\n")[1].split("\n## ")[0]
    names = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", content, re.MULTILINE)
    return {name for cell in names for name in re.findall(r"`([^`]+)`", cell)}


def test_the_glossary_has_every_metric_of_a_step_and_no_other() -> None:
    taken = step(0, ["7", "3"])
    held_out = replace(taken, ballots=replace(taken.ballots, reward_G=[1.0, 0.0]), weight=0.5)
    assert set(step_metrics(held_out)) - set(step_metrics(taken)) == {"reward/demonstrations_mean", "vote/weight"}
    emitted = {re.sub(r"^time/.*_s$", "time/<activity>_s", name) for name in step_metrics(held_out)}
    assert glossary("metrics.jsonl") == emitted | {"id", "step"}
    assert set(UPDATE) - {"tokens"} == set(UPDATE) & {name.removeprefix("update/").removesuffix("_nats") for name in emitted}


def test_the_glossary_has_every_key_of_the_summary_and_no_other() -> None:
    first, *others = trained_on_all()
    base = first.record.polls["base"]
    viewed = replace(base, ballots=replace(base.ballots, view_G=[0] * len(base.ballots.answer_G)))
    first = replace(first, record=replace(first.record, polls={**first.record.polls, "base": viewed}))
    summary = summarise([first, *others], LABELLED, SECONDS, {"votes_until": 0.75, "n_votes": 64, "question_views": 2})
    assert summary["views"] == {"wanted": 2, "fewer": 1}
    assert "2 of each question, the plain one included, but fewer of 1" in before_after_table(summary)
    found = {re.sub(rf"^({'|'.join(ROW_NAMES)}|gain)\.", "<row>.", key) for key in keys(summary)}
    found = {key for key in found if not key.startswith("first_vote.") and not key.startswith("<row>.ci95_by_metric.")}
    assert glossary("summary.json") == found
