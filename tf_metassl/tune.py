"""python -m tf_metassl.tune --search=NAME=VALUES: searches better settings.

Takes the flags of the training command, and --search for each setting that is
to vary: learning_rate=log:0.01:0.3, momentum=0.8:0.95 or ema_decay=0.9,0.99.
Every trial trains one run for each of --num_splits split seeds; their mean
validation accuracy counts, and test images are not used. Writes into --out:
best.flags, for --flagfile of the training command, tune.json, trials.csv and
the runs. The default settings are the first trial and are kept unless they are
beaten by more than the standard error. The same command continues a search.
"""

from absl import flags

from tf_metassl.errors import ConfigError
from tf_metassl.run import command_line, search_space
from tf_metassl.run.termination import Termination

# Of single runs.
_NOT_SEARCHED = (
    *("run_dir", "extend_to", "allow_changed"),
    *("tracker", "profile_steps"),
)
_OWN = ("search", "out", "num_trials", "num_splits", "prune")


def main(_):
    """Searches and prints what was found."""
    given = command_line.given_settings()
    own = command_line.values_of(*_OWN)
    for name in _NOT_SEARCHED:
        if given.pop(name, None):
            raise ConfigError(f"--{name} is not for tune. Leave it out.")
    given.setdefault("verbose", 0)
    search_space.parse(own["search"], given)
    with Termination() as termination:
        # TensorFlow is imported here, after every flag has been checked.
        from tf_metassl.run import tuning

        command_line.quieten()
        summary = tuning.tune(given, **own, termination=termination)
    print("\n".join(summary["sentences"]))
    print(f"{own['out']}/best.flags")


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    command_line.define_flags()
    flags.DEFINE_multi_string(
        "search",
        [],
        "A setting to vary: name=a,b,c, name=low:high or name=log:low:high. "
        "Once for each.",
    )
    flags.DEFINE_string("out", "tune", "The folder to write.")
    flags.DEFINE_integer(
        "num_trials",
        20,
        "Trials to have at the end, that of the default settings included.",
    )
    flags.DEFINE_integer(
        "num_splits", 3, "Split seeds that each trial is trained on."
    )
    flags.DEFINE_boolean(
        "prune",
        True,
        "End trials early that are below the median of the others at the same "
        "evaluation.",
    )
    command_line.run(main, command_line.help_on(__doc__, *_OWN), argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
