#!/usr/bin/env bash
# ARChitects 2024 on Kaggle: the halves of the tasks at the same time, each on a GPU of its own; one submission of what both have answered.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
sttrl() { "${PYTHON:-python}" main.py "$@"; }
RUN=(--config configs/arc/architects_2024_kaggle.yaml --model "${MODEL:-outputs/models/NeMo-Minitron-8B-Full-merged}")
half() { CUDA_VISIBLE_DEVICES=$(($1 - 1)) sttrl "${RUN[@]}" --part "$1" 2 --output_dir outputs/arc --run_name "kaggle_$1" "${@:2}"; }
half 1 "$@" &
first=$! failed=0
half 2 "$@" || failed=$?
wait "$first" || failed=$?
sttrl pool outputs/arc/kaggle_1 outputs/arc/kaggle_2 --selection full_probmul_3 --out outputs/arc/kaggle_submission
exit "$failed"
