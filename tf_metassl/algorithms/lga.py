"""Label gradient alignment: Jackson and Schulman, arXiv 1902.02336.

A reconstruction: of the paper, the abstract and its errors alone were at hand.
"""

import tensorflow as tf

from tf_metassl.algorithms.algorithm import float_images
from tf_metassl.algorithms.consistency import Consistency
from tf_metassl.algorithms.vat import Vat
from tf_metassl.meta import functional, label_gradients
from tf_metassl.ops import pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy


class Lga(Vat):
    """Learns imputed labels, which are moved so that gradients come nearer.

    Each unlabeled image has a label, a distribution over the classes. It starts
    as the prediction when the image is seen first. From then on, whenever the
    image is seen, the label takes a step down the squared distance of the
    gradient of the unlabeled loss from that of the labeled loss. The student is
    trained on the moved labels. A VAT loss is added.
    """

    metric_names = (*Consistency.metric_names, "vat_loss", "gradient_distance")
    can_accumulate = False  # Labels depend on the gradient of the whole batch.

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Rows of 0 have not been seen.
        self.imputed_labels = self.state_variable(
            "imputed_labels", (self.num_images, self.num_classes)
        )

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        label = self.one_hot(labeled["label"])
        images = float_images(unlabeled["weak"])

        with tf.GradientTape() as tape:
            (output,) = self.student_pass(labeled["weak"])
            losses = cross_entropy(label, output.logits)
            labeled_loss = replicas.share_of_mean(
                self.class_weighted(losses, label)
            )
        labeled_gradient = replicas.sum_over_replicas(
            self.gradients("student", tape, labeled_loss)
        )

        params = functional.parameters(self.student)
        state = functional.state(self.student)
        found = label_gradients.alignment(
            lambda params: self.still_pass(params, state, images).logits,
            lambda logits: self._imputed(unlabeled["index"], logits),
            params,
            labeled_gradient,
        )
        imputed = moved(
            found.label, found.derivative, hp.label_learning_rate
        )  # [U, C]
        replicas.write_rows(self.imputed_labels, unlabeled["index"], imputed)
        unlabeled_loss = replicas.share_of_mean(
            cross_entropy(imputed, found.logits)
        )
        loss = self.weighted_sum(labeled_loss, unlabeled_loss)
        if hp.vat_weight:
            vat_loss = replicas.share_of_mean(
                self.adversarial_losses(params, state, images, found.logits)
            )
            self.track_share("vat_loss", vat_loss)
            loss += hp.vat_weight * vat_loss

        self.track("gradient_distance", found.distance)
        self.track_labeled(labeled["label"], output.logits)
        self.track_pseudo_labels(unlabeled["oracle_label"], imputed)
        return loss

    def _imputed(self, index, logits):
        """The labels before this step, `[U, C]`.

        Args:
            index: `[U]` rows of the training set.
            logits: `[U, C]`, the predictions, the labels of images that have
                not been seen before.
        """
        stored = tf.gather(self.imputed_labels.value, index)
        seen = tf.reduce_sum(stored, axis=-1, keepdims=True) > 0
        return tf.where(seen, stored, pseudo_labels.soft(logits))


def moved(label, derivative, step):
    """Labels after a step down a derivative, on the simplex again.

    The length of a gradient falls by orders of magnitude as the labeled images
    are fitted. So the derivative, without its mean over the classes, which
    changes no label, is divided by its root mean square over the global batch.

    Args:
        label: `[U, C]` distributions.
        derivative: `[U, C]`.
        step: root mean square of the change of a label's entries.

    Returns:
        `[U, C]` distributions; `label` itself where all derivatives are 0.
    """
    slope = derivative - tf.reduce_mean(derivative, axis=-1, keepdims=True)
    square = replicas.global_mean(tf.reduce_mean(slope**2, axis=-1))
    direction = tf.math.divide_no_nan(slope, tf.sqrt(square))
    return pseudo_labels.on_simplex(label - step * direction)
