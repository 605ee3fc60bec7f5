#!/usr/bin/env bash
# SNU ARC-AGI-DL-2025, base_finetune.py: cut, fine-tune, merge.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-meta-llama/Llama-3.2-1B-Instruct}
OUT=${OUT:-outputs/snu}
[[ -f $OUT/Llama-3.2-1B-small/config.json ]] || sttrl shrink "$MODEL" --codec cells --untie --out "$OUT/Llama-3.2-1B-small"
sttrl finetune --config configs/arc/snu_base_finetune.yaml --model "$OUT/Llama-3.2-1B-small" --output_dir "$OUT" --run_name base-lora "$@"
sttrl merge "$OUT/base-lora" --out "$OUT/base-merged"
