#!/usr/bin/env bash
# SNU ARC-AGI-DL-2025, base_finetune_final.py: the second stage, with masking; merge.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
OUT=${OUT:-outputs/snu}
MODEL=${MODEL:-$OUT/base-merged}
sttrl finetune --config configs/arc/snu_base_finetune_final.yaml --model "$MODEL" --output_dir "$OUT" --run_name final-lora "$@"
sttrl merge "$OUT/final-lora" --out "$OUT/final-merged"
