"""Trains on the machines of a Ray cluster and starts again after a failure.

    pip install "ray[train]"
    python deploy/ray_train.py --num_workers=4 --gpus -- \
        --algo=fixmatch --dataset=cifar10 --run_dir=/shared/runs/first

Each worker runs the ordinary command with the flags after `--`. Ray chooses the
machines and sets TF_CONFIG; when a worker fails, it starts all of them again
and the run resumes from its last checkpoint. `--run_dir` must be one folder
that all machines share.
"""

import argparse
import ctypes
import signal
import subprocess
import sys

import ray.train
from ray.train.tensorflow import TensorflowTrainer


def end_with_parent():
    """Has Linux kill this process when the worker that started it dies."""
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def train(settings):
    """What each worker does; raises CalledProcessError if the run fails."""
    command = [sys.executable, "-m", "tf_metassl.train", *settings["flags"]]
    # A process of its own: training handles SIGTERM, which a thread cannot.
    subprocess.run(command, check=True, preexec_fn=end_with_parent)


def main(argv=None):
    """Starts the workers and waits for them."""
    argv = sys.argv[1:] if argv is None else argv
    split = argv.index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--gpus", action="store_true", help="a GPU per worker")
    parser.add_argument("--max_failures", type=int, default=10)
    parser.add_argument("--storage", help="folder of Ray's own state")
    values = parser.parse_args(argv[:split])
    TensorflowTrainer(
        train,
        train_loop_config={
            "flags": [*argv[split + 1 :], "--strategy=multi_worker"]
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=values.num_workers, use_gpu=values.gpus
        ),
        run_config=ray.train.RunConfig(
            storage_path=values.storage,
            failure_config=ray.train.FailureConfig(values.max_failures),
        ),
    ).fit()


if __name__ == "__main__":
    main()
