"""PCL: Li, Zhou, Xiong, Hoi, arXiv 2005.04966."""

import numpy as np
import sklearn.cluster
import tensorflow as tf
import threadpoolctl

from tf_metassl.algorithms.moco_v2 import MoCoV2
from tf_metassl.errors import ConfigError
from tf_metassl.ops import projections

# Beyond, k-means takes random batches of the images.
_MAX_WHOLE = 50_000
# Alpha of the paper, so that small clusters do not have a large phi.
_SMOOTHING = 10


class Pcl(MoCoV2):
    """MoCo whose queries also have to find the prototype of their image.

    In the E-step, every `cluster_every` steps, the target's projections of all
    unlabeled images are clustered several times, with growing numbers of
    clusters. The M-step is training: a query is compared with the center of
    its image's cluster among the centers of all clusters, in each clustering.

    A clustering is remembered until the next one, so that a run can be resumed
    in between.
    """

    metric_names = (
        *MoCoV2.metric_names,
        "prototype_loss",
        "prototype_entropy",
    )

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        hp = self.hyperparameters
        self.sizes = [
            hp.num_prototypes * 2**m for m in range(hp.num_clusterings)
        ]
        # 0 until images have been clustered, then 1.
        self.has_prototypes = self.state_variable("has_prototypes", ())
        self.prototype_entropy = self.state_variable("prototype_entropy", ())
        self.prototypes, self.concentrations, self.assignments = [], [], []
        for size in self.sizes:
            self.prototypes.append(
                self.state_variable(
                    f"prototypes_{size}", (size, hp.projection_size)
                )
            )
            self.concentrations.append(
                self.state_variable(f"concentrations_{size}", (size,), 1.0)
            )
            self.assignments.append(
                self.state_variable(
                    f"assignments_{size}", (self.num_images,), 0, "int64"
                )
            )

    def representation_losses(self, first, second, index):
        """See `SelfSupervised.representation_losses`."""
        (queries,) = self.project(first)
        return self.instance_losses(
            queries, self.keys(second)
        ) + self.prototype_losses(queries, index)

    def prototype_losses(self, queries, index):
        """Compares queries with prototypes; 0 before the first clustering.

        Args:
            queries: `[U, D]`, the student's projections.
            index: `[U]` int64, their images' rows.

        Returns:
            `[U]`, the mean over all clusterings.
        """
        losses = [
            projections.prototype_contrast(
                queries,
                tf.convert_to_tensor(prototypes.value),
                tf.convert_to_tensor(concentrations.value),
                tf.gather(assignments.value, index),
            )
            for prototypes, concentrations, assignments in zip(
                self.prototypes,
                self.concentrations,
                self.assignments,
                strict=True,
            )
        ]
        active = tf.convert_to_tensor(self.has_prototypes.value)
        mean = active * tf.add_n(losses) / len(losses)
        every = active * tf.ones_like(mean)
        entropy = self.prototype_entropy.value * tf.ones_like(mean)
        self.track("prototype_loss", mean, every)
        self.track("prototype_entropy", entropy, every)
        return mean

    # The E-step.

    @property
    def round_length(self):
        """See `Algorithm.round_length`."""
        return self.hyperparameters.cluster_every

    def prepare(self, predict):
        """See `Algorithm.prepare`.

        Raises:
            ConfigError: if there are more prototypes than images.
        """
        super().prepare(predict)
        count = len(np.unique(predict.unlabeled))
        if self.sizes[-1] > count:
            hp = self.hyperparameters
            raise ConfigError(
                f"--num_prototypes={hp.num_prototypes} and --num_clusterings="
                f"{hp.num_clusterings} ask for up to {self.sizes[-1]} "
                f"prototypes of {count} unlabeled images. Lower one of them."
            )

    def begin_round(self, predict):
        """Clusters the unlabeled images, see `Algorithm.begin_round`."""
        step = self.finished_steps
        if step < self.hyperparameters.cluster_start:
            return
        rows = np.unique(predict.unlabeled)
        # In inference mode and on clean images, as in the authors' code.
        features = predict(lambda images, training: self.keys(images))[rows]
        shares = []
        for m, size in enumerate(self.sizes):
            centers, assigned = clustered(features, size, (self._seed, step, m))
            phi = concentration(
                features,
                centers,
                assigned,
                self.hyperparameters.contrast_temperature,
            )
            length = np.linalg.norm(centers, axis=1, keepdims=True)
            self.prototypes[m].assign(centers / np.maximum(length, 1e-12))
            self.concentrations[m].assign(phi)
            table = np.zeros(self.num_images, np.int64)
            table[rows] = assigned
            self.assignments[m].assign(table)
            shares.append(np.bincount(assigned, minlength=size) / len(rows))
        self.prototype_entropy.assign(np.mean([entropy(s) for s in shares]))
        self.has_prototypes.assign(1.0)


def clustered(features, num_clusters, seed):
    """k-means, the same in every process.

    Args:
        features: `[M, D]` array.
        num_clusters: K, at most M.
        seed: tuple of non-negative integers.

    Returns:
        `(centers, assigned)`: `[K, D]` array, the means of the clusters, and
        `[M]` int64, the cluster of each row.
    """
    many = len(features) > _MAX_WHOLE
    method = sklearn.cluster.MiniBatchKMeans if many else sklearn.cluster.KMeans
    state = np.random.SeedSequence(seed).generate_state(1)[0]
    # Threads add up the rows of a cluster in an order of their own.
    with threadpoolctl.threadpool_limits(1):
        fitted = method(num_clusters, n_init=1, random_state=int(state)).fit(
            features
        )
    return fitted.cluster_centers_, fitted.labels_.astype(np.int64)


def concentration(features, centers, assigned, temperature):
    """How near the images of each cluster are to its center, phi.

    Of a cluster with Z images, the sum of their distances from its center over
    Z log(Z + 10). A cluster of one image, or none, gets the largest value. All
    are clipped to the range from the tenth to the ninetieth percentile and
    scaled such that their mean is the temperature.

    Args:
        features: `[M, D]` array.
        centers: `[K, D]` array.
        assigned: `[M]` integers.
        temperature: of the contrastive loss.

    Returns:
        `[K]` array of the features' dtype.

    Source: Li et al., arXiv 2005.04966, equation 12; the largest value and the
    percentiles are those of the authors' code.
    """
    distances = np.linalg.norm(features - centers[assigned], axis=1)
    count = np.bincount(assigned, minlength=len(centers))
    total = np.bincount(assigned, distances, minlength=len(centers))
    phi = total / np.maximum(count * np.log(count + _SMOOTHING), 1.0)
    phi = np.where(count > 1, phi, phi.max())
    phi = phi.clip(*np.percentile(phi, [10, 90]))
    if not phi.any():
        # All images of a cluster are alike.
        phi = np.ones_like(phi)
    return (temperature * phi / phi.mean()).astype(features.dtype)


def entropy(share):
    """The entropy of shares `[K]`, in units of log K: 1 if all are equal."""
    positive = share[share > 0]
    return float(-np.sum(positive * np.log(positive)) / np.log(len(share)))
