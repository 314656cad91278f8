"""What SIGTERM does, and when."""

import os
import signal
import subprocess
import sys

import pytest

from tf_metassl.run.termination import Terminated, Termination


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_ends_at_once_while_nothing_is_to_be_saved():
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination, pytest.raises(Terminated) as stopped:
        terminate()
    assert stopped.value.code == 143
    assert not termination.requested
    assert signal.getsignal(signal.SIGTERM) == before


def test_deferred_it_is_noted_and_a_second_one_kills(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        termination.deferred = True
        terminate()
        assert termination.requested
        assert "a second signal stops at once" in capfd.readouterr().err
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


COMMAND = """
import os, signal, sys
from tf_metassl.run import command_line
from tf_metassl.run.termination import Termination

def main(_):
    with Termination():
        if "full" in sys.argv[0]:
            raise OSError(28, "No space left on device", "report.md")
        os.kill(os.getpid(), signal.SIGTERM)

sys.argv = sys.argv[1:]
command_line.run(main)
"""


@pytest.mark.parametrize(
    "name, code, words",
    [
        ("train", 143, "Stopped by SIGTERM"),
        ("full", 1, "No space left on device: 'report.md'"),
    ],
)
def test_commands_end_with_a_message_and_a_code(name, code, words):
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, name], capture_output=True, text=True
    )
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
