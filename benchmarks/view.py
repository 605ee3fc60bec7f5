"""The page of a large run: 500 questions with 64 samples of the base and 64 of the adapted policy, of about 150 tokens each.

    python benchmarks/view.py [--questions N] [--samples N] [--save]

The run is made up: sentences in random order, log-probs of a plausible spread. Times are of headless Chromium, from the request of the page
until the first paint, until the list has all questions, and from a key press until the samples of a question are there.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from table import show

from sttrl.config import RunConfig, to_plain
from sttrl.data import SourceSpec, read_table
from sttrl.engine.models import local_file
from sttrl.engine.pieces import pieces_of
from sttrl.ledger.files import json_line, write_json
from sttrl.ledger.folder import CONFIG
from sttrl.ledger.journal import Journal
from sttrl.ledger.records import BallotsRecord, ElectionRecord, QuestionRecord, StepRecord
from sttrl.questions.records import PollRecord
from sttrl.report.runs import report_run

ROOT = Path(__file__).resolve().parents[1]
MODEL = "builtin/SmolLM2-135M-Instruct"
VOTES, STEPS, TRIES = 32, 3, 5
SENTENCES = """First we write down what is known and what is asked. The number of items in each box stays the same on both days.
We add the two amounts and compare the sum with the total. If we divide both sides by the same number nothing changes.
Let x be the number of apples that are left in the evening. So the train needs three hours and a quarter for the whole way.
That means we have to subtract what was given away before. The price of one ticket is the total divided by the number of people.
Now we can check the result by putting it back into the equation. There are twice as many blue marbles as there are red ones.
This leaves exactly the half of what was there in the beginning. Each of the children gets the same share of the cake.""".replace("\n", " ")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--samples", type=int, default=64, help="of each evaluation")
    parser.add_argument("--save", action="store_true", help="also keep the table under benchmarks/results")
    given = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None or local_file(MODEL, "tokenizer.json") is None:
        raise SystemExit("This needs Chromium, and the builtin model, which any run of it converts.")
    with tempfile.TemporaryDirectory() as place:
        folder = made(Path(place) / "run", given.questions, given.samples)
        report_run(folder)
        started = time.perf_counter()
        report_run(folder, find_pieces=pieces_of)
        written = time.perf_counter() - started
        file = folder / "report.html"
        size, kept = file.stat().st_size, sum(path.stat().st_size for path in (folder / "rollouts").iterdir())
        started = time.perf_counter()
        command = [sys.executable, str(ROOT / "main.py"), "view", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[0]
            ready = time.perf_counter() - started
            served = measured(chromium, address, given.questions)
            server.terminate()
        alone = measured(chromium, f"file://{file}", given.questions)
    rows = [
        ["served by `view`", *(f"{value:.2f} s" for value in served), f"{kept / 2**20:.0f} MiB in `rollouts/`"],
        ["`report.html`", *(f"{value:.2f} s" for value in alone), f"{size / 2**20:.1f} MiB"],
    ]
    notes = (
        f"{given.questions} questions, {given.samples} samples of the base and as many of the adapted policy, about 150 tokens each; the "
        f"median of {TRIES} tries. From the command to the address of the server: {ready:.1f} s. Making the report, with `report.html`: "
        f"{written:.1f} s."
    )
    show("View", ["page", "first paint", "list usable", "samples after a key", "size"], rows, notes, given.save)


def measured(chromium: str, address: str, questions: int) -> tuple[float, float, float]:
    """Median seconds to the first paint, to a list with all questions, and from a key press to the samples of a question."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(TRIES + 1):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            started = time.perf_counter()
            page.goto(f"{address}#tab=questions", wait_until="commit")
            page.wait_for_selector(f".list li:nth-child({questions})", state="attached")
            usable = time.perf_counter() - started
            page.keyboard.press("n")
            pressed = time.perf_counter()
            page.wait_for_selector(".sample pre")
            opened = time.perf_counter() - pressed
            paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000")
            found.append((paint, usable, opened))
            page.context.close()
        browser.close()
    paints, usables, openings = zip(*found[1:], strict=True)
    return median(paints), median(usables), median(openings)


def made(folder: Path, questions: int, samples: int) -> Path:
    """A run folder as a run leaves it, without having run."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(local_file(MODEL, "tokenizer.json")))
    chance = random.Random(7)
    folder.mkdir(parents=True)
    data = folder.parent / "sums.jsonl"
    texts = [f"Question {n}: {story(chance, 3)} How many are left?" for n in range(questions)]
    data.write_text("".join(json_line({"id": f"q{n}", "question": text, "answer": str(n % 97)}) for n, text in enumerate(texts)))
    config = RunConfig.of(
        dataset=str(data), answer_kind="number", val_samples=samples, model=MODEL, n_votes=VOTES, n_train=VOTES, steps=STEPS
    )
    write_json(folder / CONFIG, to_plain(config))
    (folder / "rollouts").mkdir()
    with Journal(folder) as journal:
        for row in read_table(SourceSpec(dataset=str(data), answer_kind="number")).rows:
            right = str(row.answer)
            stages = {"base": chance.uniform(0.1, 0.6), "adapted": chance.choice([0.02, 0.5, 0.97])}
            answers = {name: [answer_of(chance, right, p) for _ in range(samples)] for name, p in stages.items()}
            lines = [
                {"poll": name, "greedy": False, **response(chance, tokenizer, answer)} for name, own in answers.items() for answer in own
            ]
            (folder / "rollouts" / f"{row.id}.jsonl").write_text("".join(map(json_line, lines)))
            for number in range(STEPS):
                journal.step(row.id, step(number, [answer_of(chance, right, stages["base"]) for _ in range(VOTES)]))
            journal.question(
                QuestionRecord(
                    id=row.id,
                    index=row.index,
                    attempt=1,
                    status="done",
                    stop="steps",
                    error=None,
                    answer=right,
                    answer_source="adapted",
                    polls={name: poll(own) for name, own in answers.items()},
                    steps=STEPS,
                    tokens_sampled=STEPS * VOTES * 150,
                    tokens_trained=STEPS * VOTES * 150,
                    tokens_evaluated=2 * samples * 150,
                    seconds={"sample": 9.0},
                )  # fmt: skip
            )
    return folder


def story(chance: random.Random, sentences: int) -> str:
    """Sentences in random order, with numbers of their own."""
    return " ".join(f"{chance.choice(SENTENCES.split('. '))}, {chance.randint(2, 99)}." for _ in range(sentences))


def answer_of(chance: random.Random, right: str, p: float) -> str | None:
    """The right answer with probability ``p``, else another, or none now and then."""
    drawn = chance.random()
    return right if drawn < p else None if drawn > 0.93 else str(chance.randint(1, 12))


def response(chance: random.Random, tokenizer: Any, answer: str | None) -> dict[str, Any]:
    """A response of about 150 tokens, most of them likely."""
    text = f"{story(chance, 9)} {'I am not sure.' if answer is None else f'The answer is {answer}.'}"
    tokens = tokenizer.encode(text).ids
    logprobs = [round(max(-12.0, -(chance.expovariate(1.0) ** 3) / 4), 5) for _ in tokens]
    return {
        "seed": chance.getrandbits(63), "version": 0, "finish": "stop", "text": text, "answer": answer,
        "invalid": None if answer else "unparsable", "tokens": tokens, "logprobs": logprobs,
    }  # fmt: skip


def vote(answers: list[str | None]) -> tuple[BallotsRecord, ElectionRecord]:
    """The ballots and the majority vote."""
    counts = Counter(answer for answer in answers if answer is not None)
    texts = list(counts)
    class_G = [None if answer is None else texts.index(answer) for answer in answers]
    ballots = BallotsRecord(
        answer_G=answers, invalid_G=[None if answer else "unparsable" for answer in answers], class_G=class_G, representative_C=texts
    )
    (first, most), *others = counts.most_common()
    tied = [texts.index(text) for text, count in counts.items() if count == most]
    winner = texts.index(first) if len(tied) == 1 else None
    total = sum(counts.values())
    election = ElectionRecord(
        answer=first if winner is not None else None, winner=winner, margin=(most - (others[0][1] if others else 0)) / total,
        share_C=[count / total for count in counts.values()], tied_C=tied if winner is None else [], voters=total, samples=len(answers),
        majority_ratio=most / len(answers) if winner is not None else 0.0,
    )  # fmt: skip
    return ballots, election


def poll(answers: list[str | None]) -> PollRecord:
    """An evaluation."""
    ballots, election = vote(answers)
    return PollRecord(
        k=len(answers), greedy=False, temperature=0.6, top_p=0.95, max_tokens=256, version=0, ballots=ballots, election=election,
        confidence=election, tokens=150 * len(answers),
    )  # fmt: skip


def step(number: int, answers: list[str | None]) -> StepRecord:
    """A step without an update."""
    ballots, election = vote(answers)
    return StepRecord(
        step=number, version=number, ballots=ballots, election=election, majority=election,
        reward_G=[float(answer is not None and answer == election.answer) for answer in answers], gate=None,
        tokens_sampled=150 * len(answers), tokens_trained=0, update=None, seconds={"sample": 3.0},
    )  # fmt: skip


if __name__ == "__main__":
    main()
