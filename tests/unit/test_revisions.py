"""Which commit of the hub a model and a data set are of: a cache as the hub's client leaves it, and no network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import constants

from sttrl.data import SourceSpec, read_table
from sttrl.data.hub import parse_hub_source
from sttrl.engine.models import commit_of, model_folder
from sttrl.errors import DataError, EngineError, JournalError
from sttrl.ledger.folder import CONFIG, begun_revisions, check_owner, claim, read_config, source_of
from sttrl.ledger.journal import Journal

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two commits of one model, of which the newer is main."""
    model = tmp_path / "hub" / "models--org--name"
    for commit in (OLD, NEW):
        folder = model / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "model.safetensors").write_bytes(b"")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(NEW)
    (model / "refs" / "v1").write_text(OLD)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return model


@pytest.mark.parametrize(("name", "begun", "commit"), [
    ("org/name", None, NEW), ("org/name@v1", None, OLD), (f"org/name@{OLD}", None, OLD), ("org/name@main", None, NEW),
    ("org/name", OLD, OLD), ("org/name@main", OLD, OLD),
])  # fmt: skip
def test_the_commit_of_a_model(name: str, begun: str | None, commit: str, cache: Path) -> None:
    folder = model_folder(name, revision=begun)
    assert folder == cache / "snapshots" / commit and commit_of(folder) == commit


def test_a_revision_that_is_not_in_the_cache_is_named(cache: Path) -> None:
    with pytest.raises(EngineError, match="org/name@v9 is not in the local cache and the hub cannot be reached"):
        model_folder("org/name@v9")


def test_a_folder_has_no_commit_whatever_its_name(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine@v1"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"")
    assert model_folder(str(folder)) == folder and commit_of(folder) is None


class Rows(list[Any]):
    """Rows as the package datasets gives them: it keeps them in a folder named after their commit."""

    def __init__(self, commit: str) -> None:
        super().__init__([{"question": "1 + 1?", "answer": "2"}])
        self.cache_files = [{"filename": f"/cache/org___set/default/0.0.0/{commit}/set-test.arrow"}]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    asked: list[str | None] = []

    def load_dataset(repo: str, config: str | None, *, split: str | None, revision: str | None) -> Rows:
        asked.append(revision)
        return Rows(fake.commit)

    fake = SimpleNamespace(
        asked=asked, commit=NEW, load_dataset=load_dataset, is_offline_mode=lambda: True, exceptions=SimpleNamespace(DatasetsError=KeyError)
    )
    monkeypatch.setattr("sttrl.data.hub.import_module", lambda name: fake)
    return fake


def test_the_commit_of_a_data_set(hub: SimpleNamespace) -> None:
    assert read_table(SourceSpec(dataset="hf:org/set:test")).revision == NEW
    assert read_table(SourceSpec(dataset="hf:org/set@v1:test")).revision == NEW
    assert read_table(SourceSpec(dataset="hf:org/set:test", revision=NEW)).revision == NEW
    assert hub.asked == [None, "v1", NEW]
    assert read_table(SourceSpec(dataset="arithmetic-demo")).revision is None


@pytest.mark.parametrize("spec", [{"dataset": f"hf:org/set@{OLD}:test"}, {"dataset": "hf:org/set:test", "revision": OLD}])
def test_another_commit_than_the_one_that_was_asked_for_is_refused(spec: dict[str, Any], hub: SimpleNamespace) -> None:
    """Without a network the package gives what it has, whatever was asked for."""
    with pytest.raises(DataError, match=f"org/set is in the cache at {NEW}, not at {OLD}. Connect"):
        read_table(SourceSpec(**spec))


@pytest.mark.parametrize(("text", "parts"), [
    ("hf:a/b@v1.2", ("a/b", "v1.2", None, None)), ("hf:a/b@refs/pr/1:main:test", ("a/b", "refs/pr/1", "main", "test")),
    (f"hf:a/b@{OLD}:test", ("a/b", OLD, None, "test")), ("hf:a/b", ("a/b", None, None, None)),
])  # fmt: skip
def test_the_form_of_a_revision(text: str, parts: tuple[str | None, ...]) -> None:
    source = parse_hub_source(text)
    assert (source.repo, source.revision, source.config, source.split) == parts


def test_a_run_is_of_its_commits(tmp_path: Path) -> None:
    from sttrl.config import RunConfig

    config, began = RunConfig.of(dataset="hf:org/set:test"), {"model_revision": OLD, "dataset_revision": NEW}
    with Journal(tmp_path) as journal:
        claim(tmp_path, config, began)
        assert begun_revisions(tmp_path) == {"model_revision": None, "dataset_revision": None}, "no question was begun"
        journal.begin("q", 0, 1)
    assert begun_revisions(tmp_path) == began
    assert source_of(read_config(tmp_path)).revision == NEW, "the report reads the labels there"
    check_owner(tmp_path, config, began)
    check_owner(tmp_path, config)
    with pytest.raises(JournalError, match=f"holds another run: dataset revision '{NEW}' then, '{OLD}' now"):
        check_owner(tmp_path, config, began | {"dataset_revision": OLD})
    (tmp_path / CONFIG).write_text((tmp_path / CONFIG).read_text().replace('"dataset_revision"', '"other"'))
    with pytest.raises(JournalError, match="--other"):
        check_owner(tmp_path, config, began)
