#!/bin/bash
# All checks of the project: form, types, BUILD, tests. Uses the environment
# that tools/setup.sh --dev makes; PYTHON=... names another one.
#
#     bash tools/check.sh                        everything, as in CI
#     bash tools/check.sh --fast                 without the slow tests
#     bash tools/check.sh tests/losses_test.py   arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
tests=(--numprocesses=auto --dist=worksteal)
if [[ ${1:-} == --fast ]]; then
  shift
  tests+=(-m "not slow")
fi

"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m mypy
"$python" tools/update_build.py --check
buildifier=.venv/node_modules/.bin/buildifier
if [[ -x $buildifier ]]; then
  "$buildifier" -mode=check -lint=warn BUILD MODULE.bazel
else
  echo "buildifier is not installed: the form of BUILD is not checked"
fi
"$python" -m pytest "${tests[@]}" "$@"
