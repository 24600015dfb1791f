#!/usr/bin/env bash
# From a bare machine to a trained and sampled model:
#   bash scripts/quickstart.sh [--workdir DIR] [--config.section.key=value …]
# The run is kept in DIR, else in $WORKDIR, else in runs/tiny. Run again, it resumes or tells that
# it is done.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
workdir="${WORKDIR:-runs/tiny}"
words=()
while (($#)); do
  case "$1" in
    --workdir) workdir="${2:?--workdir needs a folder}" && shift ;;
    --workdir=*) workdir="${1#--workdir=}" ;;
    *) words+=("$1") ;;
  esac
  shift
done
"$PYTHON" -m hlm_jax.train --config configs/tiny.py --workdir "$workdir" \
  ${words[@]+"${words[@]}"} # an empty list is unset in bash 3
echo
echo "python scripts/sample.py --workdir $workdir --prompt 黛玉听了，"
"$PYTHON" scripts/sample.py --workdir "$workdir" --prompt 黛玉听了， --max_new_tokens 200
