"""``merge``: the model folder computes what base and adapter compute, whatever was tied, and what cannot be merged is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import odd_models
import pytest
import torch
from learner_tools import OPEN, batch, forked, plain_logprobs, score
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import VOCABULARY
from transformers import AutoModelForCausalLM

from sttrl.cli import main
from sttrl.engine.base import AdapterShape
from sttrl.engine.merge import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from sttrl.engine.merged import RECORD
from sttrl.engine.models import load_tokenizer, model_folder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")

TOKENS = torch.arange(3, 33)[None]
TIED_SHAPES: dict[str, tuple[dict[str, Any], bool]] = {
    "all layers": ({"target_modules": "all-linear"}, True),
    "rank stabilised": ({"target_modules": "all-linear", "use_rslora": True}, True),
    "LoRA on the embeddings": ({"target_modules": ["embed_tokens"]}, False),
    "LoRA on the head": ({"target_modules": ["q_proj", "lm_head"]}, False),
    "LoRA on both": ({"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, False),
    "LoRA on both as one": ({"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True, "use_rslora": True}, True),
    "embeddings whole": ({"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}, False),
    "head whole": ({"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]}, False),
    "both whole": ({"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"], "use_rslora": True}, False),
    "both whole as one": ({"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, True),
}
"""For a model whose head is tied: PEFT's settings, and whether the head is still tied when they are merged."""
UNTIED_SHAPES = ("rank stabilised", "LoRA on both", "both whole")


def with_round_weights(folder: Path) -> Path:
    """The model of a folder with weights, in 64ths, to which a round adapter can be added without an error of rounding."""
    chance = torch.Generator().manual_seed(2)
    weights = load_file(folder / odd_models.WEIGHTS)
    for name, weight in sorted(weights.items()):
        if weight.ndim == 2:
            weights[name] = round_values(weight.shape, 32, 64, chance).to(weight.dtype)
    save_file(weights, folder / odd_models.WEIGHTS, metadata={"format": "pt"})
    return folder


def round_values(shape: Any, most: int, part: int, chance: torch.Generator) -> torch.Tensor:
    return torch.randint(-most, most + 1, tuple(shape), generator=chance) / part


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "tied": with_round_weights(odd_models.llama(folder / "tied", tie_word_embeddings=True)),
        "untied": with_round_weights(odd_models.llama(folder / "untied", tie_word_embeddings=False)),
        "gpt2": with_round_weights(odd_models.gpt2(folder / "gpt2")),
    }


def loaded(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def logits(network: Any) -> torch.Tensor:
    return network(TOKENS).logits[0]


def adapter_of(model: Path, folder: Path, **settings: Any) -> Path:
    """An adapter that PEFT has made and saved, of numbers in 8ths and 64ths."""
    network = get_peft_model(loaded(model), LoraConfig(**{"r": 4, "lora_alpha": 8, **settings}))
    chance = torch.Generator().manual_seed(3)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            most, part = (1, 8) if "lora_" in name else (32, 64)
            parameter.data.copy_(round_values(parameter.shape, most, part, chance))  # in place: what is trained as one shares its memory
    network.save_pretrained(folder)
    return folder


def check_same(out: Path, network: Any, base: Path) -> None:
    """The folder is a whole 16-bit model that computes what ``network`` computes, and not what the base computes."""
    expected, before, found = logits(network), logits(loaded(base)), logits(loaded(out))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert (expected - before).abs().max() > 1
    assert {weight.dtype for weight in load_file(out / odd_models.WEIGHTS).values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert model_folder(str(out)) == out and len(load_tokenizer(out)) == len(VOCABULARY)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (base / name).read_bytes()


def merged(*arguments: Any) -> int:
    return main(["merge", *map(str, arguments)])


@pytest.mark.parametrize(("kind", "shape"), [*(("tied", name) for name in TIED_SHAPES), *(("untied", name) for name in UNTIED_SHAPES)])
def test_a_merged_model_computes_what_base_and_adapter_compute(kind: str, shape: str, models: dict[str, Path], tmp_path: Path) -> None:
    settings, stays_tied = TIED_SHAPES[shape]
    adapter = adapter_of(models[kind], tmp_path / "adapter", **settings)
    assert merged(adapter, "--out", tmp_path / "new" / "out") == 0
    check_same(tmp_path / "new" / "out", PeftModel.from_pretrained(loaded(models[kind]), adapter).eval(), models[kind])
    network = loaded(tmp_path / "new" / "out")
    assert network.config.tie_word_embeddings == (kind == "tied" and stays_tied)
    assert (network.lm_head.weight is network.model.embed_tokens.weight) == (kind == "tied" and stays_tied)
    assert ("lm_head.weight" in load_file(tmp_path / "new" / "out" / odd_models.WEIGHTS)) != network.config.tie_word_embeddings


def test_transposed_layers_beside_others(models: dict[str, Path], tmp_path: Path) -> None:
    """GPT-2's layers are transposed and its head is not; half of its matrices are square, so no shape tells."""
    adapter = adapter_of(models["gpt2"], tmp_path / "adapter", target_modules=["c_attn", "c_proj", "c_fc", "lm_head"])
    assert merged(adapter, "--out", tmp_path / "out") == 0
    check_same(tmp_path / "out", PeftModel.from_pretrained(loaded(models["gpt2"]), adapter).eval(), models["gpt2"])


def test_other_weights_stay_as_they_are(models: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(models["untied"], tmp_path / "adapter", target_modules=["q_proj"])
    assert merged(adapter, "--out", tmp_path / "out") == 0
    before, after = (load_file(folder / odd_models.WEIGHTS) for folder in (models["untied"], tmp_path / "out"))
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["model.layers.0.self_attn.q_proj.weight"]


def test_a_float32_base_is_rounded_once_after_the_sum(models: dict[str, Path], tmp_path: Path) -> None:
    fine = tmp_path / "fine"
    network = loaded(models["untied"])
    weight = network.model.layers[0].self_attn.q_proj.weight
    weight.data += 2**-11  # lost where the base is rounded before the sum
    network.save_pretrained(fine)
    load_tokenizer(models["untied"]).save_pretrained(fine)
    adapter = adapter_of(fine, tmp_path / "adapter", target_modules=["q_proj"])
    factors = load_file(adapter / ADAPTER_WEIGHTS)
    a, b = (next(w for name, w in factors.items() if f"lora_{factor}" in name) for factor in "AB")
    assert merged(adapter, "--out", tmp_path / "out") == 0
    found = load_file(tmp_path / "out" / odd_models.WEIGHTS)["model.layers.0.self_attn.q_proj.weight"]
    assert torch.equal(found, (weight.data + 2 * b @ a).to(torch.bfloat16))


def as_marc_writes(adapter: Path, folder: Path) -> Path:
    """The same adapter as a file of torch's, with only the settings that torchtune writes."""
    folder.mkdir()
    torch.save(load_file(adapter / ADAPTER_WEIGHTS), folder / "adapter_model.bin")
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text())
    written = {name: settings[name] for name in ("r", "lora_alpha", "target_modules", "peft_type")}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(written))
    return folder


def test_an_adapter_as_marc_published_it(models: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(models["untied"], tmp_path / "adapter", target_modules=["q_proj", "v_proj", "down_proj", "lm_head"])
    published = as_marc_writes(adapter, tmp_path / "00576224")
    assert merged(published, "--model", models["untied"], "--out", tmp_path / "out") == 0
    check_same(tmp_path / "out", PeftModel.from_pretrained(loaded(models["untied"]), adapter).eval(), models["untied"])


class Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_no_object_of_a_file_is_built(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    published = as_marc_writes(adapter_of(models["tied"], tmp_path / "adapter", target_modules=["q_proj"]), tmp_path / "published")
    torch.save({"weight": Trap(tmp_path / "sprung")}, published / "adapter_model.bin")
    assert merged(published, "--model", models["tied"], "--out", tmp_path / "out") == 4
    assert "adapter_model.bin cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


def run_of(folder: Path, model: Path, **adapters: Path) -> Path:
    """A run folder that has kept these adapters."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"dataset": "some", "model": str(model), "model_revision": None}))
    for name, adapter in adapters.items():
        shutil.copytree(adapter, folder / "adapters" / name)
    return folder


def test_a_run_says_which_model_and_which_adapter(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = adapter_of(models["tied"], tmp_path / "adapter", target_modules=["q_proj"])
    settings = json.loads((adapter / ADAPTER_CONFIG).read_text())
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(settings | {"base_model_name_or_path": "/moved"}))
    one = run_of(tmp_path / "one", models["tied"], all=adapter)
    several = run_of(tmp_path / "several", models["tied"], **{f"q{n}": adapter for n in range(5)})
    assert merged(one, "--out", tmp_path / "a") == 0
    assert merged(several / "adapters" / "q3", "--out", tmp_path / "b") == 0
    capsys.readouterr()
    for source, text in (
        (several, r"several has 5 adapters: q0, q1, q2, \.\.\.\. Give one of them, such as .*several/adapters/q0\."),
        (run_of(tmp_path / "none", models["tied"]), r"none has kept no adapter\."),
        (adapter, r"The base of .*adapter: --model '/moved' is no folder here\. .*--model names another place\."),
    ):
        assert merged(source, "--out", tmp_path / "c") == 2
        assert re.search(text, capsys.readouterr().err)
    assert merged(adapter, "--model", models["tied"], "--out", tmp_path / "c") == 0
    first, second = (load_file(tmp_path / name / odd_models.WEIGHTS) for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def full_weights(model: Path, folder: Path, **changes: torch.Tensor | None) -> Path:
    """All weights of a model, moved a little, as the learner writes them; None leaves one out."""
    folder.mkdir()
    weights = {name: weight.float() + 0.25 for name, weight in load_file(model / odd_models.WEIGHTS).items()}
    for name, weight in changes.items():
        key = {"head": "lm_head.weight", "norm": "model.norm.weight"}[name]
        weights.pop(key, None)
        weights |= {} if weight is None else {key: weight}
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", ["tied", "untied", "tied, with a head"])
def test_full_weights_take_the_place_of_the_base(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    base = models[kind.split(",")[0]]
    head = round_values((len(VOCABULARY), 64), 32, 64, torch.Generator().manual_seed(4))
    learned = full_weights(base, tmp_path / "learned", **({"head": head} if kind == "tied, with a head" else {}))
    assert merged(learned, "--model", base, "--out", tmp_path / "out") == 0
    network = loaded(base)
    if kind == "tied, with a head":
        network.lm_head.weight = torch.nn.Parameter(head.clone())
    network.load_state_dict(load_file(learned / "model.safetensors"), strict=False)
    check_same(tmp_path / "out", network, base)
    assert loaded(tmp_path / "out").config.tie_word_embeddings == (kind == "tied")


def edited(adapter: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any] = lambda _: None, **settings: Any) -> Path:
    """An adapter with something changed in its weights or its settings."""
    shutil.copytree(adapter, folder)
    weights = load_file(folder / ADAPTER_WEIGHTS)
    change(weights)
    save_file(weights, folder / ADAPTER_WEIGHTS)
    before = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(before | settings))
    return folder


LAYER = "base_model.model.model.layers.0.self_attn"
REFUSED: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], dict[str, Any], str]] = {
    "another layer": (lambda w: w.update({f"{LAYER[:-11]}9.q.lora_{f}.weight": torch.ones(4, 4) for f in "AB"}), {}, r"no weight .*\.9\.q"),
    "another shape": (
        lambda w: w.update({f"{LAYER}.q_proj.lora_B.weight": torch.ones(8, 4)}),
        {},
        r"q_proj\.weight is \[8, 64\], and the model's is \[128, 64\]",
    ),
    "unknown name": (lambda w: w.update({"something": torch.ones(2)}), {}, r"the model has no weight something\."),
    "raw name": (
        lambda w: w.update({f"{LAYER}.q_proj.lora_{f}": torch.ones(4, 4) for f in "AB"}),
        {},
        r"the model has no weight .*lora_A\.",
    ),
    "unknown factor": (lambda w: w.update({f"{LAYER}.q_proj.lora_C.weight": torch.ones(2)}), {}, r"lora_C\.weight is no factor"),
    "one factor": (lambda w: w.pop(f"{LAYER}.q_proj.lora_A.weight"), {}, r"lora_B\.weight has no .*lora_A\.weight beside it"),
    "another rank": (lambda _: None, {"r": 8}, r"q_proj\.weight has rank 4, and adapter_config\.json says 8"),
    "no numbers": (lambda w: w[f"{LAYER}.q_proj.lora_B.weight"].fill_(torch.nan), {}, r"q_proj\.weight is not finite"),
    "no weights": (lambda w: w.clear(), {}, r"holds no weights"),
    "DoRA": (lambda _: None, {"use_dora": True}, r"adapters with use_dora True are not merged\."),
    "another kind": (lambda _: None, {"peft_type": "IA3"}, r"describes no LoRA adapter"),
    "ranks by layer": (lambda _: None, {"rank_pattern": {"q_proj": 2}}, r"adapters with rank_pattern"),
    "a changed base": (lambda _: None, {"init_lora_weights": "pissa"}, r"init_lora_weights 'pissa'"),
    "biases": (lambda _: None, {"bias": "all"}, r"adapters with bias 'all'"),
    "no scale": (lambda _: None, {"lora_alpha": None}, r"lora_alpha is None\."),
    "no base": (lambda _: None, {"base_model_name_or_path": ""}, r"does not say which model .* Give the model .* with --model\."),
}


@pytest.fixture(scope="module")
def adapter(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter_of(models["tied"], tmp_path_factory.mktemp("adapter"), target_modules=["q_proj"])


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_merged_is_refused(case: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, settings, text = REFUSED[case]
    assert merged(edited(adapter, tmp_path / "changed", change, **settings), "--out", tmp_path / "out") in (2, 4)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and re.search(text, said[0]), said
    assert [path.name for path in tmp_path.iterdir()] == ["changed"], "nothing is left behind"


def test_folders_that_hold_nothing_to_merge(
    adapter: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "slot").mkdir()
    save_file({"delta": torch.ones(2)}, tmp_path / "slot" / "vector.safetensors")
    cut = edited(adapter, tmp_path / "cut")
    (cut / ADAPTER_WEIGHTS).write_bytes((cut / ADAPTER_WEIGHTS).read_bytes()[:-9])
    lacking = full_weights(models["untied"], tmp_path / "lacking", norm=None)
    for arguments, text in (
        ([tmp_path / "nothing"], r"nothing is no folder\."),
        ([tmp_path / "empty"], r"empty has no model\.safetensors\."),
        ([tmp_path / "slot"], r"slot holds a vector of slot"),
        ([models["tied"]], r"tied is a whole model"),
        ([cut], r"adapter_model\.safetensors cannot be read"),
        ([adapter, "--model", tmp_path / "empty"], r"empty is no model"),
        ([adapter, "--model", models["gpt2"]], r"the model has no weight model\.layers\.0"),
        ([lacking, "--model", models["untied"]], r"model\.safetensors lacks model\.norm\.weight\."),
    ):
        assert merged(*arguments, "--out", tmp_path / "out") in (2, 4)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and re.search(text, said[0]), said
        assert not (tmp_path / "out").exists()


def test_a_finished_merge_is_found(adapter: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert merged(adapter, "--out", out) == 0
    capsys.readouterr()
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    moved = shutil.copytree(adapter, tmp_path / "moved")
    for source in (adapter, moved):
        assert merged(source, "--out", out) == 0
        assert capsys.readouterr().out == f"{out}: already merged\n"
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    others = (edited(adapter, tmp_path / "scale", lora_alpha=16), edited(adapter, tmp_path / "weights", lambda w: w.popitem()[1].neg_()))
    for source, model in (*((other, models["tied"]) for other in others), (adapter, models["untied"])):
        assert merged(source, "--model", model, "--out", out) == 2
        assert re.search(rf"--out {out} holds another merge: .*tied with {adapter}\. Choose another", capsys.readouterr().err)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / RECORD).write_text("[]")
    assert merged(adapter, "--out", tmp_path / "damaged") == 2
    assert f"{RECORD} cannot be read." in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert merged(adapter, "--out", tmp_path / "full") == 2
    assert "full exists and is not an empty folder." in capsys.readouterr().err
    (tmp_path / "new").mkdir()
    assert merged(adapter, "--out", tmp_path / "new") == 0, "an empty folder is taken"


def test_a_merged_model_is_a_base(adapter: Path, tmp_path: Path) -> None:
    """The record of what it was merged from stays its own."""
    assert merged(adapter, "--out", tmp_path / "once") == 0
    assert merged(adapter, "--model", tmp_path / "once", "--out", tmp_path / "twice") == 0
    once, twice = (json.loads((tmp_path / name / RECORD).read_text()) for name in ("once", "twice"))
    assert once["hash"] != twice["hash"] and twice["model"] == str(tmp_path / "once")


@pytest.mark.slow
def test_a_killed_merge_leaves_nothing_under_the_name(adapter: Path, tmp_path: Path) -> None:
    killed = (
        "import os, signal, sttrl.engine.model_files as files\nfrom sttrl.cli import main\n"
        "files.settle_folder = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"main(['merge', {str(adapter)!r}, '--out', {str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", killed], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = tmp_path.iterdir()
    assert left.name == ".out.unfinished" and (left / odd_models.WEIGHTS).exists()
    (left / "of the killed one").touch()
    assert merged(adapter, "--out", tmp_path / "out") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not (tmp_path / "out" / "of the killed one").exists()


LEARNER_SHAPES = {
    "rank stabilised": AdapterShape(rank=8, alpha=16, rank_stabilised=True),
    "tied embeddings": AdapterShape(rank=8, alpha=16, trainable_modules=("embed_tokens",)),
    "embeddings and head": AdapterShape(rank=8, alpha=16, trainable_modules=("embed_tokens", "lm_head")),
    "LoRA on embeddings and head": AdapterShape(rank=8, alpha=16, targets=("embed_tokens", "lm_head", "v_proj")),
    "full weights": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", LEARNER_SHAPES)
def test_a_merged_model_scores_as_the_learner_did(
    shape: str, local_learner: Callable[..., Any], models: dict[str, Path], tmp_path: Path
) -> None:
    model, data = models["untied" if "embeddings and head" in shape else "tied"], batch()
    learner = local_learner(model_folder=str(model), adapter=LEARNER_SHAPES[shape])
    with forked(learner, lr=0.01) as name:
        for _ in range(3):
            learner.update(name, [data.group], OPEN)
        adapted = torch.cat([torch.tensor(row) for row in score(learner, name, data)])
        learner.export(name, str(tmp_path / "run" / "adapters" / "q1"), "float32")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"dataset": "some", "model": str(model), "model_revision": None}))
    assert merged(tmp_path / "run", "--out", tmp_path / "out") == 0
    before, after = (torch.cat([row.detach() for row in plain_logprobs(loaded(folder), data)]) for folder in (model, tmp_path / "out"))
    moved = float((adapted - before).norm())
    assert float((after - adapted).norm()) < 0.05 * moved, "rounding to bfloat16 is small beside what was learned"
    assert loaded(tmp_path / "out").config.tie_word_embeddings == ("embeddings and head" not in shape)
