#!/usr/bin/env bash
# MEMO on GSM8K-TTT, question by question.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[[ -n ${PYTHON:-} || ! -x .venv/bin/python ]] || PYTHON=.venv/bin/python
exec "${PYTHON:-python}" main.py --dataset GSM8K-TTT --model Qwen/Qwen2.5-Math-1.5B --adaptation_method memo "$@"
