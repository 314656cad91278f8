"""python -m tf_metassl.train --algo=...: trains, evaluates, exports."""

from tf_metassl.run import command_line
from tf_metassl.run.termination import Termination


def main(_):
    """Trains what the flags describe."""
    settings = command_line.from_flags()
    with Termination() as termination:
        # TensorFlow is imported here, after every flag has been checked.
        from tf_metassl.run import experiment

        command_line.quieten()
        experiment.train(settings, termination)


def run_command(argv=None):
    """Runs the command.

    Args:
        argv: program and flags; `sys.argv` if None.
    """
    command_line.define_flags()
    command_line.run(main, command_line.train_help, argv)


if __name__ == "__main__":
    command_line.as_program(run_command)
