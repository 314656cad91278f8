"""Reduced Meta Pseudo Labels: arXiv 2003.10580, appendix.

For teachers that do not fit into memory together with their student.
"""

import keras
import tensorflow as tf
from keras import layers

from tf_metassl.algorithms.algorithm import Stage
from tf_metassl.algorithms.meta_pseudo_labels import (
    MetaPseudoLabels,
    TeacherLogits,
)
from tf_metassl.algorithms.uda import Uda
from tf_metassl.contract import Views


class ReducedMetaPseudoLabels(Uda):
    """Trains a large teacher with UDA, then a student with its predictions.

    This class is the main stage, which trains the large teacher. The later
    stages are those of `ReducedStudent`.
    """

    has_one_loss = False  # The student's stage is a meta step.

    def later_stages(self):
        """The student's stage, and its finetuning."""
        hp = self.hyperparameters
        student = []

        def build():
            # For the reason that `NoisyStudent.later_stages` gives.
            keras.utils.set_random_seed(self._seed + 1)
            student.append(self.rebuild(hp.student_steps, cls=ReducedStudent))
            student[0].learn_from(self.deployable_model)
            return student[0]

        def finetuner():
            return student[0].later_stages()[0].build()

        stages = [Stage("student", hp.student_steps, build)]
        if hp.finetune_steps:
            stages.append(
                Stage(
                    "finetune",
                    hp.finetune_steps,
                    finetuner,
                    hp.finetune_batch_size,
                )
            )
        return stages


class ReducedStudent(MetaPseudoLabels):
    """Meta Pseudo Labels whose teacher corrects a frozen network's predictions.

    The large teacher predicts every image once. The teacher that learns from
    the student's feedback is a small perceptron on these predictions. Its
    labels do not depend on the view, so that there is no UDA loss.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # For the reason that `NoisyStudent.__init__` gives.
        self._large_teacher = None
        self.predictions = self.state_variable(
            "predictions", (self.num_images, self.num_classes)
        )

    @classmethod
    def build_networks(cls, build, num_classes):
        """See `Algorithm.build_networks`."""
        return {"student": build("student"), "teacher": corrector(num_classes)}

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(labeled=("weak",), unlabeled=("strong",))

    @property
    def evaluated_networks(self):
        """The student and its average; the teacher sees no images."""
        networks = super().evaluated_networks
        return {k: v for k, v in networks.items() if k != "teacher"}

    def learn_from(self, teacher):
        """Makes a network the large teacher. Call it before the first step."""
        self._large_teacher = lambda: teacher

    def prepare(self, predict):
        """See `Algorithm.prepare`."""
        self.predictions.assign(predict(self._large_teacher()))

    def teacher_pass(self, labeled, unlabeled):
        """See `MetaPseudoLabels.teacher_pass`."""
        logits_l, logits_u = self.forward(
            self.teacher,
            *(
                tf.gather(self.predictions.value, group["index"])
                for group in (labeled, unlabeled)
            ),
        )
        return TeacherLogits(logits_l, logits_u, logits_u)


def corrector(num_classes, units=64):
    """A perceptron with one hidden layer on a network's predictions.

    Its output is added to the predicted log-probabilities. The output is 0 at
    first, so that the small teacher starts with the predictions of the large
    one; the paper gives no initialization (reconstruction).

    Args:
        num_classes: C.
        units: of the hidden layer.

    Returns:
        A built Keras model, logits `[N, C]` -> logits `[N, C]`.
    """
    dtype = keras.config.floatx()
    logits = keras.Input((num_classes,), dtype=dtype)
    x = layers.Softmax(dtype=dtype)(logits)
    x = layers.Dense(units, activation="leaky_relu")(x)
    change = layers.Dense(
        num_classes, kernel_initializer="zeros", dtype=dtype, name="logits"
    )(x)
    log_probs = layers.Activation("log_softmax", dtype=dtype)(logits)
    return keras.Model(
        logits, layers.Add(dtype=dtype)([log_probs, change]), name="teacher"
    )
