"""A run beside the numbers that papers have published for its model, data set and method. The numbers are in published.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sttrl.config import RunConfig
from sttrl.config.packaged import settings_file
from sttrl.config.yaml_settings import read_mapping, read_yaml
from sttrl.data.registry import DATASETS
from sttrl.ledger.folder import ENVIRONMENT, setting_name
from sttrl.report.deviations import Deviation, deviations, effect_of, method_differences, run_settings
from sttrl.report.layout import NOTHING, WIDTH, aligned, broken
from sttrl.report.read import RunContent, read_run
from sttrl.report.summary import summarise

NUMBERS: Final = Path(__file__).with_name("published.yaml")
METRIC: Final = "mean@k"
"""The metric of a run that is held against a published one: the fraction of samples that are right."""
_LEGEND: Final = (
    "Percent. ours: mean@k of this run with its 95 % interval by question, for this one training; trainings with other seeds differ in "
    "addition. inside: whether the published number is in the interval of ours."
)


@dataclass(frozen=True, kw_only=True)
class PublishedNumber:
    """What a paper says of one method on one model and data set, in percent, as it prints it.

    ``paper``: whose table it is in; ``method``: whose method it is. ``base``: before adapting; None where the paper does not say it.
    ``read``: where the number was read. ``dtype``: None where nothing says it. ``config``: the name of the file with the published
    settings; None where there is none. ``settings``: what differed from that file in this paper.
    """

    paper: str
    arxiv: str
    read: str
    dtype: str | None
    place: str
    method: str
    model: str
    dataset: str
    metric: str
    base: float | None
    adapted: float
    config: str | None
    settings: Mapping[str, Any]

    @property
    def source(self) -> str:
        """The paper, and the place in it."""
        return f"{self.paper}, arXiv {self.arxiv}, {self.place}"

    @property
    def about(self) -> str:
        """Method, data set and model."""
        return f"{self.method} on {self.dataset} with {self.model}"


@cache
def published_numbers() -> tuple[PublishedNumber, ...]:
    """Every published number, in the order of the file."""
    content = read_mapping(NUMBERS, "published numbers")
    papers = content["papers"]
    return tuple(PublishedNumber(**papers[line["paper"]], **{"settings": {}, **line}) for line in content["results"])


@cache
def published_settings(number_config: str) -> RunConfig:
    """The settings in a file of published settings, by its name."""
    return RunConfig.of(**read_yaml(settings_file(number_config)))


def settings_of(number: PublishedNumber) -> RunConfig | None:
    """The settings of the run behind a published number; None if they are in no file."""
    return None if number.config is None else published_settings(number.config).changed(**number.settings)


def compare_to_papers(folders: Sequence[Path], data_dir: Path | None = None) -> str:
    """Every run beside the published numbers, as text. Raises `JournalError` for a folder that holds no run."""
    return "\n\n".join(beside_papers(read_run(folder, data_dir)) for folder in folders)


def beside_papers(run: RunContent) -> str:
    """One run beside the numbers that are published for it, or a line that says that nothing is."""
    found = [number for number in published_numbers() if not _differences(run.config, number)]
    head = [str(run.folder)]
    if not found:
        return "\n".join([*head, *broken(nothing_published(run.config))])
    summary = summarise(run.finished, run.grades, run.seconds, run.config)
    remark = [] if run.remark is None else broken(run.remark)
    lines = [*head, *broken(f"{found[0].about}: {_asked(run, summary)}"), *remark, "", *_table(summary, found), *broken(_LEGEND), ""]
    return "\n".join([*lines, *_settings(run, found), "", *_sources(found)]).rstrip()


def nothing_published(config: Mapping[str, Any]) -> str:
    """That nothing is published for a run with this config.json, and which published number is nearest: the one that differs in fewest of
    model, data set and settings of the method."""
    fewest = min(len(_differences(config, number)) for number in published_numbers())
    nearest = next(number for number in published_numbers() if len(_differences(config, number)) == fewest)
    differs = ", ".join(f"{setting_name(d.name)} {d.ours} (there {d.published})" for d in _differences(config, nearest))
    method = config.get("adaptation_method")
    return (
        f"Nothing is published for {method} on {config.get('dataset')} with {config.get('model')} and these settings. "
        f"Nearest: {nearest.about}, {_shown(nearest.base)} -> {_shown(nearest.adapted)} ({nearest.source}); it differs in {differs}."
    )


def _differences(config: Mapping[str, Any], number: PublishedNumber) -> list[Deviation]:
    """What makes a number one of another run: model, data set, and the settings of the method. One without settings is never the run's."""
    pairs = [(name, config.get(name), getattr(number, name)) for name in ("dataset", "model")]
    found = [Deviation(name=n, ours=a, published=b, effect="") for n, a, b in pairs if _last_name(a) != _last_name(b)]
    settings = settings_of(number)
    if settings is None:
        return [*found, Deviation(name="adaptation_method", ours=config.get("adaptation_method"), published=number.method, effect="")]
    return [*found, *method_differences(config, settings)]


def _last_name(name: object) -> str:
    """The last part of a model's name, without a revision, so that a local folder of the same name is the same model."""
    return str(name).rstrip("/").split("/")[-1].split("@")[0].lower()


def _asked(run: RunContent, summary: Mapping[str, Any]) -> str:
    """How many of the data set's questions are in the means."""
    known = DATASETS.get(str(run.config["dataset"]))
    of = f" of {known.rows}" if known is not None and known.rows is not None else ""
    return f"{summary['questions']['graded']}{of} questions are in our means."


def _table(summary: Mapping[str, Any], found: Sequence[PublishedNumber]) -> list[str]:
    """A row for each published number, before and after adapting."""
    rows = [("published by", "metric", "", "published", "ours", "inside")]
    for number in found:
        named = f"{number.paper} ({number.arxiv})"
        for key, value in (("base", number.base), ("adapted", number.adapted)):
            if value is not None:
                rows.append((named, number.metric, key, _shown(value), *_ours(summary, key, value)))
                named = ""
    return aligned(rows)


def _ours(summary: Mapping[str, Any], key: str, published: float) -> tuple[str, str]:
    """(ours with its interval, whether the published number is in it)."""
    block = summary[key]
    if block is None or block.get(METRIC) is None:
        return NOTHING, NOTHING
    low, high = block["ci95_by_metric"][METRIC]
    inside = low <= published / 100 <= high
    return f"{_shown(100 * block[METRIC])} [{_shown(100 * low)}, {_shown(100 * high)}]", "yes" if inside else "no"


def _settings(run: RunContent, found: Sequence[PublishedNumber]) -> list[str]:
    """The settings that differ from those behind each published number; numbers with the same settings share a paragraph."""
    lines: list[str] = []
    groups: dict[str, list[PublishedNumber]] = {}
    for number in found:
        groups.setdefault(json.dumps([number.config, dict(number.settings), number.dtype], sort_keys=True), []).append(number)
    for numbers in groups.values():
        first, settings = numbers[0], settings_of(numbers[0])
        assert settings is not None, "a number without settings is never a run's"
        differing = deviations(run_settings(run.config), settings) + _dtype(run, first)
        file = f"configs/{first.config}.yaml" + (" as in " + first.paper if first.settings else "")
        names = " and ".join(dict.fromkeys(number.paper for number in numbers))
        lines += broken(f"{'Settings that differ' if differing else 'No setting differs'} from {file}, behind the number of {names}:")
        lines += [f"  {line}" for each in differing for line in broken(_said(each), WIDTH - 2)]
    return lines


def _said(found: Deviation) -> str:
    return f"{setting_name(found.name)} {_worded(found.ours)}, published {_worded(found.published)}: {found.effect}"


def _worded(value: object) -> str:
    """A setting's value; unset for one that neither has a value nor is read."""
    return "unset" if value is None or value == [] else f"{value:g}" if isinstance(value, float) else str(value)


def _dtype(run: RunContent, number: PublishedNumber) -> list[Deviation]:
    """The number type that the run used, if it is known and differs."""
    file = run.folder / ENVIRONMENT
    used = json.loads(file.read_text(encoding="utf-8")).get("dtype") if file.exists() else None
    if used is None or number.dtype is None or used == number.dtype:
        return []
    return [Deviation(name="dtype", ours=used, published=number.dtype, effect=effect_of("dtype"))]


def _sources(found: Sequence[PublishedNumber]) -> list[str]:
    """Where each number stands, and where it was read."""
    return [line for number in found for line in broken(f"Source: {number.source}; read in {number.read}.")]


def _shown(percent: float | None) -> str:
    return NOTHING if percent is None else f"{percent:.1f}"
