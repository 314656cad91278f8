#!/bin/bash
# All checks of the project: form, BUILD, tests. Uses the environment that
# tools/setup.sh --dev makes; PYTHON=... names another one. Arguments go to
# pytest: bash tools/check.sh tests/losses_test.py
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" tools/update_build.py --check
buildifier=.venv/node_modules/.bin/buildifier
if [[ -x $buildifier ]]; then
  "$buildifier" -mode=check -lint=warn BUILD MODULE.bazel
else
  echo "buildifier is not installed: the form of BUILD is not checked"
fi
"$python" -m pytest --numprocesses=auto --dist=worksteal "$@"
