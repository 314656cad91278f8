"""What every command line has in common."""

import sys

from absl import app, flags, logging

from tf_metassl.errors import UserError
from tf_metassl.run.termination import Terminated


def run(main):
    """Parses flags and calls `main`; a user's mistake ends in one message.

    Args:
        main: function of the arguments that are left after the flags.
    """

    def checked(argv):
        if argv[1:]:
            raise app.UsageError(f"Not a flag: {' '.join(argv[1:])}")
        try:
            main(argv)
        except UserError as error:
            print(f"\nError: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print(
                "\nStopped. The same command with --run_dir set to this run's "
                "folder goes on from its last checkpoint.",
                file=sys.stderr,
            )
            sys.exit(130)
        except Terminated as stopped:
            print(f"\n{stopped.message}", file=sys.stderr)
            raise
        except OSError as error:
            print(
                f"\nError: {error}\nWhat was saved before is intact; the same "
                "command with --run_dir set to the run's folder goes on.",
                file=sys.stderr,
            )
            sys.exit(1)

    app.run(checked)


def quieten():
    """Hides TensorFlow's notes; call it after importing TensorFlow.

    Importing it raises absl's verbosity. `--verbosity` still decides.
    """
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
