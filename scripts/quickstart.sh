#!/usr/bin/env bash
# From a bare machine to a trained and sampled model: bash scripts/quickstart.sh [--config.section.key=value …]
# The run is kept in $WORKDIR (default runs/tiny); run again, it resumes or says that it is done.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
workdir="${WORKDIR:-runs/tiny}"
"$PYTHON" -m hlm_jax.train --config configs/tiny.py --workdir "$workdir" "$@"
echo
echo "python scripts/sample.py --workdir $workdir --prompt 黛玉听了，"
"$PYTHON" scripts/sample.py --workdir "$workdir" --prompt 黛玉听了， --max_new_tokens 200
