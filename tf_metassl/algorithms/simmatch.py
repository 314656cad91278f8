"""SimMatch: Zheng et al., arXiv 2203.06915."""

import tensorflow as tf

from tf_metassl.algorithms.fixmatch import FixMatch
from tf_metassl.models.layers import perceptron
from tf_metassl.ops import projections, pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy


class SimMatch(FixMatch):
    """FixMatch whose views also agree on which labeled images are similar.

    A memory bank holds the embeddings and labels of labeled images. The weak
    view of an unlabeled image has a distribution over classes and one over the
    images in the bank. Each is corrected by the other. Then they are the
    targets of the strong view.
    """

    metric_names = (*FixMatch.metric_names, "instance_loss")
    reads_features = True
    can_accumulate = False  # The bank is that of the step before.

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        hp, classes = self.hyperparameters, self.num_classes
        size = self.student_and_features.outputs[0].shape[-1]
        self.projector = perceptron("projector", size, size, hp.projection_size)
        # The oldest image comes first. The label of an empty row is 0.
        self.bank = self.state_variable(
            "bank", (hp.bank_size, hp.projection_size)
        )
        self.bank_label = self.state_variable(
            "bank_label", (hp.bank_size, classes)
        )
        self.mean_probs = self.state_variable(
            "mean_probs", (classes,), 1.0 / classes
        )

    def trained_variables(self, role):
        """The student's variables and those of the projection head."""
        return [
            *super().trained_variables(role),
            *self.projector.trainable_variables,
        ]

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`; the bank is updated at the end."""
        hp = self.hyperparameters
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        label = self.one_hot(labeled["label"])  # [B, C]
        features, logits = self.forward(
            self.student_and_features,
            labeled["weak"],
            unlabeled["weak"],
            unlabeled["strong"],
        )
        embedding_l, embedding_w, embedding_s = (
            projections.normalized(self.projector(f)) for f in features
        )
        logits_l, logits_w, logits_s = logits
        pseudo_label, similar = propagated(
            self.uniformly_aligned(pseudo_labels.soft(logits_w)),
            pseudo_labels.soft(self.similarities(embedding_w)),
            tf.convert_to_tensor(self.bank_label.value),
            hp.semantic_share,
        )  # [U, C], [U, K]
        example_weight = self.example_weight(pseudo_label, unlabeled["index"])
        instance_loss = replicas.share_of_mean(
            cross_entropy(similar, self.similarities(embedding_s))
        )
        loss = self.matched_loss(
            batch, label, logits_l, logits_s, pseudo_label, example_weight
        )
        self.track_share("instance_loss", instance_loss)
        self.enqueue(tf.stop_gradient(embedding_l), label)
        return loss + hp.instance_loss_weight * instance_loss

    def similarities(self, embeddings):
        """Logits `[U, K]` of the images in the bank, for embeddings `[U, D]`.

        No gradient flows to the bank.
        """
        cosines = tf.matmul(
            embeddings, tf.convert_to_tensor(self.bank.value), transpose_b=True
        )
        is_filled = tf.reduce_sum(self.bank_label.value, axis=1)  # [K]
        temperature = self.hyperparameters.similarity_temperature
        return cosines / temperature + projections.NEVER * (1.0 - is_filled)

    def enqueue(self, embeddings, label):
        """Replaces the oldest images by those of the global batch.

        Args:
            embeddings: `[B, D]`, of this replica's labeled images.
            label: `[B, C]`, one-hot.
        """
        pairs = (self.bank, embeddings), (self.bank_label, label)
        for variable, rows in pairs:
            replicas.enqueue(variable, rows)


def propagated(probs, similarities, bank_label, semantic_share):
    """Corrects predictions by similarities and similarities by predictions.

    Source: the unfolding and the aggregation of the paper.

    Args:
        probs: `[U, C]`, p, predictions.
        similarities: `[U, K]`, q, distributions over the images in a bank.
        bank_label: `[K, C]`, one-hot labels of these images; a row of zeros is
            empty.
        semantic_share: alpha.

    Returns:
        `(pseudo_label, similar)` without gradient. `pseudo_label` `[U, C]` is
        alpha p + (1 - alpha) times the sum of q over the images of each class;
        `similar` `[U, K]` is q times p of each image's class, normalized. With
        an empty bank they are p and 0.
    """
    unfolded = similarities * tf.matmul(probs, bank_label, transpose_b=True)
    similar = tf.math.divide_no_nan(
        unfolded, tf.reduce_sum(unfolded, axis=1, keepdims=True)
    )
    # 0 with an empty bank, else 1.
    is_filled = tf.reduce_max(bank_label)
    share = (1.0 - semantic_share) * is_filled
    aggregated = tf.matmul(similarities, bank_label)
    pseudo_label = (1.0 - share) * probs + share * aggregated
    return tf.stop_gradient(pseudo_label), tf.stop_gradient(similar)
