#!/usr/bin/env bash
# Sets up what is missing, then runs the tests: bash scripts/test.sh [pytest arguments]
# Tests that start processes of their own are left out; -m 'slow or not slow' runs them too.
EXTRAS=test source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec "$PYTHON" -m pytest "$@"
