#!/usr/bin/env bash
# NVARC, cut_tokenizer.ipynb and run_sft.py: cut, fine-tune all weights, merge. re-arc is in data/re_arc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-Qwen/Qwen3-4B}
SMALL=outputs/models/Qwen3-4B-16
[[ -f $SMALL/config.json ]] || sttrl shrink "$MODEL" --codec dialogue --out "$SMALL"
sttrl finetune --config configs/arc/nvarc_finetune.yaml --model "$SMALL" --output_dir outputs/arc --run_name nvarc_sft "$@"
sttrl merge outputs/arc/nvarc_sft --out outputs/models/Qwen3-4B-16-nvarc
