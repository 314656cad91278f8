"""FlexMatch: Zhang et al., arXiv 2110.08263."""

import numpy as np
import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.ops import replicas


class FlexMatch(FixMatch):
    """FixMatch with lower thresholds for classes that are learned later.

    A table stores for each image the class that was last predicted with a
    confidence of at least `confidence_threshold`. The threshold of a class
    grows with the number of images that have it. The class with the most images
    has the full threshold, unless even more images have no class yet.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.confident_label = self.state_variable(
            "confident_label", (self.num_images,), -1, "int32"
        )
        # The table also has rows for images that are not in the pool.
        self.pool_size = self.state_variable(
            "pool_size", (), self.num_images, "float32"
        )

    def select_unlabeled(self, rows):
        """See `Algorithm.select_unlabeled`; stores the size of the pool."""
        self.pool_size.assign(float(np.unique(rows).size))
        return rows

    can_accumulate = False  # Thresholds depend on the whole batch.

    def example_weight(self, probs, index):
        """See `FixMatch.example_weight`."""
        threshold = self.hyperparameters.confidence_threshold
        confidence = tf.reduce_max(probs, axis=-1)  # [U]
        label = tf.argmax(probs, axis=-1, output_type=tf.int32)  # [U]
        scale = tf.cast(self.threshold_scale(), probs.dtype)  # [C]
        example_weight = tf.cast(
            confidence >= threshold * tf.gather(scale, label), probs.dtype
        )
        replicas.write_rows(
            self.confident_label,
            index,
            tf.where(
                confidence >= threshold,
                label,
                tf.gather(self.confident_label.value, index),
            ),
        )
        return example_weight

    def threshold_scale(self):
        """beta / (2 - beta) of every class, `[C]` float32.

        beta is the number of images whose stored class is this one, divided by
        the largest of these numbers and the number of images without a class.
        """
        # Images without a class have -1, which is in no segment.
        count = tf.math.unsorted_segment_sum(
            tf.ones([self.num_images]),
            self.confident_label.value,
            self.num_classes,
        )
        unused = self.pool_size.value - tf.reduce_sum(count)
        beta = count / tf.maximum(tf.reduce_max(count), unused)
        return beta / (2.0 - beta)
