"""The command lines: flags, `--help`, errors, and the command `tf-metassl`.

The only module that defines and reads the flags of the settings. It imports no
TensorFlow, so that `--help` and a wrong value answer at once.
"""

import atexit
import contextlib
import difflib
import importlib
import os
import pathlib
import re
import sys

from absl import app, flags, logging

import tf_metassl
from tf_metassl import config as config_lib
from tf_metassl.algorithms import ALGORITHMS, ALIASES
from tf_metassl.errors import UserError
from tf_metassl.run import cluster, help_text, presets, run_directory
from tf_metassl.run.help_text import sections
from tf_metassl.run.termination import Terminated

# Name -> what it does. Each is a module of the package with a `run_command`.
COMMANDS = {
    "audit": "look at the images and labels before a training",
    "train": "train, evaluate and export a classifier",
    "tune": "search settings by the validation accuracy",
    "evaluate": "evaluate a finished run again, or on other images",
    "predict": "classify picture files",
    "pseudo_label": "label picture files for another training",
    "export": "export a finished run as a SavedModel",
    "summary": "print the size and the cost of a network",
}

_DEFINE = {
    "boolean": flags.DEFINE_boolean,
    "integer": flags.DEFINE_integer,
    "number": flags.DEFINE_float,
    "text": flags.DEFINE_string,
}


def as_program(command):
    """Calls a command that is the whole program, and lets it end at once.

    At the end of the process the functions of `atexit` are called, but the
    interpreter is not taken apart: to free TensorFlow's graphs takes seconds,
    and an input pipeline whose threads still run may crash meanwhile. Workers
    of a cluster end as usual, because TensorFlow signs them off while it is
    freed.

    Args:
        command: function without arguments. What it raises, `SystemExit`
            included, sets the exit code as usual.
    """
    code = 0

    def end():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.flush()
        if not cluster.is_described():
            os._exit(code)

    # The first one that is registered is called last.
    atexit.register(end)
    try:
        command()
    except SystemExit as leaving:
        code = leaving.code
        if not isinstance(code, int):
            code = 0 if code is None else 1
        raise
    except BaseException as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        raise


def main(argv=None):
    """The command `tf-metassl <command>`: as `python -m tf_metassl.<command>`.

    Args:
        argv: program, command and flags; `sys.argv` if None.
    """
    argv = list(sys.argv if argv is None else argv)
    as_program(lambda: _dispatch(argv))


def _dispatch(argv):
    program, name = pathlib.Path(argv[0]).name, "".join(argv[1:2])
    if name == "presets":
        with _readers_may_end():
            print("\n".join(presets.names()), flush=True)
        return
    if name in COMMANDS:
        # By its name, because the commands import this module.
        module = importlib.import_module(f"tf_metassl.{name}")
        module.run_command([argv[0], *argv[2:]])
        return
    listed = {**COMMANDS, "presets": "list the presets for --flagfile"}
    lines = "".join(f"  {n:<14}{text}\n" for n, text in listed.items())
    usage = (
        f"usage: {program} <command> [--flag=value ...]\n\n{lines}\n"
        f"{program} <command> --help lists the flags of a command."
    )
    if name in ("--help", "-h", "help"):
        print(usage)
    elif name == "--version":
        print(f"tf_metassl {tf_metassl.__version__}")
    else:
        wrong = f"Unknown command {name!r}." if name else "No command given."
        print(f"{wrong}\n{usage}", file=sys.stderr)
        sys.exit(2)


def run(main, command_help=None, argv=None):
    """Parses flags and calls `main`; an error of the user ends in a message.

    Args:
        main: function of the arguments that are left after the flags.
        command_help: function of the arguments that returns the text of
            `--help`; None for absl's own text.
        argv: program and flags; `sys.argv` if None.
    """

    def checked(rest):
        try:
            if rest[1:]:
                raise UserError(
                    f"Not a flag: {' '.join(rest[1:])}. Write --name=value; "
                    "--help lists the flags."
                )
            main(rest)
        except UserError as error:
            print(f"\nError: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print(
                "\nStopped. Run the same command with --run_dir set to this "
                "run's folder to resume from the last checkpoint.",
                file=sys.stderr,
            )
            sys.exit(130)
        except Terminated as stopped:
            print(f"\n{stopped.message}", file=sys.stderr)
            raise
        except OSError as error:
            print(f"\nError: {error}", file=sys.stderr)
            sys.exit(1)

    argv = sys.argv if argv is None else argv
    # Names of files and classes may have characters that the output has not.
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(errors="backslashreplace")
    app.define_help_flags()
    if command_help:
        for name, short_name in (("help", "?"), ("helpshort", None)):
            flags.DEFINE_flag(
                _Help(name, short_name, lambda: command_help(argv[1:]))
            )
    # The one place where the arguments of a command are handed to absl.
    try:
        argv = presets.resolve_flagfiles(argv)
        check_names(argv[1:], flags.FLAGS)
    except UserError as error:
        sys.exit(f"\nError: {error}")
    with _readers_may_end():
        app.run(checked, argv=argv)


@contextlib.contextmanager
def _readers_may_end():
    """Ends quietly if the output goes to a program that has ended: `head`."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


# What other libraries call a setting -> what it is here.
SYNONYMS = {
    "epochs": "--num_steps, which counts steps of --batch_size labeled images",
    "num_epochs": "--num_steps, which counts steps of --batch_size labeled "
    "images",
    "steps": "--num_steps",
    "num_train_iter": "--num_steps",
    "lr": "--learning_rate",
    "wd": "--weight_decay",
    "bs": "--batch_size",
    "batch": "--batch_size",
    "uratio": "--unlabeled_batch_ratio",
    "mu": "--unlabeled_batch_ratio",
    "method": "--algo",
    "algorithm": "--algo",
    "net": "--model",
    "arch": "--model",
    "network": "--model",
    "data": "--labeled_dir for folders of your own, or --dataset",
    "train_dir": "--labeled_dir",
    "val_dir": "--validation_dir",
    "num_labels": "--num_labeled",
    "n_labeled": "--num_labeled",
    "img_size": "--image_size",
    "size": "--image_size",
    "output": "--run_dir",
    "output_dir": "--run_dir",
    "out_dir": "--run_dir",
    "save_dir": "--run_dir",
    "amp": "--precision=mixed_bfloat16",
    "fp16": "--precision=mixed_bfloat16",
    "xla": "--jit_compile",
    "gpus": "--num_replicas with --strategy=mirrored",
    "ema": "--ema_decay",
    "ema_m": "--ema_decay",
    "threshold": "--confidence_threshold",
    "p_cutoff": "--confidence_threshold",
    "resume": "--run_dir, which resumes the run in that folder",
}


def check_names(arguments, values):
    """Raises UserError for a flag that does not exist, with what is meant.

    Args:
        arguments: of the command line, without the program and flagfiles.
        values: the `flags.FlagValues` that are defined.
    """
    for argument in arguments:
        if argument == "--":
            return
        written = argument.lstrip("-").partition("=")[0]
        name = written.replace("-", "_")
        if not argument.startswith("-") or not re.fullmatch(r"[a-z]\w*", name):
            continue
        known = list(values)
        if written in known or written.removeprefix("no") in known:
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        meant = close and f"--{close[0]}"
        if "num_steps" in known:
            meant = SYNONYMS.get(name, meant)
        raise UserError(
            f"There is no flag --{written}. "
            + (f"Did you mean {meant}? " if meant else "")
            + "--help lists the flags."
        )


class _Help(flags.BooleanFlag):
    """Prints a text of our own in place of absl's list of flags."""

    def __init__(self, name, short_name, text):
        super().__init__(
            name,
            False,
            "show this help",
            short_name=short_name,
            allow_override=True,
            allow_hide_cpp=True,
        )
        self._text = text

    def parse(self, argument):
        """Ends the process, unless it is `--nohelp`."""
        if not self._parse(argument):
            return
        print(self._text(), flush=True)
        sys.exit(0)


def train_help(arguments):
    """The text of `--help` of the training command.

    Args:
        arguments: of the command line; with `--algo=NAME` the text is about
            that method alone.
    """
    given = re.findall(r"--?algo[= ](\S+)", " ".join(arguments))
    algo = ALIASES.get(given[-1], given[-1]) if given else None
    return help_text.of_train(algo if algo in ALGORITHMS else None)


def help_on(summary, *names):
    """A `command_help` of `run` for a command with few flags.

    Args:
        summary: what the command does.
        *names: of its flags.
    """
    return lambda _: help_text.of_command(summary, flags.FLAGS, names)


def quieten():
    """Hides TensorFlow's messages; call it after importing TensorFlow.

    Importing TensorFlow raises absl's verbosity. `--verbosity` has precedence.
    """
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)


def define_flags(values=None, names=None):
    """Defines one flag per setting of `Config` and of all methods.

    Args:
        values: the `flags.FlagValues` to define them in; the global ones if
            None.
        names: the settings that get a flag; None: all.
    """
    values = flags.FLAGS if values is None else values
    for _, rows in sections():
        for row in rows:
            if names is None or row.name in names:
                _DEFINE[row.kind](
                    row.name,
                    None,
                    help_text.description(row),
                    flag_values=values,
                )


def from_flags(values=None):
    """Resolves the parsed flags to a `Config`.

    A flag that was given has precedence over the dataset's default, and that
    over the field's.

    Args:
        values: flag values; the global ones if None.

    Raises:
        ConfigError: if a value is not allowed, or excludes another one.
    """
    return config_lib.resolve(given_settings(values))


def given_settings(values=None):
    """The settings among the parsed flags that were given, name -> value.

    Args:
        values: flag values; the global ones if None.
    """
    values = flags.FLAGS if values is None else values
    names = [row.name for _, rows in sections() for row in rows]
    given = {name: getattr(values, name) for name in names if name in values}
    return {name: value for name, value in given.items() if value is not None}


def parse(arguments):
    """The `Config` of a command line; the global flags are not changed.

    Args:
        arguments: strings such as `--algo=supervised`, without the program.

    Raises:
        ConfigError: see `from_flags`.
        flags.Error: if one is not a flag or cannot be parsed.
    """
    values = flags.FlagValues()
    define_flags(values)
    values(presets.resolve_flagfiles(["train", *arguments]))
    return from_flags(values)


def define_run_flags():
    """Defines the flags of commands on a finished run."""
    flags.DEFINE_string("run_dir", None, "Folder of a finished run.")
    flags.mark_flag_as_required("run_dir")
    define_trust("model")


def define_trust(name):
    """Defines the flags that trust the code of a run's network.

    Args:
        name: of the flag that names the code.
    """
    flags.DEFINE_boolean(
        "trust_model_code",
        False,
        "Run the code of a network that the run took from a module of its own "
        "(--model=module:function).",
    )
    flags.DEFINE_string(
        name,
        "",
        "The network of the run, if it is code of your own: naming it here "
        "trusts it as --trust_model_code does.",
    )


def values_of(*names):
    """The values of a command's own flags, name -> value."""
    return {name: getattr(flags.FLAGS, name) for name in names}


def run_from_flags():
    """The run that the flags of `define_run_flags` name.

    A run of several workers or a TPU is evaluated on this machine: the networks
    are the same.

    Returns:
        `(config, run_dir)`: its configuration and its folder.

    Raises:
        ConfigError: if `--run_dir` holds no run, or one whose network is code
            that the flags do not trust.
    """
    run_dir = pathlib.Path(flags.FLAGS.run_dir).expanduser()
    config = run_directory.load_config(run_dir)
    run_directory.check_trust(
        config, run_dir, flags.FLAGS.trust_model_code, flags.FLAGS.model
    )
    return run_directory.on_this_machine(config), run_dir
