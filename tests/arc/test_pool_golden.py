"""marc's vote, its reading of replies and its evaluation, by the commands ``pool`` and ``score`` on files as marc writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from arc_files import save, task
from golden import cases

from sttrl import cli
from sttrl.arc.codecs.base import Unreadable
from sttrl.arc.codecs.numpy_text import NumpyText
from sttrl.arc.pool_predictions import INVERTERS
from sttrl.arc.submission import read_submission

VOTES = [(file, case) for file, case in cases("marc_vote") if "predictions" in case]
DECODED = cases("marc_decode")
EVALUATED = [(file, case) for file, case in cases("marc_submission_eval") if "evaluate" in case]
FORMATTERS = {
    "barc": "GPTTextMessageRepresenterForBarc(example_representer=TextExampleRepresenter(grid_representer=WordGridRepresenter()))",
    "diff": "GPTTextMessageRepresenterV2(example_representer=DiffExampleRepresenter(output_footer='#'))",
    "": "GPTTextMessageRepresenterV2(example_representer=TextExampleRepresenter(grid_representer=PythonListGridRepresenter()))",
}


def pooled(folder: Path, predictions: dict[str, Any], query: Any = ((0,),)) -> list[tuple[Any, ...]]:
    """The attempts at the one test input of a task."""
    save(folder / "data.json", {"0a": task({"input": [list(row) for row in query]})})
    file = save(folder / "all_predictions.json", predictions)
    assert cli.main(["pool", str(file), "--dataset", str(folder / "data.json"), "--out", str(folder / "out")]) == 0
    (attempts,) = read_submission(folder / "out" / "submission.json")["0a"]
    return [tuple(attempts)]


def grid(value: Any) -> Any:
    return tuple(map(tuple, value))


@pytest.mark.parametrize(("file", "case"), VOTES, ids=range(len(VOTES)))
def test_a_file_of_predictions_gives_the_attempts_of_marc(file: dict[str, Any], case: dict[str, Any], tmp_path: Path) -> None:
    predictions = {f"0a-0-{n}": [{**prediction, "formatter": FORMATTERS[""]}] for n, prediction in enumerate(case["predictions"])}
    (attempts,) = pooled(tmp_path, predictions)
    assert attempts in [tuple(map(grid, pair)) for pair in ([case["expected_top2"]] if case["unique"] else case["acceptable"])]


@pytest.mark.parametrize(("file", "case"), DECODED, ids=range(len(DECODED)))
def test_a_reply_in_the_file_becomes_the_grid_of_marc(file: dict[str, Any], case: dict[str, Any], tmp_path: Path) -> None:
    """Cells that are no colours, and grids without cells, are rejected here."""
    word = next(word for word in FORMATTERS if word in case["format"])
    shown = NumpyText().read(case["input_message"].replace("->", ""))
    query = ((0,),) if isinstance(shown, Unreadable) else INVERTERS[case["inverter"] or "identity"].apply(shown)
    entry = {"output": case["text"], "inverter": case["inverter"], "formatter": FORMATTERS[word]}
    (attempts,) = pooled(tmp_path, {"0a-0-0": [entry]}, query)
    expected = case["expected"]
    readable = expected is not None and any(expected) and all(0 <= cell <= 9 for row in expected for cell in row)
    assert attempts == ((grid(expected),) * 2 if readable else (((0,),),) * 2)


@pytest.mark.parametrize(("file", "case"), EVALUATED, ids=range(len(EVALUATED)))
def test_the_detail_of_a_score_is_what_marc_prints(
    file: dict[str, Any], case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    submission = save(tmp_path / "submission.json", case["submission"])
    solutions = save(tmp_path / "solutions.json", {id: one["solutions"] for id, one in file["tasks"].items()})
    assert cli.main(["score", str(submission), str(solutions), "--detail"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    for name, (numerator, denominator, _) in case["evaluate"].items():
        found = re.search(rf"^{name} +([\d.]+) / (\d+) ", printed, re.MULTILINE)
        assert found is not None and [float(found[1]), float(found[2])] == pytest.approx([numerator, denominator], abs=1e-4)
