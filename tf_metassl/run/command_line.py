"""What every command line has in common."""

import runpy
import sys

from absl import app, flags, logging

from tf_metassl.errors import UserError
from tf_metassl.run import presets
from tf_metassl.run.termination import Terminated

COMMANDS = ("train", "evaluate", "export", "summary")


def main():
    """The console command: `tf-metassl train` runs `tf_metassl.train`."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "presets":
        print("\n".join(presets.names()))
    elif command in COMMANDS:
        del sys.argv[1]
        name = f"tf_metassl.{command}"
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"usage: tf-metassl {{{','.join(COMMANDS)},presets}} ...")


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

    try:
        argv = presets.resolve_flagfiles(sys.argv)
    except UserError as error:
        sys.exit(f"\nError: {error}")
    app.run(checked, argv)


def quieten():
    """Hides TensorFlow's notes; call it after importing TensorFlow.

    Importing it raises absl's verbosity. `--verbosity` still decides.
    """
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
