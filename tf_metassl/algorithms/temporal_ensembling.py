"""Temporal Ensembling: Laine and Aila, arXiv 1610.02242."""

import tensorflow as tf

from tf_metassl.algorithms.consistency import Consistency, ConsistencyTerms
from tf_metassl.contract import Views
from tf_metassl.ops import replicas
from tf_metassl.ops.losses import squared_error


class TemporalEnsembling(Consistency):
    """The target of an image is the average of its earlier predictions.

    The pipeline yields each unlabeled image once per epoch. An update at that
    step is therefore the same as the paper's update at the end of the epoch.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.ensemble = self.state_variable(
            "ensemble", (self.num_images, self.num_classes)
        )
        self.num_predictions = self.state_variable(
            "num_predictions", (self.num_images,)
        )

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(unlabeled=("weak",))

    def terms(self, batch):
        """See `Consistency.terms`."""
        labeled, unlabeled = self.student_pass(
            batch["labeled"]["weak"], batch["unlabeled"]["weak"]
        )
        probs = tf.nn.softmax(unlabeled.logits)  # [U, C]
        target = self._target_and_update(
            batch["unlabeled"]["index"], tf.stop_gradient(probs)
        )
        losses = squared_error(target, probs)  # [U]
        return ConsistencyTerms(labeled, unlabeled, losses, target)

    def _target_and_update(self, index, probs):
        """The averages of the earlier predictions; adds the current ones.

        Args:
            index: `[U]` rows of the training set.
            probs: `[U, C]`, the current predictions without gradient.

        Returns:
            `[U, C]`, the averages before the update. For an image without an
            earlier prediction it is `probs`, so that its loss is 0.
        """
        momentum = self.hyperparameters.ensemble_momentum
        ensemble = tf.gather(self.ensemble.value, index)  # [U, C]
        count = tf.gather(self.num_predictions.value, index)  # [U]
        # The bias of starting at 0 is corrected, as in Adam.
        correction = 1.0 - tf.pow(tf.cast(momentum, count.dtype), count)
        corrected = tf.math.divide_no_nan(ensemble, correction[:, tf.newaxis])
        replicas.write_rows(
            self.ensemble,
            index,
            momentum * ensemble + (1.0 - momentum) * probs,
        )
        replicas.write_rows(self.num_predictions, index, count + 1.0)
        return tf.where(count[:, tf.newaxis] > 0, corrected, probs)
