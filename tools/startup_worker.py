"""Measures a run from its start to its first step, for tools/benchmark.py.

    cd TREE && python /path/to/startup_worker.py

starts the default run of the source tree in the working directory, ends it
after the first step, and prints the CPU seconds of each part in JSON.
"""

import contextlib
import json
import os
import sys
import tempfile
import time

sys.path.insert(0, os.getcwd())


class Parts:
    """CPU seconds by part; a part inside another one counts once.

    Attributes:
        seconds: name -> CPU seconds.
    """

    def __init__(self):
        self.seconds = {}
        self._inside = 0.0

    @contextlib.contextmanager
    def part(self, name):
        """Measures what happens in the block."""
        outside, self._inside = self._inside, 0.0
        started = time.process_time()
        try:
            yield
        finally:
            used = time.process_time() - started
            own = used - self._inside
            self.seconds[name] = self.seconds.get(name, 0.0) + own
            self._inside = outside + used

    def measured(self, owner, name, part):
        """Replaces a function of a module or class by one that is measured."""
        function = getattr(owner, name)

        def timed(*args, **options):
            with self.part(part):
                return function(*args, **options)

        setattr(owner, name, timed)


class _FirstStep(Exception):
    """The first step has ended."""


def measure(settings):
    """The CPU seconds of each part of a run up to its first step.

    Args:
        settings: of the run, a dict.

    Returns:
        Name -> seconds, in the order in which the parts begin.
    """
    parts = Parts()
    with parts.part("import TensorFlow"):
        import tf_metassl  # noqa: F401  Decides about oneDNN.
        import tensorflow  # noqa: F401  isort: skip
    with parts.part("import the package"):
        from tf_metassl import config
        from tf_metassl.algorithms.algorithm import Algorithm
        from tf_metassl.run import callbacks, experiment, tensorboard_log
        from tf_metassl.run.build import Experiment
    parts.measured(experiment, "build_experiment", "data and networks")
    parts.measured(Experiment, "training_data", "input pipeline")
    parts.measured(tensorboard_log, "write_view_images", "pictures of views")
    # Versions before sharpness-aware steps have the second one alone.
    names = ("training_step", "train_step")
    step = next(name for name in names if hasattr(Algorithm, name))
    parts.measured(Algorithm, step, "trace")

    def stop(*_, **__):
        raise _FirstStep

    callbacks.Recorder.on_train_batch_end = stop
    with tempfile.TemporaryDirectory() as folder:
        given = {"verbose": 0, "run_dir": os.path.join(folder, "run")}
        with (
            contextlib.suppress(_FirstStep),
            contextlib.redirect_stdout(sys.stderr),
            parts.part("compile, run, and the rest"),
        ):
            experiment.train(config.resolve({**given, **settings}))
    return parts.seconds


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(json.dumps(measure(json.loads((sys.argv[1:] or ["{}"])[0]))))
