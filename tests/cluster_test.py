"""TF_CONFIG and SLURM's variables, made up."""

import json

import pytest

from tf_metassl.run.cluster import Cluster, from_environment


def tf_config(cluster, kind="worker", index=0):
    task = {"type": kind, "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


SLURM = {
    "SLURM_STEP_NODELIST": "n[2,10-11],gpu7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
    "SLURM_PROCID": "4",
    "SLURM_JOB_ID": "1000",
}


def test_workers_of_tf_config():
    cluster = from_environment(tf_config({"worker": ["a:1", "b:2"]}, index=1))
    assert cluster == Cluster(("a:1", "b:2"), 1)
    assert not cluster.is_chief


@pytest.mark.parametrize(
    "kind, index, place", [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)]
)
def test_a_chief_is_the_first_worker(kind, index, place):
    jobs = {"worker": ["a:1", "b:2"], "chief": ["c:3"]}
    cluster = from_environment(tf_config(jobs, kind, index))
    assert cluster == Cluster(("c:3", "a:1", "b:2"), place)
    assert cluster.is_chief == (kind == "chief")


@pytest.mark.parametrize(
    "text, message",
    [
        ("no JSON", "TF_CONFIG must be like"),
        ("[]", "TF_CONFIG must be like"),
        ('{"cluster": {}}', "TF_CONFIG must be like"),
        (tf_config({"worker": ["a:1"]}, index=1)["TF_CONFIG"], "worker 1"),
        (
            tf_config({"worker": ["a:1"], "ps": ["b:1"]})["TF_CONFIG"],
            "the jobs ps",
        ),
    ],
)
def test_what_tf_config_cannot_mean(text, message):
    with pytest.raises(ValueError, match=message):
        from_environment({"TF_CONFIG": text})


def test_slurm_ranks_follow_the_list_of_nodes():
    port = 10_000 + 64_000 % 20_000
    hosts = ["n2", "n2", "n10", "n10", "n11", "n11", "gpu7"]
    local = [0, 1, 0, 1, 0, 1, 0]
    workers = tuple(
        f"{host}:{port + i}" for host, i in zip(hosts, local, strict=True)
    )
    assert from_environment(SLURM) == Cluster(workers, 4)


def test_slurm_keeps_leading_zeros():
    changes = {
        "SLURM_STEP_NODELIST": "r[08-10]",
        "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
        "SLURM_PROCID": "0",
    }
    workers = from_environment(SLURM | changes).workers
    assert [w.split(":")[0] for w in workers] == ["r08", "r09", "r10"]


def test_slurm_variables_that_do_not_fit():
    with pytest.raises(ValueError, match="SLURM_PROCID=9, but .* 7 tasks"):
        from_environment(SLURM | {"SLURM_PROCID": "9"})
    without = {k: v for k, v in SLURM.items() if k != "SLURM_PROCID"}
    with pytest.raises(ValueError, match="SLURM_PROCID.*srun"):
        from_environment(without)


def test_tf_config_wins_and_nothing_is_none():
    both = SLURM | tf_config({"worker": ["a:1"]})
    assert from_environment(both) == Cluster(("a:1",), 0)
    assert from_environment({}) is None
    assert from_environment({"TF_CONFIG": ""}) is None
