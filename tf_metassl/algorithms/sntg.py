"""Smooth Neighbors on Teacher Graphs: Luo et al., arXiv 1711.00258."""

import tensorflow as tf

from tf_metassl.algorithms.consistency import Consistency, NetworkOutput
from tf_metassl.algorithms.pi_model import PiModel
from tf_metassl.algorithms.temporal_ensembling import TemporalEnsembling
from tf_metassl.algorithms.vat import Vat
from tf_metassl.meta import functional
from tf_metassl.ops import replicas
from tf_metassl.ops.checks import check_rank, check_same_shape


class Sntg(Consistency):
    """Adds a loss to --sntg_base that pulls features of neighbors together.

    Two images are neighbors if they have the same class: the true label of a
    labeled image, the target of an unlabeled one. The features of unlabeled
    images come from one pass: that of the first view for the Pi-model, that of
    the unperturbed images for VAT. `pairs` differs from the paper's pairing.
    """

    metric_names = (*Consistency.metric_names, "neighbor_loss")
    reads_features = True

    def __new__(cls, *, hyperparameters, **kwargs):
        """Creates an instance of the class for --sntg_base."""
        if cls is Sntg:
            cls = _CLASSES[hyperparameters.sntg_base]
        return super().__new__(cls, hyperparameters=hyperparameters, **kwargs)

    def unlabeled_loss(self, batch, terms):
        """See `Consistency.unlabeled_loss`."""
        label = self.one_hot(batch["labeled"]["label"])
        size = self.num_classes
        target = tf.one_hot(
            tf.argmax(terms.target, -1), size, dtype=label.dtype
        )
        first, second = pairs(label, target)
        same = tf.reduce_sum(first * second, axis=-1)  # [P]
        first, second = pairs(terms.labeled.features, terms.unlabeled.features)
        neighbor_loss = replicas.share_of_mean(
            graph_losses(first, second, same)
        )
        self.track_share("neighbor_loss", neighbor_loss)
        return (
            super().unlabeled_loss(batch, terms)
            + self.hyperparameters.sntg_weight * neighbor_loss
        )

    def student_pass(self, *image_groups):
        """See `Consistency.student_pass`."""
        outputs = self.forward(self.student_and_features, *image_groups)
        if len(image_groups) == 1:
            outputs = [[values] for values in outputs]
        features, logits = outputs
        return [NetworkOutput(*o) for o in zip(logits, features, strict=True)]

    def still_pass(self, params, state, images):
        """See `Vat.still_pass`."""
        (features, logits), _ = functional.call(
            self.student_and_features, params, state, images
        )
        return NetworkOutput(logits, features)


class SntgPiModel(Sntg, PiModel):
    """SNTG on top of the Pi-model."""


class SntgTemporalEnsembling(Sntg, TemporalEnsembling):
    """SNTG on top of Temporal Ensembling."""


class SntgVat(Sntg, Vat):
    """SNTG on top of VAT."""


_CLASSES = {
    "pi_model": SntgPiModel,
    "temporal_ensembling": SntgTemporalEnsembling,
    "vat": SntgVat,
}


def pairs(labeled, unlabeled):
    """Pairs rows of a batch, in the same way on any number of replicas.

    The paper pairs the first half of a batch of labeled and unlabeled images
    with the second half. Here that is done in blocks of two labeled rows and
    their share of the unlabeled rows. With as many unlabeled as labeled images
    a block has four of each, so that there are pairs of both kinds, labeled
    with unlabeled and each with its own.

    Args:
        labeled: `[B, D]`, B even.
        unlabeled: `[U, D]`, U a multiple of B.

    Returns:
        Two tensors `[(B + U) / 2, D]`.

    Raises:
        ValueError: if B is odd, or no multiple of 4 with U = B.
    """
    size, width = labeled.shape
    equal = unlabeled.shape[0] == size
    if size % (4 if equal else 2):
        number = "a multiple of 4" if equal else "an even number"
        raise ValueError(
            f"SNTG pairs images and got {size} labeled ones per replica. Use "
            f"a --batch_size that is {number} for each replica."
        )
    blocks = [
        tf.reshape(rows, [size // (4 if equal else 2), -1, width])
        for rows in (labeled, unlabeled)
    ]
    rows = tf.concat(blocks, axis=1)
    if equal:
        # Labeled 0 to 3, unlabeled 4 to 7: (0, 2), (1, 6), (4, 3), (5, 7).
        rows = tf.gather(rows, [0, 1, 4, 5, 2, 6, 3, 7], axis=1)
    halves = tf.split(rows, 2, axis=1)
    return [tf.reshape(half, [-1, width]) for half in halves]


def graph_losses(first, second, same):
    """Contrastive loss of pairs, with margin 1.

    Args:
        first: `[P, F]` features.
        second: `[P, F]` features.
        same: `[P]`, 1 for neighbors and 0 for others.

    Returns:
        `[P]`: d^2 or max(0, 1 - d)^2, where d^2 is the squared difference
        averaged over the features.

    Source: Luo et al., arXiv 1711.00258, equation 6, with the distance of the
    released code.
    """
    check_rank("same", same, 1)
    check_same_shape(first=first, second=second)
    first, second = (tf.cast(f, same.dtype) for f in (first, second))
    square = tf.reduce_mean((first - second) ** 2, axis=-1)
    # A square root has no finite gradient at 0.
    distance = tf.sqrt(tf.maximum(square, 1e-12))
    apart = tf.nn.relu(1.0 - distance) ** 2
    return same * square + (1.0 - same) * apart
