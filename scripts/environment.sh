# Makes .venv with the package and the extras named in $EXTRAS, once. Trains nothing: bash scripts/environment.sh
# The other scripts source it: it sets $PYTHON and $cuda.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "hlm_jax needs Python 3.11 or newer as python3; this is $(python3 --version 2>&1 || echo none)" >&2
  exit 2
}
# The CUDA that the driver can run: 13 from 580 on, 12 from 525 on. CUDA 13 has no code for cards before Turing (7.5).
cuda=""
smi() { nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null; }
if driver="$(smi driver_version | sed -n 1p)"; then
  capability="$(smi compute_cap | sed -n 1p)" || capability=0 # an old nvidia-smi cannot tell it
  capability="${capability/./}"
  case "$capability" in "" | *[!0-9]*) capability=0 ;; esac
  case "${driver%%.*}" in
    "" | *[!0-9]*) echo "note: nvidia-smi names no driver version ($driver); the GPU is not used" >&2 ;;
    *) if [ "${driver%%.*}" -ge 580 ] && [ "$capability" -ge 75 ]; then
      cuda=cuda13
    elif [ "${driver%%.*}" -ge 525 ]; then
      cuda=cuda12
    else
      echo "note: the NVIDIA driver $driver is older than 525, which CUDA 12 needs; the GPU is not used" >&2
    fi ;;
  esac
fi
# CUDA 12's libraries run under a newer driver too, and beside CUDA 13's each would overwrite the other's cuDNN.
if [ "$cuda" = cuda13 ] && grep -qs cuda12 .venv/installed; then cuda=cuda12; fi
if [ "$cuda" = cuda12 ] && grep -qs cuda13 .venv/installed; then
  echo "the NVIDIA driver $driver cannot run the CUDA 13 in .venv: rm -r .venv and start again" >&2
  exit 2
fi
extras="${EXTRAS:-}"
if [ -n "$cuda" ]; then extras="${extras:+$extras,}$cuda"; fi
wanted="$(cat setup.py requirements.lock | cksum) $extras"
PYTHON="$PWD/.venv/bin/python"
# The stamp holds every set of extras installed so far: asking for fewer installs nothing.
if ! [ -x "$PYTHON" ] || ! grep -qxF "$wanted" .venv/installed 2>/dev/null; then
  echo "setting up .venv (once) …" >&2 # standard output may be JSON
  [ -x "$PYTHON" ] || python3 -m venv .venv
  target=".${extras:+[$extras]}"
  "$PYTHON" -m pip install --quiet --constraint requirements.lock --editable "$target" >&2 || {
    echo "the locked versions do not install here; trying the newest ones that setup.py allows" >&2
    "$PYTHON" -m pip install --quiet --editable "$target" >&2
  }
  echo "$wanted" >>.venv/installed
fi
if [ "${BASH_SOURCE[0]}" = "$0" ] && [ -z "${EXTRAS:-}" ]; then
  echo "set up. Look at a book: .venv/bin/python scripts/book.py BOOK"
  echo "Train on it, or on the default one: bash scripts/quickstart.sh [BOOK]"
fi
