#!/usr/bin/env bash
# ARChitects 2024, run_finetuning_Nemo-full.py: cut, fine-tune, merge. re-arc is in data/re_arc.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-nvidia/Mistral-NeMo-Minitron-8B-Base}
SMALL=outputs/models/NeMo-Minitron-8B-Full-base
[[ -f $SMALL/config.json ]] || sttrl shrink "$MODEL" --codec cells --untie --out "$SMALL"
sttrl finetune --config configs/arc/architects_2024_nemo_full_finetune.yaml --model "$SMALL" \
  --output_dir outputs/arc --run_name NeMo-Minitron-8B-Full-lora "$@"
sttrl merge outputs/arc/NeMo-Minitron-8B-Full-lora --out outputs/models/NeMo-Minitron-8B-Full-merged
