#!/usr/bin/env bash
# SNU ARC-AGI-DL-2025, train_grpo.py: GRPO (derived), and both artefacts under their published names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
OUT=${OUT:-outputs/snu}
MODEL=${MODEL:-$OUT/final-merged}
sttrl --config configs/arc/snu_train_grpo.yaml --model "$MODEL" --output_dir "$OUT" --run_name train_grpo "$@"
ln -sfn train_grpo/adapters/all "$OUT/Llama-3.2-1B-Final-RL-lora"
sttrl merge "$OUT/train_grpo" --out "$OUT/Llama-3.2-1B-Final-RL-merged"
