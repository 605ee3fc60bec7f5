#!/usr/bin/env bash
# marc, predict.py and arclib.eval: Llama 3 8B, its own text, with the adapters of test_time_train.sh, or published ones in ADAPTERS.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
MODEL=${MODEL:-ekinakyurek/marc-8B-finetuned-llama3}
SOLUTIONS=${SOLUTIONS:-data/arc-agi_evaluation_solutions.json}
ADAPTERS=${ADAPTERS:-outputs/arc/marc}
sttrl --dataset ARC-AGI-1-evaluation --model "$MODEL" --adaptation_method stored --adapters "$ADAPTERS" --codec numpy \
  --max_prompt_tokens 8192 --view_form marc --search greedy --score_views 0 --selection marc \
  --output_dir outputs/arc --run_name marc_predicted "$@"
sttrl score outputs/arc/marc_predicted/submission.json "$SOLUTIONS" --detail
