"""FreeMatch: Wang et al., arXiv 2205.07246."""

import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.ops import averaging, replicas


class FreeMatch(FixMatch):
    """FixMatch with thresholds that adapt to the student's confidence.

    The global threshold is a running mean of the confidence. The threshold of a
    class is the global one times the running mean of the class's probability
    divided by the largest of these means. A fairness term spreads the
    predictions on strong views over the classes.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        shape, uniform = (self.num_classes,), 1.0 / self.num_classes
        self.mean_confidence = self.state_variable(
            "mean_confidence", (), uniform
        )
        self.mean_probs = self.state_variable("mean_probs", shape, uniform)
        self.label_share = self.state_variable("label_share", shape, uniform)

    can_accumulate = False  # Thresholds depend on the whole batch.

    def example_weight(self, probs, index):
        """See `FixMatch.example_weight`; the statistics are updated first."""
        del index
        confidence = tf.reduce_max(probs, axis=-1)  # [U]
        label = tf.argmax(probs, axis=-1)  # [U]
        decay = self.hyperparameters.statistics_decay
        for statistic, values in (
            (self.mean_confidence, confidence),
            (self.mean_probs, probs),
            (self.label_share, self.one_hot(label)),
        ):
            averaging.move(statistic, replicas.global_mean(values), decay)
        # The bounded mean is stored, as in USB's code.
        self.mean_confidence.assign(
            tf.minimum(
                self.mean_confidence.value,
                self.hyperparameters.max_confidence_threshold,
            )
        )
        threshold = tf.gather(self.thresholds(), label)
        return tf.cast(confidence >= threshold, probs.dtype)

    def thresholds(self):
        """The threshold of every class, `[C]`."""
        share = self.mean_probs.value / tf.reduce_max(self.mean_probs.value)
        return self.mean_confidence.value * share

    def additional_loss(self, logits, example_weight):
        """The fairness term: sum of p log q over classes.

        p is the running mean of the probabilities on weak views, q the mean
        probability on the selected strong views. Each is divided by the share
        of the images that are predicted to be of the class, then normalized.
        """
        if not self.hyperparameters.fairness_weight:
            return 0.0
        weight = example_weight[:, tf.newaxis]  # [U, 1]
        predicted = self.one_hot(tf.argmax(logits, axis=-1))
        # Counts instead of shares and sums instead of means: the normalization
        # cancels the factor. The sums are those of the global batch.
        sums, counts, selected = replicas.sum_over_replicas(
            [
                tf.reduce_sum(weight * tf.nn.softmax(logits), axis=0),
                tf.reduce_sum(weight * predicted, axis=0),
                tf.reduce_sum(example_weight),
            ]
        )
        p = _normalized(self.mean_probs.value, self.label_share.value)
        q = _normalized(sums, counts)
        fairness = tf.reduce_sum(p * tf.math.log(q + 1e-12))
        fairness = tf.where(selected > 0, fairness, 0.0)
        share = self.hyperparameters.fairness_weight / replicas.count()
        return share * fairness


def _normalized(probs, share):
    """`probs / share`, `[C]`, with sum 1; 0 where the share is 0."""
    scaled = tf.math.divide_no_nan(probs, share)
    return tf.math.divide_no_nan(scaled, tf.reduce_sum(scaled))
