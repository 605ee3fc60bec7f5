"""The cards of a run on the hub: what its adapters and predictions are, what the run measured, and how to do it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

import sttrl
from sttrl.export.published import WITHHELD, command_of, hub_model, model_name, settings_of
from sttrl.ledger.folder import ENVIRONMENT, REVISIONS
from sttrl.library.loaded_run import LoadedRun
from sttrl.report.tables import ROWS, facts, gain_remark, metric_cell, vote_remark
from sttrl.run.states import ALL

TAGS: Final = ("sttrl", "test-time-adaptation")


def adapter_card(run: LoadedRun, repo_id: str, places: Mapping[str, str]) -> str:
    """README.md of a repository of adapters. ``places``: the folder there of each adapter, by its name."""
    base = hub_model(run)
    head = {"library_name": "peft", **({"base_model": base} if base else {}), "tags": ["lora", *TAGS]}
    what = (
        "It is one adapter of a policy that was trained on all problems together."
        if list(places) == [ALL]
        else f"There are {len(places)}, each in a folder of its own, such as `{next(iter(places.values()))}`. Each was made for the one "
        "problem that its folder names. On other problems they are not expected to help."
    )
    return _page(
        head,
        repo_id,
        f"LoRA adapters in PEFT's layout for `{model_name(run)}`, made at test time and without labels by sttrl "
        f"(`{run.config['adaptation_method']}`) on {_dataset(run)}. {what}",
        *_measured(run),
        "## Use",
        _usage(run, repo_id, next(iter(places.values()))),
        *_made(run),
    )


def dataset_card(run: LoadedRun, repo_id: str, files: Mapping[str, str]) -> str:
    """README.md of a repository of predictions. ``files``: the Parquet file there of each table, by its name."""
    head = {
        "tags": ["predictions", *TAGS],
        "configs": [{"config_name": table, "data_files": file} for table, file in files.items()],
    }
    return _page(
        head,
        repo_id,
        f"What `{model_name(run)}` answered to {_dataset(run)} before and after it adapted itself by sttrl "
        f"(`{run.config['adaptation_method']}`), at test time and without labels. `problems` has a row for each problem: answers, votes, "
        "scores, tokens, seconds. `samples` has a row for each response: text, answer, reward, log-probs.",
        *([WITHHELD] if run.withheld else ["Questions and labels belong to that data set, whose licence holds for them."]),
        *_measured(run),
        *_made(run),
    )


def _page(head: Mapping[str, Any], repo_id: str, *parts: str) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True).strip()
    return "\n\n".join([f"---\n{front}\n---", f"# {repo_id.split('/')[1]}", *parts]) + "\n"


def _measured(run: LoadedRun) -> list[str]:
    """The table of the run, with 95 % intervals, and the lines below it."""
    summary = run.summary
    shown = [(label, key) for label, key in ROWS if summary[key] is not None]
    remarks = [remark for remark in (vote_remark(summary), gain_remark(summary)) if remark]
    counts = "\n".join(f"- {name}: {text}" for name, text in facts(summary).items())
    if not shown:
        return ["## Measured by its own run", f"No score: {run.remark or 'no problem has a label.'}", counts]
    metrics, k = summary["metrics"]["all"], (summary["base"] or {}).get("k", "k")
    rows = [("", *(metric.replace("@k", f"@{k}") for metric in metrics)), ["---"] * (1 + len(metrics))]
    rows += [(label, *(metric_cell(summary, key, metric) for metric in metrics)) for label, key in shown]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return ["## Measured by its own run", table, "In brackets: 95 % intervals, clustered by problem. Shares are of 1.", *remarks, counts]


def _usage(run: LoadedRun, repo_id: str, place: str) -> str:
    """How PEFT loads an adapter. ``place``: its folder in the repository; empty for the repository itself."""
    base = hub_model(run) or f"path/to/{model_name(run).rpartition('/')[2]}"
    folder = f', subfolder="{place}"' if place else ""
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "{repo_id}"{folder})',
    ]
    return "\n".join(["```python", *lines, "```"])


def _made(run: LoadedRun) -> list[str]:
    """The command, and what it ran with."""
    known = {name.replace("_", " "): run.config.get(name) for name in REVISIONS if run.config.get(name)}
    rows = {**known, "sttrl": sttrl.__version__, **_environment(run)}
    table = "\n".join(["| what | which |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    return ["## How it was made", f"```bash\n{command_of(run)}\n```", "A file or folder here is named without its path.", table]


def _environment(run: LoadedRun) -> dict[str, Any]:
    """Versions, device and dtype of the last attempt; empty if the run has not recorded them."""
    try:
        found = json.loads((run.path / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    own = {name: found[name] for name in ("python", "device", "dtype") if found.get(name)}
    return own | {name: version for name, version in found.get("packages", {}).items() if version}


def _dataset(run: LoadedRun) -> str:
    return f"{len(run.problems)} problems of `{settings_of(run)['dataset']}`"
