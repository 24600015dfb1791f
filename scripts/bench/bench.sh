#!/usr/bin/env bash
# Sets up what the bench needs, then runs it: bash scripts/bench/bench.sh [bench.py's arguments]
# PyTorch gets an environment of its own, .venv-bench: beside JAX's CUDA libraries each would overwrite the other's cuDNN.
# $TORCH_PYTHON may name a Python that has torch and transformers instead.
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
if [ -z "${TORCH_PYTHON:-}" ]; then
  TORCH_PYTHON="$PWD/.venv-bench/bin/python"
  wanted="torch>=2.6 transformers>=4.51 numpy ${cuda:-cpu}"
  if ! grep -qxF "$wanted" .venv-bench/installed 2>/dev/null; then
    echo "setting up .venv-bench (once) …" >&2 # standard output may be JSON
    rm -rf .venv-bench                         # libraries of another build would stay in it
    python3 -m venv .venv-bench
    echo "*" >.venv-bench/.gitignore
    # PyPI has one build for Linux, of the newest CUDA. Drivers of CUDA 12 and machines without a GPU need another.
    case "$cuda" in
      cuda13) index="" ;;
      cuda12) index=https://download.pytorch.org/whl/cu126 ;;
      *) index=https://download.pytorch.org/whl/cpu ;;
    esac
    install=("$TORCH_PYTHON" -m pip install --quiet)
    "${install[@]}" ${index:+--retries 1 --index-url "$index"} "torch>=2.6" >&2 || {
      # On a CPU any build works. Another CUDA's would not find the card.
      [ -n "$index" ] && [ -z "$cuda" ] || exit 2
      "${install[@]}" "torch>=2.6" >&2
    }
    "${install[@]}" "transformers>=4.51" numpy >&2
    echo "$wanted" >.venv-bench/installed
  fi
fi
exec "$PYTHON" scripts/bench/bench.py --torch_python "$TORCH_PYTHON" "$@"
