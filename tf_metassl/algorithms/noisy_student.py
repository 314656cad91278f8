"""Noisy Student: Xie, Luong, Hovy, Le, arXiv 1911.04252."""

import keras
import numpy as np
import tensorflow as tf

from tf_metassl.algorithms.algorithm import TWO_LOSSES, Algorithm, Stage
from tf_metassl.contract import Views
from tf_metassl.ops import pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy, smooth_labels

_PSEUDO_LABELS = {"soft": pseudo_labels.soft, "one_hot": pseudo_labels.one_hot}


class NoisyStudent(Algorithm):
    """Rounds in which a new student learns the predictions of the last one.

    The main stage trains the first teacher on the labeled images. At the start
    of every round the teacher labels the unlabeled pool once, on clean images
    and without dropout. The student is trained on the labeled images and on the
    confident unlabeled ones, the same number of each class. Its noise is strong
    augmentation and, with --dropout, dropout.
    """

    metric_names = TWO_LOSSES
    # What the student learns of each image.
    view = "strong"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # A function, because Keras would add the variables of a network to
        # this one's, and so to its checkpoints.
        self._teacher = None
        self.predictions = self.state_variable(
            "predictions", (self.num_images, self.num_classes)
        )

    @property
    def views(self):
        """See `Algorithm.views`."""
        unlabeled = (self.view,) if self._teacher else ()
        return Views(labeled=(self.view,), unlabeled=unlabeled)

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        hp = self.hyperparameters
        labeled = batch["labeled"]
        label = self.one_hot(labeled["label"])
        smoothed = smooth_labels(label, hp.label_smoothing)
        if self._teacher is None:
            logits = self.forward(self.student, labeled[self.view])
            self.track_labeled(labeled["label"], logits)
            losses = cross_entropy(smoothed, logits)
            return replicas.share_of_mean(self.class_weighted(losses, label))

        unlabeled = batch["unlabeled"]
        logits_l, logits_u = self.forward(
            self.student, labeled[self.view], unlabeled[self.view]
        )
        pseudo_label = _PSEUDO_LABELS[hp.pseudo_label](
            tf.gather(self.predictions.value, unlabeled["index"])
        )  # [U, C]
        losses = cross_entropy(smoothed, logits_l)
        labeled_loss = replicas.share_of_mean(
            self.class_weighted(losses, label)
        )
        unlabeled_loss = replicas.share_of_mean(
            cross_entropy(pseudo_label, logits_u)
        )

        self.track_share("labeled_loss", labeled_loss)
        self.track_share("unlabeled_loss", unlabeled_loss)
        self.track_labeled(labeled["label"], logits_l)
        self.track_pseudo_labels(unlabeled["oracle_label"], pseudo_label)
        return labeled_loss + hp.unlabeled_loss_weight * unlabeled_loss

    def later_stages(self):
        """The rounds; the student of one is the teacher of the next."""
        hp = self.hyperparameters
        teachers = [self]

        def build():
            # The initial weights depend on the round only, not on what this
            # process did before, so that a resumed run has the same ones.
            keras.utils.set_random_seed(self._seed + len(teachers))
            student = self.rebuild(hp.round_steps)
            student.learn_from(teachers[-1].deployable_model)
            teachers.append(student)
            return student

        return [
            Stage(f"round_{number}", hp.round_steps, build)
            for number in range(1, hp.num_rounds + 1)
        ]

    def learn_from(self, teacher):
        """Makes a network the teacher. Call it before the first step."""
        self._teacher = lambda: teacher

    def prepare(self, predict):
        """See `Algorithm.prepare`."""
        if self._teacher:
            self.predictions.assign(predict(self._teacher()))

    def select_unlabeled(self, rows):
        """See `Algorithm.select_unlabeled`."""
        if self._teacher is None:
            return rows
        hp = self.hyperparameters
        logits = tf.convert_to_tensor(self.predictions.value).numpy()[rows]
        chosen = balanced(
            tf.nn.softmax(logits).numpy(),
            hp.confidence_threshold,
            hp.images_per_class or -(-len(rows) // self.num_classes),
        )
        if not chosen.size:
            raise ValueError(
                "The teacher predicts no unlabeled image with a confidence of "
                f"--confidence_threshold={hp.confidence_threshold}. Lower it, "
                "and add --allow_changed=confidence_threshold to continue the "
                "run in --run_dir."
            )
        return rows[chosen]


def balanced(probs, threshold, images_per_class):
    """Selects the same number of images of each predicted class.

    Args:
        probs: `[M, C]` array of probabilities.
        threshold: images whose largest probability is lower are not selected.
        images_per_class: how many. If a class has more images, the most
            confident ones are selected; if it has fewer, its images are
            repeated; if it has none, it is left out.

    Returns:
        Positions in 0...M-1, class by class.
    """
    label, confidence = probs.argmax(axis=1), probs.max(axis=1)
    ordered = np.argsort(-confidence, kind="stable")
    ordered = ordered[confidence[ordered] >= threshold]
    parts = []
    for name in range(probs.shape[1]):
        members = ordered[label[ordered] == name]
        if members.size:
            parts.append(np.resize(members, images_per_class))
    return np.concatenate(parts) if parts else ordered
