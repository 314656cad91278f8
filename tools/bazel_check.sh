#!/bin/bash
# Queries and builds every target of BUILD with Bazel, without a network.
#
#     sudo apt-get install bazel-bootstrap bazel-platforms bazel-rules-java
#     bash tools/bazel_check.sh                           query and build all
#     bash tools/bazel_check.sh test //:tests/build_test  any Bazel command
#
# For Bazel 4.2, as in Debian. It runs in a copy of the repository with an added
# WORKSPACE. The rules that Bazel would download are replaced by its native ones.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v bazel >/dev/null; then
  echo "bazel is not installed; see the head of $0 for the commands" >&2
  exit 1
fi
copy=$(mktemp -d)
tidy_up() {
  cd "$copy"/tree && bazel --output_user_root="$copy/cache" shutdown
  chmod -R u+w "$copy" && rm -rf "$copy"
}
trap tidy_up EXIT
tree=$copy/tree
mkdir "$tree"
git ls-files -z --cached --others --exclude-standard |
  xargs -0 tar -c --ignore-failed-read 2>/dev/null | tar -x -C "$tree"

stand_in() { # language, names of its rules
  local folder=$copy/rules_$1
  mkdir -p "$folder/$1"
  touch "$folder/WORKSPACE" "$folder/BUILD" "$folder/$1/BUILD"
  for name in "${@:2}"; do
    echo "$name = native.$name"
  done > "$folder/$1/defs.bzl"
}
stand_in python py_binary py_library py_test
stand_in cc cc_binary cc_import cc_library cc_proto_library cc_test \
  cc_toolchain cc_toolchain_suite fdo_prefetch_hints fdo_profile objc_import \
  objc_library

cat > "$tree/WORKSPACE" <<END
workspace(name = "tf_metassl")
local_repository(name = "rules_python", path = "$copy/rules_python")
local_repository(name = "rules_cc", path = "$copy/rules_cc")
local_repository(name = "rules_java", path = "/usr/share/bazel/rules/java")
local_repository(name = "platforms", path = "/usr/share/bazel/tools/platforms")
new_local_repository(
    name = "remote_coverage_tools",
    path = "$copy/rules_cc",
    build_file_content = """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
""",
)
END
# Bazel uses the first Python on PATH.
cat > "$tree/.bazelrc" <<'END'
build --action_env=PATH --symlink_prefix=/
test --test_env=PATH --test_env=HOME --test_output=errors
END

if [[ -x .venv/bin/python && -z ${VIRTUAL_ENV:-} ]]; then
  PATH=$PWD/.venv/bin:$PATH
fi
cd "$tree"
run_bazel() {
  bazel --output_user_root="$copy/cache" "$@"
}
if [[ $# -gt 0 ]]; then
  run_bazel "$@"
else
  echo "$(run_bazel query //... | wc -l) targets"
  run_bazel build //...
fi
