"""Mean Teacher: Tarvainen and Valpola, arXiv 1703.01780."""

import tensorflow as tf

from tf_metassl.algorithms.consistency import Consistency, ConsistencyTerms
from tf_metassl.contract import Views
from tf_metassl.ops.losses import squared_error


class MeanTeacher(Consistency):
    """The averaged student's prediction for another view is the target.

    The decay of the average is `tf_metassl.ops.averaging.ramped_decay`, as in
    all methods; that of the released PyTorch code is min(decay, 1 - 1 / (t +
    1)). For the teacher's batch norm see `Consistency.teacher_logits`.
    """

    @property
    def views(self):
        """See `Algorithm.views`."""
        return Views(unlabeled=("weak_1", "weak_2"))

    def terms(self, batch):
        """See `Consistency.terms`."""
        unlabeled = batch["unlabeled"]
        labeled, student = self.student_pass(
            batch["labeled"]["weak"], unlabeled["weak_1"]
        )
        teacher_logits = self.teacher_logits(unlabeled["weak_2"])  # [U, C]
        losses = squared_error(
            tf.nn.softmax(teacher_logits), tf.nn.softmax(student.logits)
        )  # [U]
        return ConsistencyTerms(labeled, student, losses, teacher_logits)
