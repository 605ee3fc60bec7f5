"""What an update minimises, and the weights that it changes, as a run's settings say."""

from __future__ import annotations

from sttrl.config import RunConfig
from sttrl.types import DeltaSpec, Forking, Objective


def objective_of(config: RunConfig, response_tokens: int) -> Objective:
    """What a policy-gradient update minimises, for responses of at most ``response_tokens``."""
    reinforcement = config.reinforcement
    return Objective(
        temperature=config.sampling.temp,
        policy_loss=reinforcement.policy_loss,
        loss_aggregation=reinforcement.loss_aggregation,
        clip_low=reinforcement.clip_low,
        clip_high=reinforcement.clip_high,
        kl_coef=config.update.kl_coef,
        max_logprob_gap=config.update.max_logprob_gap,
        ppo_epochs=reinforcement.ppo_epochs,
        mini_batches=config.steps_of_a_pass,
        horizon=response_tokens,
        tis_cap=reinforcement.tis_cap,
        forking=forking_of(config),
    )


def forking_of(config: RunConfig) -> Forking | None:
    """Which tokens carry the policy gradient; None: all."""
    chosen = config.forking
    if chosen.forking_tokens == "all":
        return None
    return Forking(
        rule=chosen.forking_tokens,
        share=chosen.forking_share,
        band=None if chosen.entropy_band == "none" else chosen.entropy_band,
        low_coef=chosen.entropy_low_coef,
        high_coef=chosen.entropy_high_coef,
    )


def weights_of(config: RunConfig, total_steps: int, seed: int) -> DeltaSpec:
    """A LoRA adapter or full weights, with the run's optimiser settings, for ``total_steps`` optimiser steps."""
    return DeltaSpec(
        kind="lora" if config.update.lora_rank else "full",
        lr={"main": config.learning_rate, "embedding": config.embedding_rate},
        total_steps=max(1, total_steps),
        **config.optimiser,
        critic_lr=config.reinforcement.critic_lr,
        seed=seed,
    )
