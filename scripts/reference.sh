#!/usr/bin/env bash
# The reference run on the card at hand, and what it shows: bash scripts/reference.sh [--config.section.key=value …]
# Checks the machine, trains configs/base.py and its held-out twin in $RUNS (default runs), evaluates both, measures what they
# recite, then times steps against PyTorch. What can be shown is collected in $RESULTS/<card> (default docs/results/<card>).
# Stopped by Ctrl-C or a time limit (timeout 3600 bash scripts/reference.sh), the same command goes on; a done stage is not repeated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
again="bash scripts/reference.sh"
if (($#)); then again+="$(printf ' %q' "$@")"; fi
gpu_driver="" needed="${NEEDED_MIB:-9500}" # the compiled step of base.py takes 8,955 MiB on a Quadro RTX 6000
problem() { echo "reference: error: $*" >&2 && exit 2; }
ask_card() { nvidia-smi ${CUDA_VISIBLE_DEVICES:+-i "$CUDA_VISIBLE_DEVICES"} --query-gpu="$1" --format=csv,noheader,nounits; }

# What would stop a run hours later is checked first. A check that cannot be made is named.
if [ "${JAX_PLATFORMS:-}" = cpu ]; then
  echo "driver and free memory of a card: not checked, JAX_PLATFORMS=cpu" >&2
elif ! command -v nvidia-smi >/dev/null; then
  echo "driver and free memory of a card: not checked, there is no nvidia-smi" >&2
else
  gpu_driver="$(ask_card driver_version | sed -n 1p)" || problem "nvidia-smi fails: $gpu_driver"
  case "${gpu_driver%%.*}" in
    "" | *[!0-9]*) echo "driver: not checked, nvidia-smi tells no version ($gpu_driver)" >&2 ;;
    *) [ "${gpu_driver%%.*}" -ge 525 ] || problem "the driver $gpu_driver is older than 525, which CUDA 12 needs: update it" ;;
  esac
  free="$(ask_card memory.free | sort -n | sed -n 1p)" || free="" # of several cards the fullest
  case "$free" in
    "" | *[!0-9]*) echo "free memory: not checked, nvidia-smi does not tell it ($free)" >&2 ;;
    *) [ "$free" -ge "$needed" ] || problem "$free MiB of the card are free, the step needs $needed: end what nvidia-smi" \
      "lists, or cut the batch with NEEDED_MIB=$((needed * 2 / 3)) and --config.train.grad_accum_steps=2" ;;
  esac
fi
source scripts/environment.sh
name_device='import jax; print(jax.devices()[0].device_kind)'
device="$(XLA_PYTHON_CLIENT_PREALLOCATE=false "$PYTHON" -c "$name_device")" || problem "JAX does not start, see above"
if [ -n "$gpu_driver" ] && [ "$device" = cpu ]; then
  problem "nvidia-smi finds a card and JAX does not (its warning is above): rm -r .venv and start again"
fi
card="$(tr '[:upper:]' '[:lower:]' <<<"$device" | sed -E 's/nvidia//; s/[^a-z0-9]+/-/g; s/^-|-$//g')"
results="${RESULTS:-docs/results}/$card"
mkdir -p "${RUNS:-runs}" "$results"
runs="$(cd "${RUNS:-runs}" && pwd)" # the folder of compiled programs below must be absolute
record="$runs/reference.jsonl"
[ -s "$record" ] || echo "$device: $again" >"$runs/reference.txt"
[ "$(cat "$runs/reference.txt")" = "$device: $again" ] ||
  problem "$runs holds the stages of another card or command ($(cat "$runs/reference.txt")): set RUNS to another folder"
touch "$record"

# Every stage uses the programs that a stage before it, or a stopped command, has compiled. JAX keeps only those of over a second.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$runs/.jax_cache}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0.2}"
# JAX takes three quarters of the card by itself. Nothing else runs here, and the evaluator's arrays come on top of the step's.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-.90}"

child="" stopped="" failed=""
# The training saves and ends; any other stage dies. They run in the background, else bash would run the trap after their end.
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :' TERM INT HUP

collect() {
  {
    printf '%s\n' "device $device" "driver ${gpu_driver:-none}" "commit $(git rev-parse HEAD 2>/dev/null || echo unknown)"
    "$PYTHON" -m pip list --format=freeze 2>/dev/null | grep -iE '^(jax|nvidia|flax|optax|numpy)' || :
  } >"$results/versions.txt"
  cp "$record" "$results/times.jsonl"
  awk -F'"' 'BEGIN { print "| stage | wall time, s | commands | ended |\n|---|---|---|---|" }
    !($4 in n) { order[++k] = $4 }
    { n[$4]++; s[$4] += substr($7, 3); how[$4] = $10 }
    END { for (i = 1; i <= k; i++) { x = order[i]; printf "| %s | %d | %d | %s |\n", x, s[x], n[x], how[x] } }' \
    "$record" >"$results/times.md"
}

is_done() { grep -q "\"$1\".*\"done\"" "$record"; }

stage() { # NAME FILE COMMAND…: runs it once, its output on the terminal and in FILE
  local name="$1" file="$2" pipe="$runs/.reference.pipe" began copy code=0 ended=done
  shift 2
  if is_done "$name"; then echo "$name: done" && return; fi
  if [ -z "$stopped" ]; then
    echo "$name …"
    mkdir -p "$(dirname "$file")"
    rm -f "$pipe" && mkfifo "$pipe"
    (trap '' TERM INT HUP && exec tee "$file.partial" <"$pipe") &
    copy=$! began="$(date +%s)"
    "$@" >"$pipe" &
    child=$!
    wait "$child" || code=$?
    # A signal ends wait, not the child.
    while kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done
    child=""
    wait "$copy" || :
    rm -f "$pipe"
    if tail -n 1 "$file.partial" | grep -q "^stopped at step" || { [ -n "$stopped" ] && [ "$code" -ne 0 ]; }; then
      stopped=1 ended=stopped
    elif [ "$code" -ne 0 ]; then
      ended=failed failed="${failed:+$failed, }$name (exit code $code)"
    else
      mv "$file.partial" "$file"
    fi
    printf '{"stage": "%s", "seconds": %d, "ended": "%s"}\n' "$name" $(($(date +%s) - began)) "$ended" >>"$record"
  fi
  if [ -n "$stopped" ] && ! is_done "$name"; then
    collect
    echo "stopped; to go on: $again"
    exit 0
  fi
}

for name in base base_heldout; do
  workdir="${RUNS:-runs}/$name" shown="$results/$name" splits=train more=""
  # Overfitting is plain when ten evaluations, 10,000 steps, have brought nothing better.
  if [ "$name" = base_heldout ]; then splits="val test" more=--config.train.patience=10; fi
  # shellcheck disable=SC2086 # no word where $more is empty
  stage "train $name" "$shown/output.txt" \
    "$PYTHON" -m hlm_jax.train --config "configs/$name.py" --workdir "$workdir" $more ${1+"$@"}
  is_done "train $name" || { echo "$name is not evaluated: its training failed" >&2 && continue; }
  cp "$workdir/loss.png" "$workdir/metrics.jsonl" "$shown/" || failed="${failed:+$failed, }copy of $name"
  for split in $splits; do
    stage "evaluate $name $split" "$shown/$split.json" "$PYTHON" scripts/evaluate.py --workdir "$workdir" --split "$split" --json
  done
  stage "recitation of $name" "$shown/recitation.json" "$PYTHON" scripts/novelty.py --workdir "$workdir" --json
  stage "samples of $name" "$shown/samples.txt" "$PYTHON" scripts/sample.py --workdir "$workdir" --num_samples 3 --max_new_tokens 300
done
# shellcheck disable=SC2086 # words
stage bench "$results/bench.json" bash scripts/bench/bench.sh all --config configs/base.py --json ${BENCH_WORDS:-} ${1+"$@"}

collect
if [ -n "$failed" ]; then
  echo "failed: $failed; the same command tries these again" >&2
  exit 1
fi
echo "results in $results"
