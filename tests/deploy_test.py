"""The launch files of deploy/, with programs in place of their engines."""

import json
import os
import pathlib
import shlex
import stat
import subprocess
import sys

import pytest
import yaml

from tf_metassl.run import cluster, command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"


def executable(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def slurm(tmp_path):
    """Runs slurm.sbatch with a `srun` and a `scontrol` that note their use."""
    programs = tmp_path / "bin"
    programs.mkdir()
    executable(
        programs / "scontrol", f'#!/bin/bash\necho "$@" >> {tmp_path}/scontrol'
    )
    executable(programs / "python", f'#!/bin/bash\nexec {sys.executable} "$@"')

    def run(srun, *flags, nodes=1):
        executable(programs / "srun", f"#!/bin/bash\nshift\n{srun}\n")
        done = subprocess.run(
            ["bash", DEPLOY / "slurm.sbatch", *flags],
            env={
                **os.environ,
                "PATH": f"{programs}:{os.environ['PATH']}",
                "SLURM_JOB_ID": "7",
                "SLURM_NNODES": str(nodes),
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        asked = tmp_path / "scontrol"
        return done, asked.read_text() if asked.exists() else ""

    return run


@pytest.mark.parametrize(
    "code, asked", [(0, ""), (1, ""), (143, "requeue 7\n")]
)
def test_a_job_is_queued_again_after_sigterm_alone(slurm, code, asked):
    done, found = slurm(f"exit {code}")
    assert (done.returncode, found) == (code, asked)


def test_several_machines_train_with_all_workers(slurm):
    done, _ = slurm('echo "$@"', "--algo=uda", "--run_dir=a b", nodes=2)
    expected = (
        "python -m tf_metassl.train --algo=uda --run_dir=a b "
        "--strategy=multi_worker\n"
    )
    assert done.stdout == expected
    done, _ = slurm('echo "$@"', "--algo=uda")
    assert done.stdout == "python -m tf_metassl.train --algo=uda\n"


@pytest.mark.exhaustive
def test_a_job_that_was_stopped_resumes(slurm, tmp_path):
    """SIGTERM to the training, as 120 seconds before the end of a job."""
    run_dir = tmp_path / "run"
    flags = ("--num_steps=200", "--evaluate_every=20", f"--run_dir={run_dir}")
    stop = f"""
    "$@" & job=$!
    until compgen -G "{run_dir}/checkpoints/*/step-*" > /dev/null; do
      sleep 0.1
    done
    kill -TERM $job
    wait $job
    """
    done, asked = slurm(stop, "--algo=supervised", *flags)
    assert done.returncode == 143, done.stderr
    assert asked == "requeue 7\n"
    done, _ = slurm('"$@"', "--algo=supervised", *flags)
    assert done.returncode == 0, done.stderr
    assert "Resuming train at step" in done.stdout
    assert (run_dir / "results.json").exists()


def test_the_headers_ask_for_the_signal_and_the_queue():
    lines = (DEPLOY / "slurm.sbatch").read_text().splitlines()
    options = {line[8:] for line in lines if line.startswith("#SBATCH ")}
    assert {"--signal=TERM@120", "--requeue"} <= options


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_the_command_of_kubeflow_is_one_of_ours():
    (job,) = documents("kubeflow_tfjob.yaml")
    assert (job["kind"], job["apiVersion"]) == ("TFJob", "kubeflow.org/v1")
    workers = job["spec"]["tfReplicaSpecs"]["Worker"]
    assert workers["restartPolicy"] == "ExitCode"
    (container,) = workers["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow"
    python, module, name, *flags = container["command"]
    assert (python, module, name) == ("python", "-m", "tf_metassl.train")
    settings = command_line.parse(flags)
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(settings.run_dir).startswith(tuple(mounts))
    # What the operator sets in the second of the two workers.
    hosts = [f"tf-metassl-worker-{i}.default.svc:2222" for i in range(2)]
    config = {
        "cluster": {"worker": hosts},
        "task": {"type": "worker", "index": 1},
        "environment": "cloud",
    }
    found = cluster.for_strategy(
        settings.strategy, {"TF_CONFIG": json.dumps(config)}
    )
    assert len(found.workers) == workers["replicas"] and found.index == 1


def test_kserve_serves_tensorflow():
    (service,) = documents("kserve.yaml")
    assert service["kind"] == "InferenceService"
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"] == {"name": "tensorflow"}


def test_the_server_gets_the_folder_of_versions(tmp_path):
    base = tmp_path / "my photos"
    base.mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    executable(
        programs / "tensorflow_model_server", '#!/bin/bash\nprintf "%q " "$@"'
    )
    done = subprocess.run(
        ["bash", DEPLOY / "tensorflow_serving.sh", base],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert shlex.split(done.stdout) == [
        "--port=8500",
        "--rest_api_port=8501",
        "--model_name=my photos",
        f"--model_base_path={base}",
    ]


def test_every_file_says_what_was_run():
    page = (DEPLOY / "README.md").read_text()
    names = {p.name for p in DEPLOY.iterdir() if p.is_file()} - {"README.md"}
    assert all(f"[{name}]({name})" in page for name in names)
