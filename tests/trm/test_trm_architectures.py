"""The ablations' architectures, settings that change how a model trains, and settings that cannot be computed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from trm_small import SIZES, seeded, small_batch, small_model, train_step

from sttrl.errors import UsageError
from sttrl.trm.arch import ArchConfig
from sttrl.trm.losses import act_loss, logged_eval
from sttrl.trm.model import ARCHITECTURES, build_model

NAMES = {name.split("@")[0].rpartition(".")[2]: name for name in ARCHITECTURES}
KINDS: dict[str, dict[str, Any]] = {
    "trm": {},
    "trm_singlez": {},
    "trm_hier6": {},
    "hrm": {"H_layers": 1},
    "transformers_baseline": {"H_layers": 2},
}
STARTS = {
    "trm": {"H_init", "L_init"},
    "trm_singlez": {"L_init"},
    "trm_hier6": {"H_init", *(f"L{number}_init" for number in range(1, 7))},
    "hrm": {"H_init", "L_init"},
    "transformers_baseline": {"H_init"},
}
LEVELS = {"hrm": {"H_level", "L_level"}, "transformers_baseline": {"H_level"}}
EVERY = [(kind, mlp) for kind in KINDS for mlp in (False, True) if (kind, mlp) != ("transformers_baseline", True)]


def kind_model(kind: str, **changes: Any) -> Any:
    return small_model(name=NAMES[kind], **{**KINDS[kind], **changes})


def test_every_architecture_is_tested() -> None:
    assert set(NAMES) == set(KINDS)


@pytest.mark.parametrize(("kind", "mlp"), EVERY)
def test_an_architecture_has_its_names_learns_and_ends_together(kind: str, mlp: bool) -> None:
    model, batch = kind_model(kind, mlp_t=mlp), small_batch()
    names = set(model.state_dict())
    assert {name for name in names if name.endswith("_init")} == STARTS[kind]
    assert {name.split(".")[0] for name in names if "_level" in name} == LEVELS.get(kind, {"L_level"})
    before = train_step(model.train(), batch)[2]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for _, parameter in model.trunk_parameters())
    with torch.no_grad():
        for _, parameter in model.trunk_parameters():
            parameter -= 0.01 * parameter.grad / parameter.grad.norm()
    assert train_step(model, batch)[2] < before
    model.eval()
    carry = model.initial_carry(batch)
    for step in range(1, 4):
        carry, _ = model(carry, batch)
        assert carry.steps.tolist() == [step] * 4
        assert carry.halted.tolist() == [step == 3] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_slots_do_not_see_each_other(kind: str) -> None:
    model, batch = kind_model(kind).eval(), small_batch()
    with torch.no_grad():
        whole = model(model.initial_carry(batch), batch)[1]
        for row in range(4):
            one = {name: values[row : row + 1] for name, values in batch.items()}
            torch.testing.assert_close(model(model.initial_carry(one), one)[1].logits[0], whole.logits[row], rtol=1e-4, atol=1e-5)


def test_the_hierarchy_renews_one_latent_in_turn() -> None:
    model, batch = kind_model("trm_hier6", L_cycles=2).eval(), small_batch()
    with torch.no_grad():
        carry, _ = model(model.initial_carry(batch), batch)
    starts = torch.stack([getattr(model, f"L{number}_init") for number in range(1, 7)])
    kept = [torch.equal(carry.z_L[:, number], starts[number].expand_as(carry.z_L[:, number])) for number in range(6)]
    assert kept == [False, False, True, True, True, True]


@pytest.mark.parametrize("loss_type", ["stablemax_cross_entropy", "softmax_cross_entropy"])
def test_continuing_can_be_learned_and_softmax_used(loss_type: str) -> None:
    """Both crash in the original."""
    model, batch = small_model(no_ACT_continue=False, loss_type=loss_type).train(), small_batch()
    carry, outputs, _ = train_step(model, batch)
    assert outputs.target_q_continue is not None
    assert bool(((outputs.target_q_continue > 0) & (outputs.target_q_continue < 1)).all())
    assert torch.equal(carry.halted, outputs.q_halt_logits > outputs.q_continue_logits)
    assert "q_continue_loss" in act_loss(outputs, carry, model.arch.loss.loss_type)[1]
    assert model.table is not None
    assert len(model.table.pending) == 1


def test_the_target_of_continuing_is_what_the_next_step_says() -> None:
    model, batch = small_model(no_ACT_continue=False).train(), small_batch()
    with torch.no_grad():
        model.q_head.bias.copy_(torch.tensor([-50.0, 50.0]))
        carry, first = model(model.initial_carry(batch), batch)
        assert not carry.halted.any()
        _, second = model(carry, batch)
    expected = torch.maximum(second.q_halt_logits, second.q_continue_logits).sigmoid()
    torch.testing.assert_close(first.target_q_continue, expected, rtol=1e-4, atol=1e-5)


def test_dropouts_come_from_the_generator_and_only_in_training() -> None:
    batch = small_batch()
    lora = {"lora_rank": 1, "lora_alpha": 4.0, "lora_dropout": 0.5}
    for settings in ({"grid_token_dropout": 0.5}, {"puzzle_emb_dropout": 0.5}, lora):
        model = small_model(**settings)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("_lora_B"):
                    parameter.fill_(0.3)
        found = [model.train()(model.initial_carry(batch), batch, generator=seeded(seed))[1].logits.detach() for seed in (1, 1, 2)]
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])
        model.eval()
        plain = [model(model.initial_carry(batch), batch, generator=seeded(seed))[1].logits for seed in (1, 2)]
        assert torch.equal(plain[0], plain[1])


def test_a_puzzle_row_that_is_dropped_still_decays() -> None:
    model, batch = small_model(puzzle_emb_dropout=0.999999).train(), small_batch()
    train_step(model, batch)
    assert model.table is not None
    assert not model.table.pending[-1][1].grad.any()


def test_a_frozen_trunk_collects_no_gradient() -> None:
    """The original never clears the trunk's gradients when only embeddings train."""
    model, batch = small_model().train().requires_grad_(False), small_batch()
    train_step(model, batch)
    assert all(parameter.grad is None for _, parameter in model.trunk_parameters())
    assert model.table is not None
    assert model.table.pending[-1][1].grad.abs().sum() > 0


def test_an_evaluation_may_have_steps_of_its_own_and_no_labels() -> None:
    model = small_model(halt_max_steps_eval=5).eval()
    batch = {name: values for name, values in small_batch().items() if name != "labels"}
    carry = model.initial_carry(batch)
    for _ in range(5):
        assert carry.halted.all() or not carry.halted.any()
        carry, _ = model(carry, batch)
    assert carry.halted.all()


def test_padding_rows_count_for_nothing_but_the_halting_loss() -> None:
    model, batch = small_model(halt_max_steps=1).eval(), small_batch()
    batch["labels"][3] = -100
    carry, outputs = model(model.initial_carry(batch), batch)
    _, metrics, _ = act_loss(outputs, carry)
    assert int(metrics["count"]) == 3
    assert set(logged_eval(metrics)) == {"accuracy", "exact_accuracy", "q_halt_accuracy", "steps", "lm_loss", "q_halt_loss"}


@pytest.mark.parametrize("mlp", [False, True])
def test_bfloat16_is_near_float32(mlp: bool) -> None:
    batch = small_batch()
    exact, rough = small_model(mlp_t=mlp), small_model(mlp_t=mlp, forward_dtype="bfloat16")
    found = [model.train()(model.initial_carry(batch), batch)[1] for model in (exact, rough)]
    assert found[1].logits.dtype is torch.bfloat16 and found[1].q_halt_logits.dtype is torch.float32
    torch.testing.assert_close(found[1].logits.float(), found[0].logits, rtol=0.1, atol=0.2)
    train_step(rough, batch)
    assert all(parameter.grad.dtype is torch.float32 for _, parameter in rough.trunk_parameters())


def test_a_copy_of_a_model_is_another_model() -> None:
    model, batch = small_model().eval(), small_batch()
    made = copy.deepcopy(model)
    with torch.no_grad():
        made.lm_head.weight.zero_()
        made.L_level.layers[0].mlp.down_proj.weight.zero_()
        assert model(model.initial_carry(batch), batch)[1].logits.any()
        assert not made(made.initial_carry(batch), batch)[1].logits.any()


def test_exploration_without_a_generator_is_an_error() -> None:
    model, batch = small_model(halt_exploration_prob=0.5).train(), small_batch()
    with pytest.raises(ValueError, match="generator"):
        model(model.initial_carry(batch), batch)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "recursive_reasoning.trm@Other"}, "arch.name"),
        ({"num_heads": 17}, "more than arch.hidden_size"),
        ({"hidden_size": 6}, "is odd"),
        ({"H_cycles": 0}, "arch.H_cycles is 0"),
        ({"halt_max_steps_eval": 0}, "halt_max_steps_eval"),
        ({"halt_exploration_prob": 1.5}, "from 0 to 1"),
        ({"pos_encodings": "absolute"}, "pos_encodings"),
        ({"forward_dtype": "int8"}, "forward_dtype"),
        ({"puzzle_emb_ndim": 0, "puzzle_emb_len": 16}, "arch.puzzle_emb_len=0"),
        ({"puzzle_emb_ndim": 40, "puzzle_emb_len": 2}, "does not fit"),
        ({"name": NAMES["trm_hier6"], "L_cycles": 7}, "6 latents"),
        ({"name": NAMES["hrm"]}, "H_layers is 0"),
        ({"name": NAMES["transformers_baseline"], "H_layers": 1, "mlp_t": True}, "attention only"),
    ],
)
def test_an_architecture_that_cannot_be_is_one_line(settings: dict[str, Any], words: str) -> None:
    arch = ArchConfig(**{"hidden_size": 16, "num_heads": 2, **settings})
    with pytest.raises(UsageError, match=words) as error:
        build_model(arch, SIZES, generator=seeded())
    assert "\n" not in str(error.value)


def test_the_length_of_puzzle_tokens_follows_the_row_where_it_is_not_given() -> None:
    assert small_model(puzzle_emb_ndim=40, puzzle_emb_len=0).tokens == 3
    assert small_model(puzzle_emb_ndim=0, puzzle_emb_len=0).table is None
    assert kind_model("hrm", puzzle_emb_len=16).tokens == 1
