#!/usr/bin/env bash
# Sets up what is missing, then runs the whole test suite: bash scripts/test.sh [pytest arguments]
EXTRAS=test source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$PYTHON" -m pytest "$@"
