#!/bin/bash
# All checks of the project: form, types, BUILD, tests. Uses the environment
# that tools/setup.sh --dev makes; PYTHON=... names another one.
#
#     bash tools/check.sh                        as in CI
#     bash tools/check.sh --fast                 without the slow tests
#     bash tools/check.sh --all                  the exhaustive tests as well:
#                                                every method, network and page
#                                                in the places where CI takes
#                                                some; about an hour
#     bash tools/check.sh tests/losses_test.py   arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
tests=(--numprocesses=auto --dist=worksteal)
case ${1:-} in
  --fast) shift; tests+=(-m "not slow and not exhaustive") ;;
  --all) shift ;;
  *) tests+=(-m "not exhaustive") ;;
esac

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
