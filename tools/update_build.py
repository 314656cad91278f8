"""Writes BUILD from what the Python files import.

    python tools/update_build.py            writes BUILD
    python tools/update_build.py --check    fails if BUILD is out of date

Each module of `tf_metassl` is a `py_library`, each `tests/*_test.py` a
`py_test` and each file that can be run as a command a `py_binary`; modules of
`tests` and `tools` are a `py_library` if something imports them. A target
depends on the own modules that its file imports, inside functions too, or names
in a string such as "tf_metassl.ops.losses" or "tf_metassl.ops.losses:entropy"
(`python -m` in a test). In `__init__.py` a string such as "meta_semi:MetaSemi"
names a module of that package (the registry of the algorithms). Importing `a.b`
from outside `a` runs `a/__init__.py` as well, so that is a dependency too;
inside `a` it has run already. A library or test gets as `data` the files of
`DATA_FOLDERS` whose names it has as strings, or all of a folder that it has as
"name/".
"""

import argparse
import ast
import dataclasses
import difflib
import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "tf_metassl"
TESTS = "tests"
CODE_FOLDERS = (PACKAGE, TESTS, "tools")
DATA_FOLDERS = ("flags", f"{TESTS}/golden", "tf_metassl/run")
PYTEST_MAIN = "tools/pytest_main.py"
PYTEST_CONFIG = "pyproject.toml"
HEADER = f'''\
"""Written by tools/update_build.py from the imports; do not edit.

Library and test targets are called after their files: bazel build
//:{PACKAGE}/losses, bazel test //:tests/build_test. Commands have the name that
they are called by: bazel run //:train -- --algo=meta_semi.
"""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])
'''


@dataclasses.dataclass(frozen=True)
class Module:
    """A Python file of this repository.

    Attributes:
        path: the file, relative to the root of the repository.
        name: its dotted name, the one of the folder for `__init__.py`.
    """

    path: str
    name: str

    @property
    def target(self):
        """The name of its `py_library` or `py_test`."""
        return self.name.replace(".", "/")

    @property
    def is_test(self):
        """Whether pytest collects it."""
        return self.path.startswith(f"{TESTS}/") and self.path.endswith(
            "_test.py"
        )

    @functools.cached_property
    def tree(self):
        """Its syntax tree."""
        return ast.parse((ROOT / self.path).read_text("utf-8"), self.path)

    @functools.cached_property
    def strings(self):
        """All its strings, documentation excepted."""
        texts = {
            node.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        return {text for text in texts if "\n" not in text}

    @property
    def is_command(self):
        """Whether it has an `if __name__ == "__main__"`."""
        return any(
            isinstance(node, ast.If)
            and ast.unparse(node.test) == "__name__ == '__main__'"
            for node in self.tree.body
        )

    @property
    def imported_names(self):
        """The dotted names that it imports or has as a string."""
        names = set()
        if self.path.endswith("/__init__.py"):
            # A registry of the modules of its package.
            matches = map(re.compile(r"(\w+):\w+").fullmatch, self.strings)
            names = {f"{self.name}.{match[1]}" for match in matches if match}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    raise SystemExit(f"{self.path}: a relative import")
                names.update(f"{base}.{alias.name}" for alias in node.names)
        dotted_name = re.compile(r"(\w+(?:\.\w+)+)(?::\w+)?")
        matches = map(dotted_name.fullmatch, self.strings)
        return names | {match[1] for match in matches if match}


def modules():
    """All Python files, dotted name -> `Module`."""
    found = {}
    for folder in CODE_FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            name = path.removesuffix(".py").removesuffix("/__init__")
            name = name.replace("/", ".")
            found[name] = Module(path, name)
    return found


def direct_imports(module, known, started=False):
    """The own modules that `module` itself imports.

    Args:
        module: a `Module`.
        known: what `modules()` returned.
        started: whether it is what Python starts, and so outside of every
            package.

    Returns:
        Set of dotted names. Those of the packages around an imported module
        are among them, except for the packages that `module` is in.
    """
    inside = "" if started else f"{module.name}."
    imports = set()
    for name in module.imported_names:
        # `from a.b import c`: c is a module or something inside a.b.
        if name not in known:
            name = name.rpartition(".")[0]
        if name not in known:
            continue
        imports.add(name)
        while name := name.rpartition(".")[0]:
            if not inside.startswith(f"{name}."):
                imports.add(name)
    return imports & known.keys() - {module.name}


def data_files(module):
    """Paths of the files in `DATA_FOLDERS` that `module` names."""
    found = []
    for folder in map(pathlib.Path, DATA_FOLDERS):
        files = [
            file.relative_to(ROOT)
            for file in (ROOT / folder).rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
        ]
        named = [
            file
            for file in files
            if module.strings & {file.name, file.as_posix()}
        ]
        # "flags" alone may be the key of a dict.
        if f"{folder.name}/" in module.strings:
            named = files
        found += named
    return {file.as_posix() for file in found}


def check_order(imports):
    """Fails if modules import each other in a circle, which Bazel refuses.

    Args:
        imports: dotted name -> the dotted names that it imports.
    """
    done = set()

    def visit(name, path):
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise SystemExit(f"Modules depend on each other: {circle}")
        if name not in done:
            for other in sorted(imports[name]):
                visit(other, [*path, name])
            done.add(name)

    for name in imports:
        visit(name, [])


def rule(kind, **attributes):
    """A target in buildifier's format; attributes that are empty are left out.

    Args:
        kind: `py_library`, `py_test` or `py_binary`.
        **attributes: text, a truth value or an iterable of texts, each.
    """
    lines = [f"{kind}("]
    for name, value in attributes.items():
        if not value:
            continue
        if isinstance(value, str):
            lines.append(f'    {name} = "{value}",')
        elif value is True:
            lines.append(f"    {name} = True,")
        elif len(value) == 1:
            lines.append(f'    {name} = ["{next(iter(value))}"],')
        else:
            items = (f'        "{item}",' for item in sorted(value))
            lines += [f"    {name} = [", *items, "    ],"]
    return "\n".join([*lines, ")", ""])


def build_text():
    """What BUILD must say."""
    known = modules()
    imports = {name: direct_imports(known[name], known) for name in known}
    check_order(imports)
    imported = set().union(*imports.values())

    def labels(names):
        return {f":{known[name].target}" for name in names}

    rules = []
    for name, module in sorted(known.items()):
        in_tests = name.split(".")[0] == TESTS
        if module.is_test:
            shared = {TESTS, f"{TESTS}.conftest"} & known.keys()
            rules.append(
                rule(
                    "py_test",
                    name=module.target,
                    timeout="long",
                    srcs={module.path, PYTEST_MAIN},
                    args={module.path},
                    data={PYTEST_CONFIG} | data_files(module),
                    main=PYTEST_MAIN,
                    deps=labels(
                        direct_imports(module, known, started=True) | shared
                    ),
                )
            )
        elif name.split(".")[0] == PACKAGE or in_tests or name in imported:
            rules.append(
                rule(
                    "py_library",
                    name=module.target,
                    testonly=in_tests,
                    srcs={module.path},
                    data=data_files(module),
                    deps=labels(imports[name]),
                )
            )
        if module.is_command and module.path != PYTEST_MAIN:
            rules.append(
                rule(
                    "py_binary",
                    name=name.split(".")[-1],
                    srcs={module.path},
                    main=module.path,
                    deps=labels(direct_imports(module, known, started=True)),
                )
            )
    return "\n".join([HEADER, *rules])


def main():
    """Writes BUILD, or compares it with what it must say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check_only = parser.parse_args().check
    file = ROOT / "BUILD"
    old = file.read_text("utf-8") if file.exists() else ""
    new = build_text()
    if check_only and old != new:
        sys.stdout.writelines(
            difflib.unified_diff(
                old.splitlines(keepends=True),
                new.splitlines(keepends=True),
                "BUILD",
                "BUILD as the imports are",
            )
        )
        sys.exit("BUILD is out of date: python tools/update_build.py writes it")
    if not check_only:
        file.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
