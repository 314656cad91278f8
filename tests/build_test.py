"""BUILD agrees with the imports, and the imports with the layers."""

import ast
import collections
import re
import subprocess
import sys

import pytest

from tools import update_build

KNOWN = update_build.modules()
MODULES = {
    name: module
    for name, module in KNOWN.items()
    if name.split(".")[0] == "tf_metassl"
}
# The rooms, from the ground up -> the rooms that they may stand on.
GROUND = {"contract", "hyperparameters", "errors", "files"}
MAY_IMPORT = {
    "contract": set(),
    "errors": set(),
    "files": {"errors"},
    "hyperparameters": set(),
    "ops": GROUND,
    "meta": {*GROUND, "ops"},
    "models": {*GROUND, "ops", "meta"},
    "data": {*GROUND, "ops"},
    # A method with a further head asks its network for its features.
    "algorithms": {*GROUND, "ops", "meta", "models"},
    "options": {*GROUND, "models", "data"},
    "config": {*GROUND, "models", "data", "algorithms", "options"},
    "run": {
        *(*GROUND, "ops", "meta", "models", "data", "algorithms"),
        *("options", "config"),
    },
}
COMMANDS = {name for name, module in MODULES.items() if module.is_command}


def layer(name):
    """`tf_metassl.meta.lookahead` -> `meta`; `tf_metassl` -> nothing."""
    return (name.split(".") + [""])[1]


def imported_layers(name):
    """The layers other than its own that a module imports."""
    imports = update_build.direct_imports(MODULES[name], MODULES)
    return {layer(other) for other in imports} - {layer(name)}


def targets(text):
    """The targets of a BUILD file: name -> rule and attributes."""
    found = {}
    for statement in ast.parse(text).body:
        attributes = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in getattr(statement.value, "keywords", ())
        }
        if "name" in attributes:
            assert attributes["name"] not in found
            attributes["rule"] = statement.value.func.id
            found[attributes["name"]] = attributes
    return found


def test_build_is_what_the_imports_say():
    checked = subprocess.run(
        [sys.executable, update_build.__file__, "--check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


def test_every_module_test_and_command_has_a_target():
    build = targets(update_build.build_text())
    rules = collections.defaultdict(list)
    for target in build.values():
        for path in target["srcs"]:
            assert (update_build.ROOT / path).is_file()
            rules[path].append(target["rule"])
        for label in target.get("deps", ()):
            assert label[0] == ":" and label[1:] in build
    for module in KNOWN.values():
        if module.is_test:
            assert rules[module.path] == ["py_test"]
        if module.name in MODULES:
            binary = ["py_binary"] if module.is_command else []
            assert rules[module.path] == ["py_library", *binary]


FILES = {
    "tf_metassl/__init__.py": "",
    "tf_metassl/a.py": "def f():\n    from tf_metassl.p import q, r\n",
    "tf_metassl/b.py": 'X = "tf_metassl.a:f"\n"""Not tf_metassl.p."""\n',
    "tf_metassl/p/__init__.py": "import os.path\nX = ['s:f', 'other:f']\n",
    "tf_metassl/p/q.py": "from tf_metassl import c\nimport tf_metassl.p.s\n",
    "tf_metassl/p/s.py": "",
    "tf_metassl/c.py": "if __name__ == '__main__':\n    import tf_metassl.b\n",
    "tests/h_test.py": "from tf_metassl import a\nopen('x.npz')\n",
    "tests/conftest.py": "",
    "tests/golden/x.npz": "",
    "tests/golden/y.npz": "",
    "tools/t.py": "",
}


@pytest.fixture
def small_tree(tmp_path, monkeypatch):
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(update_build, "ROOT", tmp_path)
    return tmp_path


def test_the_rules_of_the_generator(small_tree):
    (small_tree / "tf_metassl/b.py").write_text("")
    build = targets(update_build.build_text())
    deps = {name: target.get("deps", []) for name, target in build.items()}
    assert deps == {
        "tf_metassl": [],
        "tf_metassl/a": [":tf_metassl/p", ":tf_metassl/p/q"],
        "tf_metassl/b": [],
        "tf_metassl/c": [":tf_metassl/b"],
        "c": [":tf_metassl", ":tf_metassl/b"],
        "tf_metassl/p": [":tf_metassl/p/s"],
        "tf_metassl/p/q": [":tf_metassl/c", ":tf_metassl/p/s"],
        "tf_metassl/p/s": [],
        "tests/conftest": [],
        "tests/h_test": [":tests/conftest", ":tf_metassl", ":tf_metassl/a"],
    }
    assert build["tests/h_test"]["data"] == [
        "pyproject.toml",
        "tests/golden/x.npz",
    ]


def test_a_string_counts_and_a_circle_is_refused(small_tree):
    with pytest.raises(
        SystemExit,
        match=r"tf_metassl\.a -> tf_metassl\.p\.q -> tf_metassl\.c -> "
        r"tf_metassl\.b -> tf_metassl\.a$",
    ):
        update_build.build_text()


@pytest.mark.parametrize(
    "name", sorted(set(MODULES) - COMMANDS - {"tf_metassl"})
)
def test_a_module_imports_the_rooms_below_its_own_alone(name):
    # The version, which `tf_metassl` itself holds, belongs to every room.
    assert imported_layers(name) - {""} <= MAY_IMPORT[layer(name)]


def test_commands_are_in_the_root_and_the_root_is_small():
    in_root = [name for name in MODULES if name.count(".") == 1]
    folders = {layer(name) for name in MODULES if name.count(".") > 1}
    modules = {layer(name) for name in in_root} - folders
    assert len(modules) <= 14
    assert {layer(name) for name in COMMANDS} <= modules


@pytest.mark.parametrize("name", MODULES)
def test_only_the_command_line_reads_flags(name):
    module = MODULES[name]
    code = ast.unparse(module.tree)
    # A command may have flags of its own; --verbosity is a flag of absl.
    own = set(re.findall(r"flags\.DEFINE_\w+\('(\w+)'", code))
    allowed = {"verbosity"} | (own if module.is_command else set())
    reads = re.findall(r"\bFLAGS\b(?:\.|\[')?(\w*)", code)
    assert name == "tf_metassl.run.command_line" or set(reads) <= allowed
