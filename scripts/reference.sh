#!/usr/bin/env bash
# Everything this project claims about a GPU, on the GPU at hand: bash scripts/reference.sh [--config.section.key=value …]
# Runs the bench, the reference run (configs/base.py) and its held-out twin in $RUNS (default runs), and collects what they show in
# $RESULTS (default docs/results). Stopped by Ctrl-C or a time limit (timeout 3600 bash scripts/reference.sh), the same command goes on.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
results="${RESULTS:-docs/results}"
mkdir -p "$results"
[ -s "$results/bench.json" ] || EXTRAS=bench
source scripts/environment.sh
trap : TERM INT # both reach the training too, which saves and leaves; then this script sees that it did

if ! [ -s "$results/bench.json" ]; then
  "$PYTHON" scripts/bench/bench.py all --config configs/base.py --json >"$results/bench.partial"
  mv "$results/bench.partial" "$results/bench.json"
fi

for name in base base_heldout; do
  workdir="${RUNS:-runs}/$name" shown="$results/$name"
  mkdir -p "$workdir" "$shown"
  began="$(date +%s)"
  "$PYTHON" -m hlm_jax.train --config "configs/$name.py" --workdir "$workdir" "$@" | (trap "" TERM INT && exec tee "$workdir/output.txt")
  if ! grep -q "^this run is done" "$workdir/output.txt"; then echo "$(($(date +%s) - began))" >>"$workdir/seconds.txt"; fi
  if grep -q "^stopped at step" "$workdir/output.txt"; then exit 0; fi
  "$PYTHON" scripts/sample.py --workdir "$workdir" --num_samples 3 --max_new_tokens 300 >"$shown/samples.txt"
  cp "$workdir/loss.png" "$workdir/metrics.jsonl" "$workdir/output.txt" "$shown/"
  awk '{ all += $1 } END { printf "%d s of wall time, set-up and reports included; commands: %d\n", all, NR }' "$workdir/seconds.txt" >"$shown/time.txt"
  "$PYTHON" -c 'import jax; print(*(d.device_kind for d in jax.devices()), sep="\n")' >>"$shown/time.txt"
done
echo "results in $results"
