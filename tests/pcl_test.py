"""PCL: its loss and concentrations by hand, and when it clusters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import (
    IMAGE_SHAPE,
    NUM_IMAGES,
    all_values,
    assert_same,
    dataset_of,
    perturb,
    run,
    spied,
    tiny_algorithm,
    tiny_batch,
    tiny_network,
)
from tf_metassl import config
from tf_metassl.algorithms import pcl
from tf_metassl.errors import ConfigError
from tf_metassl.run import checkpoints, stage
from tf_metassl.run.build import build_experiment


class Predict:
    """What `prepare` and `begin_round` are called with."""

    unlabeled = np.arange(4, NUM_IMAGES)

    def __call__(self, network):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (NUM_IMAGES, *IMAGE_SHAPE), np.uint8)
        return network(images, training=False).numpy()


def clustering(**hp):
    """An algorithm that has 4 and 8 prototypes of its first round."""
    keras.utils.set_random_seed(1)
    hp = {"num_prototypes": 4, "num_clusterings": 2, "cluster_start": 0, **hp}
    algorithm = tiny_algorithm("pcl", **hp)
    for _, average in algorithm.averaged:
        perturb(average, seed=3)
    algorithm.begin_round(Predict())
    return algorithm


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_loss_by_hand(float64):
    algorithm = clustering(queue_size=20, contrast_temperature=0.4)
    index = 4 + 3 * np.arange(16)
    batch = tiny_batch()
    batch["unlabeled"]["index"] = tf.constant(index, tf.int64)
    queue = algorithm.queue.numpy()
    seen = spied(algorithm, "project", "keys")
    algorithm.compute_losses(batch)
    queries = unit(seen["project"][0].numpy())
    expected, of_prototypes = 0.0, 0.0
    for query, key, row in zip(
        queries, seen["keys"].numpy(), index, strict=True
    ):
        scores = np.append(queue @ query, key @ query) / 0.4
        expected += np.log(np.exp(scores).sum()) - scores[-1]
        for m in range(2):
            phi = algorithm.concentrations[m].numpy()
            scores = algorithm.prototypes[m].numpy() @ query / phi
            own = scores[algorithm.assignments[m].numpy()[row]]
            of_prototypes += (np.log(np.exp(scores).sum()) - own) / 2
    assert algorithm.metric("prototype_loss") == pytest.approx(
        of_prototypes / 16, rel=1e-6
    )
    assert algorithm.metric("representation_loss") == pytest.approx(
        (expected + of_prototypes) / 16, rel=1e-6
    )


def test_prototypes_are_means_of_the_targets_projections():
    algorithm = clustering()
    rows = Predict.unlabeled
    features = Predict()(lambda images, training: algorithm.keys(images))[rows]
    for m, size in enumerate((4, 8)):
        assigned = algorithm.assignments[m].numpy()[rows]
        assert set(assigned) == set(range(size))
        means = [features[assigned == k].mean(0) for k in range(size)]
        np.testing.assert_allclose(
            algorithm.prototypes[m], unit(np.stack(means)), rtol=1e-4, atol=1e-5
        )
        # Every image is nearest to the mean of its own cluster.
        distances = np.linalg.norm(features[:, None] - means, axis=-1)
        np.testing.assert_array_equal(distances.argmin(axis=1), assigned)
        np.testing.assert_allclose(
            algorithm.concentrations[m].numpy().mean(),
            algorithm.hyperparameters.contrast_temperature,
            rtol=1e-5,
        )


def test_concentration_on_paper():
    # Distances 1 and 3 from the first center; 2, 2 and 2 from the second.
    features = np.array([[1.0], [-3.0], [12.0], [8.0], [8.0], [50.0]])
    centers = np.array([[0.0], [10.0], [50.0]])
    assigned = np.array([0, 0, 1, 1, 1, 2])
    first, second = 4 / (2 * np.log(12)), 6 / (3 * np.log(13))
    # One image alone says nothing: the largest value.
    phi = np.array([first, second, first])
    phi = phi.clip(*np.percentile(phi, [10, 90]))
    np.testing.assert_allclose(
        pcl.concentration(features, centers, assigned, 0.2),
        0.2 * phi / phi.mean(),
    )
    assert phi[0] > phi[1]


def test_concentration_of_equal_images_and_of_an_empty_cluster():
    features, centers = np.zeros((4, 2)), np.zeros((2, 2))
    none = pcl.concentration(features, centers, np.array([0, 0, 1, 1]), 0.2)
    np.testing.assert_allclose(none, [0.2, 0.2])
    features[1] = 1.0
    one = pcl.concentration(features, centers, np.zeros(4, int), 0.2)
    np.testing.assert_allclose(one, [0.2, 0.2])


def test_entropy_of_clusters():
    assert pcl.entropy(np.full(8, 1 / 8)) == pytest.approx(1.0)
    assert pcl.entropy(np.array([1.0, 0.0, 0.0])) == 0.0
    assert pcl.entropy(np.array([0.5, 0.5, 0, 0])) == pytest.approx(0.5)


def test_k_means_depends_on_the_seed_alone(monkeypatch):
    features = np.random.default_rng(0).normal(size=(60, 3))
    for most in (100, 10):
        monkeypatch.setattr(pcl, "_MAX_WHOLE", most)
        first = pcl.clustered(features, 5, (1, 40, 0))
        np.random.rand()
        for one, two in zip(
            first, pcl.clustered(features, 5, (1, 40, 0)), strict=True
        ):
            np.testing.assert_array_equal(one, two)
        other, _ = pcl.clustered(features, 5, (1, 41, 0))
        assert np.abs(other - first[0]).max() > 1e-3


def test_no_gradient_reaches_prototypes_and_target():
    algorithm = clustering()
    fixed = [*algorithm.prototypes, *algorithm.concentrations, algorithm.queue]
    fixed += [v for _, average in algorithm.averaged for v in average.weights]
    with tf.GradientTape() as tape:
        for variable in fixed:
            tape.watch(variable.value)
        loss = algorithm.compute_losses(tiny_batch())
    gradients = tape.gradient(loss, [variable.value for variable in fixed])
    assert all(gradient is None for gradient in gradients)


def test_before_the_first_clustering_it_is_moco():
    results = []
    for name, hp in (("moco_v2", {}), ("pcl", {"cluster_start": 2})):
        keras.utils.set_random_seed(1)
        algorithm = tiny_algorithm(name, **hp)
        if name == "pcl":
            algorithm.begin_round(Predict())
        metrics = run(algorithm, tiny_batch(seed=0), tiny_batch(seed=1))
        results.append((all_values(algorithm), metrics))
    (moco, moco_metrics), (own, metrics) = results
    assert_same(moco, own)
    assert metrics["prototype_loss"] == 0
    assert metrics["representation_loss"] == pytest.approx(
        moco_metrics["representation_loss"]
    )


def test_prototypes_stay_until_the_next_round_and_are_then_of_that_step():
    algorithm = clustering()
    first = [p.numpy() for p in algorithm.prototypes]
    metrics = run(algorithm, tiny_batch(seed=0), tiny_batch(seed=1))
    assert 0 < metrics["prototype_entropy"] <= 1
    for old, new in zip(first, algorithm.prototypes, strict=True):
        np.testing.assert_array_equal(old, new)
    algorithm.begin_round(Predict())
    for old, new in zip(first, algorithm.prototypes, strict=True):
        assert np.abs(old - new.numpy()).max() > 1e-3
    # A resumed run begins the round again.
    second = [p.numpy() for p in algorithm.prototypes]
    algorithm.begin_round(Predict())
    for old, new in zip(second, algorithm.prototypes, strict=True):
        np.testing.assert_array_equal(old, new)


def test_clusters_are_part_of_a_checkpoint(tmp_path):
    first = clustering()
    run(first, tiny_batch(seed=0))
    path = checkpoints.save(tmp_path, first, 1, {})
    second = tiny_algorithm(
        "pcl", num_prototypes=4, num_clusterings=2, cluster_start=0
    )
    checkpoints.restore(path, second)
    metrics = [run(a, tiny_batch(seed=1)) for a in (first, second)]
    assert metrics[0] == metrics[1]
    assert metrics[0]["prototype_loss"] > 0
    assert_same(all_values(first), all_values(second))


def test_more_prototypes_than_images_are_refused():
    algorithm = tiny_algorithm("pcl", num_prototypes=20, num_clusterings=3)
    with pytest.raises(ConfigError, match="up to 80 prototypes of 60 unlab"):
        algorithm.prepare(Predict())


@pytest.mark.slow
def test_two_replicas_with_prototypes_equal_one(two_replicas, float64):
    results = []
    batches = [tiny_batch(16, 32, seed=seed) for seed in range(3)]
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            algorithm = clustering(
                network=lambda role: tiny_network(role, sync=True)
            )
        step = algorithm.make_train_function()
        iterator = iter(
            strategy.experimental_distribute_dataset(dataset_of(batches))
        )
        for _ in batches:
            metrics = step(iterator)
        results.append((all_values(algorithm), float(metrics["loss"])))
        (phi, *others) = strategy.experimental_local_results(
            algorithm.concentrations[0].value
        )
        assert all(np.array_equal(phi, other) for other in others)
    (one, loss), (two, loss_of_two) = results
    assert_same(one, two, rtol=1e-5, atol=1e-7)
    assert loss == pytest.approx(loss_of_two, rel=1e-6)


@pytest.mark.exhaustive
def test_a_run_clusters_in_rounds_and_after_a_kill(tmp_path, monkeypatch):
    """A kill within a round, and at its end, changes no number."""

    def trained(name, stop=None):
        resolved = config.resolve(
            {
                "algo": "pcl",
                "num_steps": 7,
                "evaluate_every": 7,
                "batch_size": 8,
                "num_prototypes": 4,
                "cluster_start": 2,
                "cluster_every": 3,
                "finetune_steps": 0,
                "verbose": 0,
            }
        )
        built = build_experiment(resolved)
        began, begin = [], built.algorithm.begin_round

        def spy(predict):
            step = built.algorithm.finished_steps
            began.append(step)
            if step == stop:
                raise KeyboardInterrupt
            begin(predict)

        built.algorithm.begin_round = spy
        folder = tmp_path / name
        main = stage.stages(built)[0]
        on_batch_end = stage.Recorder.on_train_batch_end

        def saving(self, batch, logs=None):
            on_batch_end(self, batch, logs)
            if self.model.finished_steps in (stop, 5):
                self.save(self._train_metrics())

        monkeypatch.setattr(stage.Recorder, "on_train_batch_end", saving)
        try:
            run = stage.StageRun(built, built.algorithm, main, folder, folder)
            stage.run_stage(run)
        finally:
            monkeypatch.setattr(
                stage.Recorder, "on_train_batch_end", on_batch_end
            )
        return began, run.metrics_file.rows()

    began, rows = trained("whole")
    assert began == [0, 3, 6]
    assert rows[0]["prototype_loss"] > 0
    with pytest.raises(KeyboardInterrupt):
        trained("killed", stop=6)
    again, rows_of_killed = trained("killed")
    assert again == [6]
    assert rows_of_killed == rows
