"""SIGTERM: the step is finished, a checkpoint written, then exit code 143.

Imports no TensorFlow, so that a command can listen while it is imported.
"""

import os
import signal
import sys

EXIT_CODE = 143


class Terminated(SystemExit):
    """Ends the process with `EXIT_CODE`.

    Args:
        message: says what was saved.
    """

    def __init__(self, message):
        super().__init__(EXIT_CODE)
        self.message = message


class Termination:
    """Whether this process has been asked to end; a context manager.

    Inside of the block SIGTERM raises `Terminated` at once while `deferred` is
    false: there is nothing to save then. While it is true, the first signal
    sets `requested`, which the training loop looks at after every step, and a
    second one kills the process wherever it is. Outside of the block, as in a
    notebook, signals are left alone.

    Attributes:
        deferred: set by whoever promises to look at `requested`.
        requested: whether SIGTERM has come meanwhile.
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
            raise Terminated("Stopped by SIGTERM; nothing had to be saved.")
        self.requested = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Not `print`, which must not be entered twice.
        os.write(
            sys.__stderr__.fileno(),
            b"\nSIGTERM: a checkpoint follows this step; a second signal stops "
            b"at once.\n",
        )
