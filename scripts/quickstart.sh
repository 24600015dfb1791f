#!/usr/bin/env bash
# From a bare machine to a trained and sampled model:
#   bash scripts/quickstart.sh [--workdir DIR] [--config.section.key=value …]
# The run is kept in DIR, else in $WORKDIR, else in runs/tiny of the project. Run again, it resumes
# or tells that it is done.
from="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
workdir="${WORKDIR:-runs/tiny}"
words=()
while (($#)); do
  case "$1" in
    --workdir) workdir="${2:?--workdir needs a folder}" given=1 && shift ;;
    --workdir=*) workdir="${1#--workdir=}" given=1 ;;
    *) words+=("$1") ;;
  esac
  shift
done
# environment.sh has changed the folder: a relative DIR is meant from where the command was given.
if [ -n "${given:-}" ]; then
  case "$workdir" in [/~]*) ;; *) workdir="$from/$workdir" ;; esac
fi
trap 'stopped=1' INT TERM HUP # the training gets the signal too, saves and ends
"$PYTHON" -m hlm_jax.train --config configs/tiny.py --workdir "$workdir" \
  ${words[@]+"${words[@]}"} # an empty list is unset in bash 3
if [ -n "${stopped:-}" ]; then exit 0; fi
trap - INT TERM HUP
echo
echo ".venv/bin/python scripts/sample.py --workdir $workdir --prompt 黛玉听了， --max_new_tokens 200"
"$PYTHON" scripts/sample.py --workdir "$workdir" --prompt 黛玉听了， --max_new_tokens 200
