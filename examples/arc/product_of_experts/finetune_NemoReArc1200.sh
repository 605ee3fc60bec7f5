#!/usr/bin/env bash
# Product of Experts, finetune_NemoReArc1200.py: cut, fine-tune, merge. re-arc is in data/re_arc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-nvidia/Mistral-NeMo-Minitron-8B-Base}
SMALL=outputs/models/NeMo-Minitron-8B-ReArc1200-base
[[ -f $SMALL/config.json ]] || sttrl shrink "$MODEL" --codec cells --untie --out "$SMALL"
sttrl finetune --config configs/arc/product_of_experts_finetune.yaml --model "$SMALL" \
  --output_dir outputs/arc --run_name NeMo-Minitron-8B-ReArc1200-lora "$@"
sttrl merge outputs/arc/NeMo-Minitron-8B-ReArc1200-lora --out outputs/models/NeMo-Minitron-8B-ReArc1200-merged
