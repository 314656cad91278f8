"""Strategies by name, several workers, and evaluation that is exact."""

import json
import os
import subprocess
import types

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import NUM_CLASSES, tiny_algorithm, tiny_network
from tf_metassl.contract import DatasetInfo
from tf_metassl.data import pipeline, sources
from tf_metassl.errors import ConfigError
from tf_metassl.run import distribution
from tools import equivalence_table, kill_workers

pytestmark = pytest.mark.slow

# Two tests start processes that connect to each other.
SHORT = ("--num_steps=6", "--evaluate_every=3", "--batch_size=16")


@pytest.fixture
def workers_of(monkeypatch):
    """Sets TF_CONFIG to a cluster of so many workers."""

    def set_config(count):
        addresses = [f"127.0.0.1:{port}" for port in range(count)]
        task = {"type": "worker", "index": 0}
        value = {"cluster": {"worker": addresses}, "task": task}
        monkeypatch.setenv("TF_CONFIG", json.dumps(value))

    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return set_config


def test_auto_without_cluster_or_gpus_is_one_device(workers_of):
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1
    workers_of(1)
    assert distribution.make_strategy("auto").num_replicas_in_sync == 1


def test_auto_with_several_workers_is_multi_worker(workers_of, monkeypatch):
    asked = []
    monkeypatch.setattr(
        distribution, "_multi_worker", lambda cluster, *_: asked.append(cluster)
    )
    workers_of(2)
    distribution.make_strategy("auto")
    distribution.make_strategy("multi_worker")
    distribution.make_strategy("one_device")
    assert [len(cluster.workers) for cluster in asked] == [2, 2]


def test_multi_worker_without_a_cluster_says_what_is_missing(workers_of):
    with pytest.raises(ValueError, match="TF_CONFIG .* SLURM .* srun"):
        distribution.make_strategy("multi_worker")


@pytest.mark.parametrize("name", ("grpc://127.0.0.1:1", "local"))
def test_no_tpu_is_an_error_that_names_the_flag(name, monkeypatch):
    # Connecting would take TensorFlow minutes to give up.
    def fail(*_):
        raise tf.errors.NotFoundError(None, None, "No TPU devices\nin sight")

    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", fail)
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", fail)
    with pytest.raises(ValueError, match="--tpu=.*No TPU devices\\)"):
        distribution.make_strategy("tpu", tpu=name)


def test_xla_is_refused_where_it_cannot_sum_over_replicas(two_replicas):
    distribution.check_xla(tf.distribute.get_strategy())
    with pytest.raises(ValueError, match="--jit_compile=false"):
        distribution.check_xla(two_replicas)


def test_one_worker_alone_needs_nobody():
    strategy = tf.distribute.get_strategy()
    assert distribution.is_chief(strategy)
    assert distribution.num_workers(strategy) == 1
    assert distribution.worker_means(strategy, True, 0.5) == (True, 0.5)
    distribution.wait_for_all(strategy)


def test_sums_of_any_length_are_traced_twice(two_replicas):
    """TensorFlow warns of functions that are traced more often."""
    distribution._summing.cache_clear()
    function = distribution._summing(two_replicas)
    for length in range(1, 8):
        sums = function(tf.range(length, dtype=tf.float32))
        sums = two_replicas.experimental_local_results(sums)[0]
        np.testing.assert_array_equal(sums, 2 * np.arange(length))
    assert function.experimental_get_tracing_count() == 2


def test_errors_that_are_not_about_workers_stay_what_they_are():
    strategy = tf.distribute.get_strategy()
    with pytest.raises(tf.errors.UnavailableError):
        with distribution.lost_workers_named(strategy):
            raise tf.errors.UnavailableError(None, None, "gone")


@pytest.mark.parametrize("size", (1, 13, 16, 37))
def test_evaluation_of_any_number_of_images_is_exact(size, two_replicas):
    rng = np.random.default_rng(size)
    info = DatasetInfo("random", tuple("abc"), (6, 5, 1))
    images = sources.Images(
        rng.integers(0, 256, (size, *info.image_shape), np.uint8),
        rng.integers(0, NUM_CLASSES, size).astype(np.int32),
    )
    network = tiny_network()
    predicted = np.argmax(network(images.images), axis=1)
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES))
    np.add.at(expected, (images.labels, predicted), 1)
    one = tf.distribute.get_strategy()
    for strategy, steps_per_execution in (
        (one, 1),
        (one, 20),
        (two_replicas, 1),
        (two_replicas, 20),
    ):
        with strategy.scope():
            algorithm = tiny_algorithm(
                "supervised",
                ema_decay=0.0,
                steps_per_execution=steps_per_execution,
            )
            algorithm.student.set_weights(network.get_weights())
        data = distribution.distribute(
            strategy,
            lambda **shards: pipeline.evaluation_dataset(
                images, batch_size=8, **shards
            ),
        )
        steps = pipeline.evaluation_steps(size, 8)
        algorithm.evaluate(data, steps=steps, verbose=0)
        np.testing.assert_array_equal(algorithm.confusion("student"), expected)


def test_a_worker_reads_the_rows_of_its_own_replicas_alone():
    """The second of two workers with two replicas each."""

    class Strategy:
        num_replicas_in_sync = 4

        def distribute_datasets_from_function(self, function):
            return function(
                tf.distribute.InputContext(
                    num_input_pipelines=2,
                    input_pipeline_id=1,
                    num_replicas_in_sync=4,
                )
            )

    read = []

    class Recording(sources.Images):
        def gather(self, index):
            read.append(index.shape[0])
            return super().gather(index)

    labels = np.arange(64, dtype=np.int32) % 5
    images = Recording(np.zeros((64, 4, 4, 1), np.uint8), labels)
    data = distribution.distribute(
        Strategy(),
        lambda **shards: pipeline.evaluation_dataset(
            images, batch_size=32, **shards
        ),
    )
    # The dataset is traced once and reads a replica's eight rows at a time.
    assert read == [8]
    assert data.cardinality() == tf.data.INFINITE_CARDINALITY
    taken = [batch["label"].numpy() for batch in data.take(4)]
    rows = np.concatenate([np.arange(16, 32), np.arange(48, 64)])
    np.testing.assert_array_equal(np.concatenate(taken), rows % 5)


@pytest.mark.timeout(900)
def test_two_workers_equal_one_device_and_two_replicas(tmp_path):
    """Parameters to 1e-5 and every prediction on a test set of odd size."""
    algo, workers = "meta_semi", equivalence_table.WORKERS
    for ways in (["one device", "2 replicas"], [workers]):
        equivalence_table.run_variants([algo], ways, tmp_path, num_steps=6)
    one = equivalence_table.load(tmp_path, algo, "one device")
    assert one["confusion student"].sum() == 397
    for way in ("2 replicas", workers):
        other = equivalence_table.load(tmp_path, algo, way)
        found = equivalence_table.compare(other, one)
        assert found["variables"] < 1e-5, (way, found)
        assert found["loss"] < 1e-6, (way, found)
        assert found["confusion"] == 0, (way, found)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_a_killed_worker_ends_the_other_and_both_go_on(tmp_path):
    arguments = ("--algo=supervised", *SHORT)
    output = kill_workers.train(arguments, tmp_path / "whole")
    assert "multi_worker: 2 x CPU" in output
    expected = kill_workers.computed(tmp_path / "whole")
    killed = tmp_path / "killed"
    seconds, message = kill_workers.lose(arguments, killed, victim=1)
    assert seconds < kill_workers.LIMIT
    assert "Worker 0 has lost another worker" in message
    output = kill_workers.train(arguments, killed)
    assert "Resuming train at step" in output
    got = kill_workers.computed(killed)
    assert not kill_workers.differences(expected, got)


@pytest.mark.timeout(300)
def test_two_workers_with_other_settings_are_refused_by_name(tmp_path):
    """Two real workers; tests/rendezvous_test.py has the other cases."""
    (port, _) = kill_workers.free_ports(2)
    addresses = [f"127.0.0.1:{port}", "127.0.0.1:1"]
    processes = []
    for index, rate in enumerate((0.1, 0.2)):
        task = {"type": "worker", "index": index}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        processes.append(
            subprocess.Popen(
                kill_workers.command(
                    ["--algo=supervised", f"--learning_rate={rate}", *SHORT],
                    tmp_path / "run",
                ),
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
            )
        )
    for process in processes:
        _, text = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "Traceback" not in text
        assert "learning_rate: 0.1 on worker 0" in text
        assert f"0.2 on worker 1 ({addresses[1]})" in text
    assert not list(tmp_path.rglob("*.jsonl"))


def test_other_images_are_refused_by_worker_and_name(monkeypatch):
    class Strategy(types.SimpleNamespace):
        cluster_resolver = types.SimpleNamespace(
            task_id=0,
            cluster_spec=lambda: tf.train.ClusterSpec(
                {"worker": ["a:1", "b:1", "c:1"]}
            ),
        )

    def means_with(*others):
        """`worker_means` where the other workers have these facts."""

        def means(strategy, *values):
            total = np.array(values, np.float32)
            for index, facts in enumerate(others, start=1):
                sent = []
                with monkeypatch.context() as patch:
                    patch.setattr(Strategy.cluster_resolver, "task_id", index)
                    patch.setattr(
                        distribution,
                        "worker_means",
                        lambda _, *v, sent=sent: (
                            sent.append(v) or [1.0] * len(v)
                        ),
                    )
                    distribution.check_equal(strategy, facts)
                total += np.array(sent[0], np.float32)
            return tuple(total / np.float32(3))

        return means

    monkeypatch.setattr(distribution, "num_workers", lambda strategy: 3)
    facts = {"train_images": "abc", "test_images": "d", "splits": "e"}
    monkeypatch.setattr(distribution, "worker_means", means_with(facts, facts))
    distribution.check_equal(Strategy(), facts)
    for name in facts:
        other = {**facts, name: "zzz"}
        monkeypatch.setattr(
            distribution, "worker_means", means_with(facts, other)
        )
        with pytest.raises(ConfigError) as error:
            distribution.check_equal(Strategy(), facts)
        assert f"  {name}: '" in str(error.value)
        assert "on worker 2 (c:1)" in str(error.value)
        assert str(error.value).count("on worker 0") == 1
