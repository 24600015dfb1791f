# Sourced by the other scripts: makes .venv with the package and the extras named in $EXTRAS, once. Sets $PYTHON.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "hlm_jax needs Python 3.11 or newer as python3; this is $(python3 --version 2>&1 || echo none)" >&2
  exit 2
}
extras="${EXTRAS:-}"
if nvidia-smi >/dev/null 2>&1; then extras="${extras:+$extras,}cuda12"; fi
wanted="$(cat setup.py requirements.lock | cksum) $extras"
PYTHON="$PWD/.venv/bin/python"
# The stamp holds every set of extras installed so far: asking for fewer installs nothing.
if ! [ -x "$PYTHON" ] || ! grep -qxF "$wanted" .venv/installed 2>/dev/null; then
  echo "setting up .venv (once) …"
  [ -x "$PYTHON" ] || python3 -m venv .venv
  target=".${extras:+[$extras]}"
  "$PYTHON" -m pip install --quiet --constraint requirements.lock --editable "$target" || {
    echo "the locked versions do not install here; trying the newest ones that setup.py allows" >&2
    "$PYTHON" -m pip install --quiet --editable "$target"
  }
  echo "$wanted" >>.venv/installed
fi
