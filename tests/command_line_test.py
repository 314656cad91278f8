"""The command lines: flags, `--help`, and the command `tf-metassl`."""

import dataclasses
import os
import re
import signal
import subprocess
import sys

import pytest
from absl import flags

import tf_metassl
from tf_metassl import config
from tf_metassl.algorithms import ALGORITHMS, hyperparameters_class
from tf_metassl.data.datasets import DATASETS
from tf_metassl.errors import ConfigError, UserError
from tf_metassl.models import NETWORKS
from tf_metassl.run import command_line, help_text, run_directory

ROWS = {row.name: row for _, rows in command_line.sections() for row in rows}


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True
    )


def command(*arguments):
    return python("-m", "tf_metassl.train", *arguments)


@pytest.mark.parametrize("flag", ("--help", "--helpfull"))
def test_help_names_every_method_network_and_dataset(flag):
    done = command(flag)
    families = "wrn_D_K", "module:function"
    for name in (*ALGORITHMS, *NETWORKS, *DATASETS, *families):
        assert name in done.stdout


def test_help_imports_no_tensorflow():
    code = (
        "import sys, tf_metassl.config, tf_metassl.run.command_line;"
        "import tf_metassl.summary, tf_metassl.train;"
        "import tf_metassl.evaluate, tf_metassl.export;"
        "sys.exit(any(m in sys.modules for m in ('tensorflow', 'keras')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "argument, words",
    [
        ("--algo=fixmatsch", ["--algo=fixmatsch", "meta_semi"]),
        ("--num_labeled=ten", ["num_labeled", "ten"]),
        ("--momentum=2", ["--momentum=2", "between 0.0 and 0.999"]),
        ("--nonsense=1", ["nonsense"]),
    ],
)
def test_wrong_flags_end_at_once_with_a_message(argument, words, tmp_path):
    done = command(argument, f"--run_dir={tmp_path / 'run'}")
    assert done.returncode != 0
    for word in words:
        assert word in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_command_line_is_parsed_apart_from_the_global_flags(tmp_path):
    path = tmp_path / "run.flags"
    path.write_text("# A comment.\n--algo=mpl\n--num_steps=700\n")
    arguments = [f"--flagfile={path}", "--num_steps=900", "--noremat"]
    expected = {"algo": "mpl", "num_steps": 900, "remat": False}
    assert command_line.parse(arguments) == config.resolve(expected)
    with pytest.raises(flags.Error, match="Unknown command line flag"):
        command_line.parse(["--num_step=900"])
    with pytest.raises(ConfigError, match="not a setting of --algo"):
        command_line.parse(["--algo=supervised", "--feedback=dot"])


def test_every_setting_is_in_exactly_one_section():
    names = [row.name for _, rows in command_line.sections() for row in rows]
    fields = [field.name for field in dataclasses.fields(config.Config)]
    fields.remove("hyperparameters")
    for algo in ALGORITHMS:
        own = hyperparameters_class(algo)
        fields += [field.name for field in dataclasses.fields(own)]
    assert len(names) == len(set(names))
    assert set(names) == set(fields)
    assert [title for title, _ in command_line.sections()] == [
        "Data",
        "Network",
        "Optimization",
        "Execution",
        "Monitoring",
        "Run directory and recovery",
        "Method",
    ]


def test_rows_are_what_the_fields_say():
    assert ROWS["num_steps"] == help_text.Row(
        "num_steps", "integer", "1000", "Number of training steps."
    )
    assert ROWS["verbose"].choices == ("0", "1", "2")
    assert ROWS["remat"].kind == "boolean"
    assert ROWS["max_loss"].default == "10000"
    for name, row in ROWS.items():
        users = config.hyperparameters_by_name().get(name, {})
        assert set(row.methods) in (set(users), set())
        assert len(users) in (0, len(ALGORITHMS)) or row.methods


def test_what_methods_share_is_said_once():
    row = ROWS["mixup_alpha"]
    assert row.default == "1; mixmatch, remixmatch, enaet 0.75"
    assert row.help.count("0 = no MixUp.") == 1
    assert "Published for mixmatch, remixmatch, enaet: 0.75." in row.help
    assert ROWS["ema_decay"].default == "0.99"
    assert ROWS["ema_decay"].methods == ()
    row = ROWS["pseudo_label"]
    assert row.choices == ("soft", "one_hot", "auto", "sampled")
    # All texts of all methods are there, published values apart.
    for name, users in config.hyperparameters_by_name().items():
        for field in users.values():
            for sentence in field.metadata["help"].split(". "):
                sentence = sentence.split(" (paper")[0].rstrip(".")
                if not sentence.startswith("Published"):
                    assert sentence in ROWS[name].help


def test_help_is_half_as_long_as_a_list_of_all_texts():
    lines = command("--help").stdout.splitlines()
    full = command("--helpfull").stdout.splitlines()
    assert len(lines) <= 0.53 * len(full)
    # A condition alone would say nothing.
    assert "  --array_file: --dataset=array_file: an .npz file" in "\n".join(
        lines
    )
    assert max(map(len, lines)) <= 80
    listed = [line[2:] for line in lines if line[2:].startswith("--")]
    names = [line.split(":")[0].split("=")[0] for line in listed]
    names = [name.removeprefix("--").removeprefix("[no]") for name in names]
    assert names == list(ROWS)
    titles = [title for title, _ in command_line.sections()]
    assert [line for line in lines if line in titles] == titles
    # Those that a dataset has a default of its own for.
    assert "* --num_steps=1000: Number of training steps." in lines
    assert "  --batch_size=64: Labeled images per step, over all" in (
        command("--help").stdout
    )


def test_help_of_one_method_has_its_settings_and_defaults_alone():
    for arguments in (["--algo=mpl", "--help"], ["--help", "--algo", "mpl"]):
        done = command(*arguments)
        assert done.returncode == 0
        assert "--confidence_threshold=0.6: UDA's targets" in done.stdout
        assert "--mixup_alpha" not in done.stdout
    # In full.
    assert "exact_soft: the lookahead student" in done.stdout


def test_help_into_a_pipe_that_is_closed():
    command = f"{sys.executable} -m tf_metassl.train --help | head -1"
    for _ in range(3):
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True
        )
        assert done.stdout == (
            "usage: python -m tf_metassl.train [--name=value ...]\n"
        )
        assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    (
        "-m tf_metassl.train --helpxml",
        "-c 'from tf_metassl.run import command_line as c; "
        'c.main(["tf-metassl", "presets"])\'',
    ),
)
def test_lists_into_a_pipe_that_is_closed(command):
    done = subprocess.run(
        f"{sys.executable} {command} | (exec 0<&-; sleep 1)",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_help_answers_at_once():
    before = os.times()
    command("--help")
    after = os.times()
    # Not the wall-clock time, which depends on what else is running.
    assert (after.children_user - before.children_user) < 1.0
    assert (after.children_system - before.children_system) < 0.5


@pytest.mark.parametrize(
    "name, listed",
    [
        ("evaluate", ["run_dir", "median_of", "real_labels", "out"]),
        ("export", ["run_dir", "output", "formats"]),
        ("summary", ["model", "image_size", "channels", "num_classes"]),
    ],
)
def test_help_of_the_other_commands(name, listed):
    done = python("-m", f"tf_metassl.{name}", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"python -m tf_metassl.{name} --")
    assert len(done.stdout.splitlines()) <= 20
    for flag in listed:
        assert f"  --{flag}" in done.stdout


def tf_metassl_command(*arguments):
    """What the installed script `tf-metassl` runs."""
    code = (
        "import sys; sys.argv[0] = '/usr/bin/tf-metassl';"
        "from tf_metassl.run import command_line; command_line.main()"
    )
    return python("-c", code, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_the_installed_command_is_that_of_the_module(name):
    module = python("-m", f"tf_metassl.{name}", "--help")
    installed = tf_metassl_command(name, "--help")
    assert installed.returncode == module.returncode == 0
    assert installed.stdout == module.stdout
    module = python("-m", f"tf_metassl.{name}", "--nonsense=1")
    installed = tf_metassl_command(name, "--nonsense=1")
    assert installed.returncode == module.returncode == 1
    assert installed.stderr == module.stderr


@pytest.mark.slow
def test_the_installed_command_checks_values():
    done = tf_metassl_command("train", "--momentum=2")
    assert done.returncode == 1
    assert "--momentum=2.0: must be between 0.0 and 0.999" in done.stderr
    done = tf_metassl_command("summary", "--model=two_moons_mlp")
    assert done.returncode == 0, done.stderr
    assert "two_moons_mlp" in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["trian"], "Unknown command 'trian'."),
        (["--algo=mpl"], "Unknown command '--algo=mpl'."),
        ([], "No command given."),
    ],
)
def test_an_unknown_command_is_answered_with_the_list(arguments, message):
    done = tf_metassl_command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    for name in command_line.COMMANDS:
        assert f"\n  {name}" in done.stderr


def test_help_and_version_of_the_installed_command():
    done = tf_metassl_command("--help")
    assert done.returncode == 0
    assert "usage: tf-metassl <command>" in done.stdout
    for name, text in command_line.COMMANDS.items():
        assert f"  {name:<14}{text}\n" in done.stdout
    done = tf_metassl_command("--version")
    assert done.stdout == f"tf_metassl {tf_metassl.__version__}\n"


@pytest.mark.parametrize(
    "argument, meant",
    (
        ("--epochs=3", "--num_steps, which counts steps"),
        ("--lr=0.1", "--learning_rate"),
        ("-lr=0.1", "--learning_rate"),
        ("--learning_rte=0.1", "--learning_rate"),
        ("--num-epochs=3", "--num_steps"),
        ("--batch-size=3", "--batch_size"),
    ),
)
def test_a_flag_of_another_library_is_translated(argument, meant):
    command_line_flags = flags.FlagValues()
    command_line.define_flags(command_line_flags)
    with pytest.raises(UserError, match="There is no flag") as error:
        command_line.check_names([argument], command_line_flags)
    assert f"Did you mean {meant}" in str(error.value)


def test_flags_that_exist_are_let_through():
    values = flags.FlagValues()
    command_line.define_flags(values)
    given = ["--lr_schedule=constant", "--nojit_compile", "-3"]
    command_line.check_names([*given, "--", "--epochs"], values)


def test_every_synonym_means_a_flag():
    values = flags.FlagValues()
    command_line.define_flags(values)
    for name, text in command_line.SYNONYMS.items():
        assert name not in values
        meant = re.match(r"--(\w+)", text)
        assert meant and meant[1] in values, name


def test_the_code_of_a_run_is_not_run_unasked(tmp_path):
    settings = config.resolve({"model": "stranger:network"})
    run_directory.save_config(settings, tmp_path)
    (tmp_path / "stranger.py").write_text(
        f"open({str(tmp_path / 'was_run')!r}, 'w')\n"
    )
    for command in ("evaluate", "export"):
        done = subprocess.run(
            [sys.executable, "-m", f"tf_metassl.{command}"]
            + [f"--run_dir={tmp_path}"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 1
        assert "stranger:network" in done.stderr
        assert "add --trust_model_code" in done.stderr
    assert not (tmp_path / "was_run").exists()


def test_naming_the_code_of_a_run_trusts_it(tmp_path):
    settings = config.resolve({"model": "stranger:network"})
    run_directory.save_config(settings, tmp_path)
    command = [sys.executable, "-m", "tf_metassl.export"]
    command.append(f"--run_dir={tmp_path}")
    answers = {
        "--model=other:network": "the network --model=stranger:network",
        "--model=stranger:network": "No module named 'stranger'",
    }
    for argument, answer in answers.items():
        done = subprocess.run(
            [*command, argument], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 1
        assert answer in done.stderr


# An object that can only be freed while the interpreter is taken apart, when it
# ends the process as a crash does.
PROGRAM = """
import atexit, os, sys
from tf_metassl.run import command_line

class Bomb:
    def __del__(self):
        os.abort()

def command():
    bomb = Bomb()
    bomb.itself = bomb
    sys.modules["held"] = bomb
    atexit.register(print, "tidied")
    print("done")
    {end}

command_line.as_program(command)
"""


@pytest.mark.parametrize(
    "end, code, words",
    [
        ("pass", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(130)", 130, ""),
        ("sys.exit('No such run.')", 1, "No such run."),
        ("raise ValueError('broken')", 1, "ValueError: broken"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
    ],
)
def test_a_program_ends_without_being_taken_apart(end, code, words):
    script = PROGRAM.format(end=end)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode == code
    assert done.stdout == "done\ntidied\n"
    assert words in done.stderr


def test_a_worker_is_taken_apart():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end="pass")],
        env={**os.environ, "SLURM_STEP_NODELIST": "node[1-2]"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGABRT
    assert done.stdout == "done\ntidied\n"


def test_output_that_cannot_show_a_name_does_not_end_a_run():
    code = (
        "from tf_metassl.run import command_line\n"
        "command_line.run(lambda _: print('d\\u00f6g', '\\udcff'), argv=['x'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "d\\xf6g \\udcff\n")
