#!/usr/bin/env bash
# Product of Experts, evaluate_LlamaReArc_on_Sudoku3m.py: tasks from CSV, fine-tune, merge, evaluate. DATA has train.csv and test.csv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-outputs/models/Llama-3.2-3B-ReArc-merged}
[[ -f data/sudoku-tasks/sudoku_challenges.json ]] || sttrl trm build sudoku-tasks --source_repo "${DATA:-sapientinc/sudoku-extreme}"
sttrl finetune --config configs/arc/product_of_experts_sudoku_finetune.yaml --model "$MODEL" \
  --output_dir outputs/arc --run_name LlamaReArc-Sudoku-lora "$@"
sttrl merge outputs/arc/LlamaReArc-Sudoku-lora --out outputs/models/LlamaReArc-Sudoku-merged
sttrl --config configs/arc/product_of_experts_sudoku.yaml --model outputs/models/LlamaReArc-Sudoku-merged \
  --output_dir outputs/arc --run_name output_evaluate_LlamaReArc_on_Sudoku3m "$@"
