"""SIGTERM ends a run after its step, with a checkpoint and exit code 143.

Imports no TensorFlow, so that signals are handled while it is imported.
"""

import os
import signal
import sys

EXIT_CODE = 143


class Terminated(SystemExit):
    """Ends the process with `EXIT_CODE`.

    Args:
        message: says what was saved and how to continue.
    """

    def __init__(self, message):
        super().__init__(EXIT_CODE)
        self.message = message


class Termination:
    """Whether this process has been asked to end; a context manager.

    Inside the block, SIGTERM raises `Terminated` at once while `deferred` is
    false, because there is nothing to save. While `deferred` is true, the first
    signal sets `requested`, which the training loop reads after every step,
    and a second one kills the process at once. Outside the block, for example
    in a notebook, signals are not handled.

    Attributes:
        deferred: set it to true while `requested` is read regularly.
        requested: whether SIGTERM has been received while `deferred` was true.
    """

    def __init__(self):
        self.deferred = False
        self.requested = False

    def __enter__(self):
        self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *exception):
        signal.signal(signal.SIGTERM, self._previous)

    def _handle(self, number, frame):
        del number, frame
        if not self.deferred:
            raise Terminated("Stopped by SIGTERM. There was nothing to save.")
        self.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Not `print`, which the signal may have interrupted.
        os.write(
            sys.__stderr__.fileno(),
            b"\nSIGTERM: stopping with a checkpoint after this step; a second "
            b"signal stops at once.\n",
        )
