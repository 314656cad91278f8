"""What README.md and docs/ say is so: commands, snippets, links, numbers.

A block that cannot be run is marked in its page by a comment with the reason:
`<!-- not run: needs several machines -->`.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from tests.helpers import mostly_exhaustive
from tf_metassl import audit, config, models
from tf_metassl.algorithms import ALGORITHMS, ALIASES, hyperparameters_class
from tf_metassl.models import costs
from tf_metassl.run import (
    build,
    command_line,
    experiment,
    help_text,
    run_directory,
)
from tools import make_docs

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = ["README.md"] + sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("docs", "examples")
    for path in (ROOT / folder).rglob("*.md")
)
# Why a block is not run. No others, so that it stays the exception.
REASONS = {
    "installs packages",
    "runs all checks",
    "needs a prepared dataset",
    "needs several machines",
    "needs a server",
    "needs keras-hub",
    "runs until it is stopped",
    "trains for minutes",
    "trains for hours",
    "writes files of this repository",
    "tested by tests/readme_test.py",
}
# Training commands are run, but for two steps on few images.
SHORT = {
    "num_steps": 2,
    "evaluate_every": 2,
    "batch_size": 8,
    "num_validation": 10,
    "round_steps": 2,
    "student_steps": 2,
    "finetune_steps": 2,
}
# What `tf-metassl` runs.
CONSOLE = "from tf_metassl.run.command_line import main; main()"
# Programs of others that pages name.
OTHERS = {
    "head",
    "ln",
    "mkdocs",
    "source",
    "tensorboard",
    "tensorflow_model_server",
}


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block: its page, language, text, and why it is not run."""

    page: str
    language: str
    text: str
    reason: str | None


def blocks(page):
    text = (ROOT / page).read_text("utf-8")
    pattern = r"(?:<!-- not run: (.*?) -->\n)?^```(\w*)\n(.*?)^```$"
    return [
        Block(page, language, code, reason or None)
        for reason, language, code in re.findall(pattern, text, re.M | re.S)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def commands(block):
    """The commands of a block of shell, a list of words each."""
    text = block.text.replace("\\\n", " ")
    lines = [c for line in text.splitlines() for c in line.split("&&")]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def of_package(words):
    """`(command, arguments)` of this package, or None.

    The environment's Python and a prefix such as `srun` are left out.
    """
    words = words[words[0] == "srun" :]
    if words[0] == "tf-metassl":
        return words[1], words[2:]
    if words[1:2] == ["-m"] and words[2].startswith("tf_metassl."):
        return words[2].removeprefix("tf_metassl."), words[3:]
    return None


def flag_names(arguments):
    """`--name=value ...` -> names; anything else fails."""
    for argument in arguments:
        assert re.match(r"--\w+(=|$)", argument), argument
    return [re.match(r"--(\w+)", argument)[1] for argument in arguments]


SETTINGS = {row.name for _, rows in help_text.sections() for row in rows}


def defined_in(path):
    """The flags that a script defines, a set."""
    text = path.read_text("utf-8")
    return set(
        re.findall(r"(?:DEFINE_\w+\(\s*|add_argument\(\s*)\"-*(\w+)\"", text)
    )


# Flags of commands on a finished run, which are defined in one place.
RUN_FLAGS = defined_in(ROOT / "tf_metassl" / "run" / "command_line.py")


def test_blocks_are_marked_with_known_reasons_only():
    assert len(BLOCKS) > 40
    for block in BLOCKS:
        assert block.language in ("sh", "python", "text"), block
        assert block.reason is None or block.reason in REASONS, block
    # No comment that is nowhere before a block.
    text = "".join((ROOT / page).read_text("utf-8") for page in PAGES)
    marked = [block for block in BLOCKS if block.reason]
    assert text.count("<!-- not run: ") == len(marked)
    assert {block.reason for block in marked} == REASONS


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "sh"],
    ids=lambda block: f"{block.page}: {block.text.splitlines()[0][:40]}",
)
def test_commands_flags_and_files_exist(block):
    for words in commands(block):
        check_command(words)


def check_command(words):
    while re.fullmatch(r"[A-Z]+=\S+", words[0]):
        words = words[1:]
    if found := of_package(words):
        command, arguments = found
        assert command in {*command_line.COMMANDS, "presets"}
        if command == "presets":
            assert not arguments
        elif command == "train":
            check_train(arguments)
        else:
            file = ROOT / "tf_metassl" / f"{command}.py"
            known = RUN_FLAGS | defined_in(file) | {"help"}
            if command == "audit":
                known |= set(audit.SETTINGS)
            if command == "tune":
                known |= {field.name for field in config.common_fields()}
                known |= set(config.hyperparameters_by_name())
            assert known.issuperset(flag_names(arguments)), words
        return
    program, *arguments = words
    if program == "bash" or re.search(r"(^|/)python[\d.]*$", program):
        if arguments[:2] == ["-m", "venv"]:
            return
        script, *arguments = arguments
        assert (ROOT / script).is_file(), words
        if program == "bash":
            text = (ROOT / script).read_text("utf-8")
            for argument in arguments:
                # An option or a path; where the reader's own goes, the script
                # reads "$1" or "$@".
                known = argument in text or (ROOT / argument).is_file()
                assert known or not argument.startswith("-"), words
                assert known or re.search(r"\$\{?[1-9@]", text), words
            return
        known = defined_in(ROOT / script)
        if script == "tools/inspect_views.py":
            known |= SETTINGS
        assert known.issuperset(flag_names(arguments)), words
        return
    if re.search(r"(^|/)pip$", program):
        assert arguments[0] == "install"
        for argument in arguments[1:]:
            known = argument in ("-r", "--no-deps")
            assert known or (ROOT / argument).exists(), words
        return
    assert program in OTHERS, words


def check_train(arguments):
    """The training command resolves to a configuration."""
    kept = []
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name == "help":
            continue
        if name == "flagfile":
            files = ROOT / "flags" / f"{value}.flags", ROOT / value
            path = next((path for path in files if path.is_file()), None)
            # One may be written by the run that stands before it.
            assert path or value.endswith("/run.flags"), value
            kept += [f"--flagfile={path}"] * bool(path)
            continue
        kept.append(argument)
    command_line.parse(kept)


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_exist(page):
    known = {*SETTINGS, *RUN_FLAGS, "help", "helpfull", "flagfile", "algo"}
    for file in [
        *(ROOT / "tf_metassl").glob("*.py"),
        *(ROOT / "tools").glob("*.py"),
    ]:
        known |= defined_in(file)
    text = (ROOT / page).read_text("utf-8")
    for code in re.findall(r"`([^`\n]+)`", text):
        for name in re.findall(r"(?<![\w-])--(\w+)", code):
            assert name in known or name in ("dev", "strict", "fast", "all"), (
                name
            )


def test_the_tests_that_a_page_names_exist():
    text = (ROOT / "docs/robustness.md").read_text("utf-8")
    named = re.findall(r"`(\w+_test\.py)::(\w+)`", text)
    assert len(named) > 50
    for file, name in named:
        code = (ROOT / "tests" / file).read_text("utf-8")
        assert f"def {name}(" in code, (file, name)


# Running.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the pages call DIR, runs/first and my_module."""
    folder = tmp_path_factory.mktemp("docs")
    rng = np.random.default_rng(0)
    manifest = ["path,label,split"]
    for number in range(60):
        name = ("cat", "dog")[number % 2]
        for kind in (f"labeled/{name}", "unlabeled/any/where"):
            path = folder / "DIR" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (72, 72, 3), np.uint8)
            Image.fromarray(pixels).save(path)
        manifest.append(f"labeled/{name}/{number}.png,{name},")
        manifest.append(f"unlabeled/any/where/{number}.png,,")
    (folder / "DIR" / "images.csv").write_text("\n".join(manifest) + "\n")
    (own,) = (b for b in BLOCKS if "def my_function" in b.text)
    (folder / "my_module.py").write_text(own.text)
    return folder


@pytest.fixture(scope="module")
def first_run(place):
    """Runs the README's first training for two steps; returns its output."""
    text = (ROOT / "README.md").read_text("utf-8")
    _, arguments = of_package(shlex.split(make_docs.first_run(text)[0]))
    return run_python("-c", CONSOLE, "train", *shortened(arguments), at=place)


def run_python(*arguments, at):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=at,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shortened(arguments):
    """The flags of a training command, but for two steps of a small network."""
    given = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
    algo = given.get("algo", "meta_semi")
    algo = ALIASES.get(algo, algo)
    own = {f.name for f in dataclasses.fields(hyperparameters_class(algo))}
    common = {"num_steps", "evaluate_every", "batch_size", "num_validation"}
    short = {k: v for k, v in SHORT.items() if k in common | own}
    own_images = given.keys() & {"labeled_dir", "manifest"}
    if own_images or given.get("dataset", "digits") != "digits":
        # The smallest that a network with trained weights takes.
        short["image_size"] = 32 if "init_weights" in given else 12
        if not own_images:
            short["num_labeled"] = 20
        if "model" not in given:
            short["model"] = "small_cnn"
    if "strategy" in given:
        short["batch_size"] = 16
    return [*arguments, *(f"--{name}={value}" for name, value in short.items())]


@pytest.fixture
def inside(place, first_run, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    return place


RUN = {}
IN_README = set()
for _block in BLOCKS:
    if _block.language == "sh" and not _block.reason:
        for _words in commands(_block):
            RUN.setdefault(" ".join(_words), _words)
            if _block.page == "README.md":
                IN_README.add(" ".join(_words))


# What a command makes and others on its page go on with -> how it says so.
MADE = {
    "runs/photos": ("train", "--run_dir=runs/photos"),
    "runs/small": ("train", "--run_dir=runs/small"),
    "runs/features": ("train", "--run_dir=runs/features"),
    "labels.csv": ("pseudo_label", "--out=labels.csv"),
}


def make_needed(line, at):
    """Runs the commands before `line` that make what it goes on with."""
    command, _ = of_package(RUN[line])
    for path, (maker, flag) in MADE.items():
        if path not in line or maker == command and flag in line:
            continue
        (before,) = (o for o in RUN if flag in o and f" {maker} " in o)
        if not (at / path).exists():
            make_needed(before, at)
            _, arguments = of_package(RUN[before])
            if maker == "train":
                arguments = shortened(arguments)
            run_python("-c", CONSOLE, maker, *arguments, at=at)


@pytest.mark.slow
@pytest.mark.parametrize("line", mostly_exhaustive(RUN, IN_README))
def test_commands_run(inside, line, capfd):
    words = RUN[line]
    if found := of_package(words):
        command, arguments = found
        make_needed(line, inside)
        if command != "train":
            assert run_python("-c", CONSOLE, command, *arguments, at=inside)
        elif "--help" in arguments:
            assert "--learning_rate" in command_line.train_help(arguments)
        elif line == make_docs.first_run((ROOT / "README.md").read_text())[0]:
            assert (inside / "runs" / "first" / "export" / "1").is_dir()
        elif "--flagfile=runs/first/run.flags" in arguments:
            # The settings of that run; training with them would be no news.
            again = command_line.parse(arguments)
            first = run_directory.load_config(inside / "runs" / "first")
            assert dataclasses.replace(again, run_dir="") == (
                dataclasses.replace(first, run_dir="")
            )
        elif "--strategy" in line:
            # Collectives of several strategies in one process would meet.
            arguments = shortened(arguments)
            output = run_python("-c", CONSOLE, command, *arguments, at=inside)
            assert "(exported)" in output
        else:
            resolved = command_line.parse(shortened(arguments))
            if resolved.run_dir or resolved.init_weights:
                run_dir = experiment.train(resolved)
                assert (run_dir / "report.md").is_file()
                assert "(exported)" in capfd.readouterr().out
            else:
                # Nothing goes on with the run: images and networks alone.
                assert build.build_experiment(resolved).algorithm.roles
        return
    program, script, *arguments = words
    assert program == "python" and script == "tools/inspect_views.py"
    run_python(str(ROOT / script), *arguments, at=inside)
    assert (inside / "views.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    mostly_exhaustive(
        dict.fromkeys(
            block.page
            for block in BLOCKS
            if block.language == "python" and not block.reason
        ),
        ["examples/quickstart.md"],
    ),
)
def test_snippets_run(inside, page, capsys):
    """The snippets of a page, one after another in one namespace."""
    namespace = {}
    for block in blocks(page):
        if block.language == "python" and not block.reason:
            exec(compile(block.text, page, "exec"), namespace)
    if page != "docs/networks.md":  # Defines a function.
        assert capsys.readouterr().out


def form(output):
    """The beginnings of lines, without numbers and what was left out."""
    output = re.sub(r"\b[0-9a-f]{16}\b|[\d.,:-]+", "#", output)
    return [line[:40] for line in output.splitlines() if line != "#"]


@pytest.mark.slow
def test_the_output_that_is_shown_is_that_of_the_command(first_run):
    readme = (ROOT / "README.md").read_text("utf-8")
    guide = (ROOT / "docs" / "getting_started.md").read_text("utf-8")
    command, output = make_docs.first_run(readme)
    # If this fails: python tools/make_docs.py --run.
    assert form(output) == form(make_docs.outline(first_run))
    same_command, output = make_docs.first_run(guide)
    assert same_command == command
    # A short run has fewer evaluations.
    assert set(form(output)) == set(form(make_docs.shortened(first_run)))


# What can be looked up.


def test_generated_parts_are_up_to_date():
    wrong = [
        path
        for path, text in make_docs.documents().items()
        if (ROOT / path).read_text("utf-8") != text
    ]
    assert not wrong, "Run python tools/make_docs.py."


def anchors(page):
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = (ROOT / page).read_text("utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).strip()
        found.add(slug.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            name = file.resolve().relative_to(ROOT).as_posix()
            assert anchor in anchors(name), target


def test_every_method_is_documented_once():
    methods = [page for page in PAGES if page.startswith("docs/methods/")]
    text = "".join((ROOT / page).read_text("utf-8") for page in methods)
    named = re.findall(r"<!-- generated: settings (\w+) -->", text)
    assert sorted(named) == sorted(ALGORITHMS)
    assert text.count("**Use it**") == len(ALGORITHMS)
    # "Do not use it", "them", "the alignment".
    assert text.count("**Do not") == len(ALGORITHMS)
    for name in ALGORITHMS:
        assert f"`--algo={name}`" in text, name
    readme = (ROOT / "README.md").read_text("utf-8")
    table = make_docs.methods_table("")
    linked = re.findall(r"\[(\w+)\]\(docs/methods/\w+\.md#", table)
    assert sorted(linked) == sorted(ALGORITHMS)
    assert f"all {len(ALGORITHMS)} methods" in readme


def test_the_numbers_of_the_readme_are_those_of_the_results():
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    rows = make_docs.digits()
    for name in ("supervised", "meta_pseudo_labels"):
        mean = float(rows[name]["test_mean"])
        assert f"**{mean:.1f} %**" in readme


def test_parameters_of_networks():
    """The others of the table are built in tests/models_test.py."""
    page = (ROOT / "docs" / "networks.md").read_text("utf-8")
    rows = re.findall(
        r"^\| (`.*?) \| .*? \| ([\d,]+).*? \| (\S+) \|$", page, re.M
    )
    table = {
        name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])
    }
    # One row stands for a range of them.
    assert set(table) >= {
        name
        for name in models.NETWORKS
        if not re.fullmatch(r"efficientnet_b\d", name)
    }
    for name, (_, parameters, dropout) in table.items():
        network = models.find(name)
        assert float(dropout) == network.dropout
        if network.image_size > 96:
            continue
        size = 96 if name == "wrn_37_2" else network.image_size
        gray = ("digits_cnn", "digits_pooling_cnn", "small_cnn")
        channels = dict.fromkeys(gray, 1) | {"two_moons_mlp": 2}
        classes = 2 if name == "two_moons_mlp" else 10
        shape = (size, size, channels.get(name, 3))
        with costs.shapes_only():
            built = models.build(name, shape, classes)
        assert f"{costs.of(built).trainable:,}" == parameters, name


def test_the_drawing_and_the_page_have_every_room():
    names = {
        path.stem
        for path in (ROOT / "tf_metassl").iterdir()
        if path.stem != "__init__"
        and (path.suffix == ".py" or (path / "__init__.py").is_file())
    }
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    drawing = (ROOT / "docs" / "images" / "rooms.svg").read_text("utf-8")
    for name in names:
        assert re.search(rf"`{name}/?`", page), name
        assert re.search(rf"\b{name}\b", drawing), name


def test_api_pages_name_modules_that_exist():
    for _, _, _, patterns in make_docs.API_PAGES:
        for pattern in patterns:
            names = make_docs.module_names(pattern)
            assert names
            for name in names:
                assert importlib.util.find_spec(name), name


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None,
    reason="mkdocs is not installed: requirements-docs.txt",
)
def test_the_site_builds_strictly(tmp_path):
    run_python("-m", "mkdocs", "build", "--strict", "-d", tmp_path, at=ROOT)
    page = (tmp_path / "methods" / "consistency" / "index.html").read_text()
    # Formulas are MathML; nothing is loaded from elsewhere.
    assert "<math" in page and "arithmatex" not in page
    assert not re.search(r'(?:src|<link[^>]*href)="https?://', page)


def test_the_settings_page_has_every_flag():
    values = flags.FlagValues()
    command_line.define_flags(values)
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name in values:
        if name in SETTINGS:
            assert page.count(f"| `--{name}` |") == 1, name
