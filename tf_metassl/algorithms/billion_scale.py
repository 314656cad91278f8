"""Billion-scale semi-supervised learning: Yalniz et al., arXiv 1905.00546."""

import keras
import numpy as np
import tensorflow as tf

from tf_metassl.algorithms import finetuning
from tf_metassl.algorithms.algorithm import Stage
from tf_metassl.algorithms.noisy_student import NoisyStudent
from tf_metassl.contract import Views
from tf_metassl.ops import pseudo_labels, replicas
from tf_metassl.ops.losses import cross_entropy


class BillionScale(NoisyStudent):
    """A student of the images that a teacher ranks first for each class.

    The main stage trains the teacher on the labeled images. Then the teacher
    ranks the unlabeled images for every class once, and a new student is
    trained on the first of each class, with that class as label and without the
    labeled images. The last stage finetunes the student on the labeled images.
    """

    view = "weak"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.ranked = self.state_variable(
            "ranked", (self.num_images, self.num_classes)
        )

    @property
    def views(self):
        """See `Algorithm.views`."""
        if self._teacher is None:
            return Views(labeled=(self.view,))
        return Views(labeled=(), unlabeled=(self.view,))

    def compute_losses(self, batch):
        """See `Algorithm.compute_losses`."""
        if self._teacher is None:
            return super().compute_losses(batch)
        unlabeled = batch["unlabeled"]
        logits = self.forward(self.student, unlabeled[self.view])  # [U, C]
        # An image that is among the first of several classes is as often in
        # the pool; each time one of them is its label.
        classes = tf.gather(self.ranked.value, unlabeled["index"])
        pseudo_label = pseudo_labels.sampled(
            tf.math.log(tf.maximum(classes, 1e-30)), unlabeled["label_draw"]
        )
        loss = replicas.share_of_mean(cross_entropy(pseudo_label, logits))
        self.track_share("unlabeled_loss", loss)
        self.track_pseudo_labels(unlabeled["oracle_label"], pseudo_label)
        return loss

    def later_stages(self):
        """The student's stage, and its finetuning."""
        hp, student = self.hyperparameters, []

        def build():
            # For the reason that `NoisyStudent.later_stages` gives.
            keras.utils.set_random_seed(self._seed + 1)
            student.append(self.rebuild(hp.student_steps))
            student[0].learn_from(self.deployable_model)
            return student[0]

        stages = [Stage("student", hp.student_steps, build)]
        if hp.finetune_steps:
            stages.append(
                Stage(
                    "finetune",
                    hp.finetune_steps,
                    lambda: finetuning.finetuner(
                        student[0], hp.finetune_learning_rate
                    ),
                )
            )
        return stages

    def select_unlabeled(self, rows):
        """See `Algorithm.select_unlabeled`; fills `ranked`, too."""
        if self._teacher is None:
            return rows
        hp = self.hyperparameters
        logits = tf.convert_to_tensor(self.predictions.value).numpy()[rows]
        ranked = first_of_each_class(
            tf.nn.softmax(logits).numpy(),
            hp.images_per_class or -(-len(rows) // (2 * self.num_classes)),
            hp.classes_per_image,
        )
        table = np.zeros(self.ranked.shape, np.float32)
        table[rows] = ranked
        self.ranked.assign(table)
        return np.repeat(rows, ranked.sum(axis=1))


def first_of_each_class(probs, images_per_class, classes_per_image):
    """Which images are ranked first for which class.

    Args:
        probs: `[M, C]` array of probabilities.
        images_per_class: K, how many images of each class are taken.
        classes_per_image: P; an image is ranked for its P most probable
            classes only.

    Returns:
        `[M, C]` bool array, with at most K images of a class; fewer if it is
        among the P classes of fewer.
    """
    count = min(classes_per_image, probs.shape[1])
    order = np.argsort(-probs, axis=1, kind="stable")[:, :count]
    is_listed = np.zeros(probs.shape, bool)
    np.put_along_axis(is_listed, order, True, axis=1)
    scores = np.where(is_listed, probs, -1.0)
    first = np.argsort(-scores, axis=0, kind="stable")[:images_per_class]
    is_first = np.zeros(probs.shape, bool)
    np.put_along_axis(is_first, first, True, axis=0)
    return is_first & is_listed
