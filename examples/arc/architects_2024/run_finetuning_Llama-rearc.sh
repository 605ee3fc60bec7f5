#!/usr/bin/env bash
# ARChitects 2024, run_finetuning_Llama-rearc.py: cut, fine-tune, merge. re-arc is in data/re_arc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-chuanli11/Llama-3.2-3B-Instruct-uncensored}
SMALL=outputs/models/Llama-3.2-3B-ReArc-base
[[ -f $SMALL/config.json ]] || sttrl shrink "$MODEL" --codec cells --untie --out "$SMALL"
sttrl finetune --config configs/arc/architects_2024_llama_rearc_finetune.yaml --model "$SMALL" \
  --output_dir outputs/arc --run_name Llama-3.2-3B-ReArc-lora "$@"
sttrl merge outputs/arc/Llama-3.2-3B-ReArc-lora --out outputs/models/Llama-3.2-3B-ReArc-merged
