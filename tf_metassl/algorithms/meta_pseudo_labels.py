"""Meta Pseudo Labels: Pham, Dai, Xie, Luong, Le, arXiv 2003.10580."""

import typing

import tensorflow as tf

from tf_metassl.algorithms import finetuning
from tf_metassl.algorithms.algorithm import Algorithm, Stage
from tf_metassl.contract import Views
from tf_metassl.meta import feedback as feedback_lib
from tf_metassl.meta import functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.models import layers
from tf_metassl.ops import pseudo_labels, replicas
from tf_metassl.ops.losses import (
    consistency_cross_entropy,
    cross_entropy,
    smooth_labels,
)


class TeacherLogits(typing.NamedTuple):
    """The teacher's logits for a batch.

    Attributes:
        labeled: `[B, C]`, for the labeled images.
        weak: `[U, C]`, for the weak view of the pseudo-labeled images.
        student_view: `[U, C]`, for the view of them that the student sees.
    """

    labeled: tf.Tensor
    weak: tf.Tensor
    student_view: tf.Tensor


class StudentBefore(typing.NamedTuple):
    """The student before its step, with its losses as functions.

    Both functions use the dropout masks and batch-norm averages that the
    student had before the step.

    Attributes:
        params: theta_S, a list of tensors.
        learning_rate: eta_S at this step, a scalar.
        losses_at: `params, target -> ([U], new_state)` on pseudo-labels.
        labeled_loss_at: `params -> scalar`, this replica's share.
    """

    params: list[tf.Tensor]
    learning_rate: tf.Tensor
    losses_at: typing.Callable
    labeled_loss_at: typing.Callable


class MetaPseudoLabels(Algorithm):
    """A teacher that learns from its student's performance on labeled images.

    Algorithm 1 of the slides, with UDA as the teacher's own training. In the
    main stage the student is trained on pseudo-labels only; a second stage
    finetunes its average on the labeled images. The student is exported.

    All labeled losses of the student are the same function: on the labeled
    batch alone, with batch statistics, and with the dropout masks and
    batch-norm averages that the student had before its step. Computing them
    updates no moving average.

    The metric `loss` is the sum of the losses of both networks. It excludes the
    feedback objective, whose value does not measure performance.
    """

    roles = ("student", "teacher")
    metric_names = (
        "loss",
        "student_loss",
        "teacher_labeled_loss",
        "teacher_uda_loss",
        "feedback",
        "labeled_accuracy",
        "uda_selected_share",
        "pseudo_label_accuracy",
        "pseudo_label_entropy",
    )

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._regularizer = self.hyperparameters.mpl_unlabeled == "labeled"
        self.baseline = self.state_variable("baseline", ())

    @property
    def views(self):
        """See `Algorithm.views`."""
        if self._regularizer:
            return Views(labeled=("weak",))
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def train_step(self, batch):
        """Algorithm 1 of the slides. See `keras.Model.train_step`."""
        labeled, unlabeled = self._groups(batch)
        before = self._student_before(labeled, unlabeled)
        # Before the student's step, which increments the step count.
        uda_weight = self._uda_weight()
        with tf.GradientTape() as tape:
            teacher = self.teacher_pass(labeled, unlabeled)

            # Sample y_u ~ P(. | x_u; theta_T), once: the student learns this
            # tensor, and the teacher's cross-entropy is computed with it.
            scored = self._scored(teacher)  # [U, C]
            pseudo_label = self._label(scored, unlabeled)  # [U, C]

            # Update the student using the pseudo-label.
            student_loss, gradient = self._update_student(before, pseudo_label)

            # The teacher's feedback, as the objective whose gradient is g_T.
            objective, h = self._feedback(
                before, gradient, pseudo_label, scored
            )

            # The teacher's loss on labeled data and its UDA loss.
            labeled_loss = self._labeled_loss(labeled, teacher.labeled)
            uda_loss, confidence_mask = self._uda_loss(teacher)

            loss = objective + labeled_loss + uda_weight * uda_loss
        self.update("teacher", tape, loss)
        self.update_ema()

        losses = {
            "loss": student_loss + labeled_loss + uda_weight * uda_loss,
            "student_loss": student_loss,
            "teacher_labeled_loss": labeled_loss,
            "teacher_uda_loss": uda_loss,
        }
        for name, value in losses.items():
            self.track_share(name, value)
        if self.hyperparameters.feedback != "off":
            self.track("feedback", h)
        if self.hyperparameters.uda_weight and not self._regularizer:
            self.track("uda_selected_share", confidence_mask)
        self.track_labeled(labeled["label"], teacher.labeled)
        self.track_pseudo_labels(unlabeled["oracle_label"], pseudo_label)
        return {}

    def teacher_pass(self, labeled, unlabeled):
        """The teacher's logits, from one batch-norm batch.

        Args:
            labeled: the labeled group.
            unlabeled: the group that is pseudo-labeled.

        Returns:
            `TeacherLogits`.
        """
        if self._regularizer:  # All three are the labeled images.
            logits = self.forward(self.teacher, labeled["weak"])
            return TeacherLogits(logits, logits, logits)
        return TeacherLogits(
            *self.forward(
                self.teacher,
                labeled["weak"],
                unlabeled["weak"],
                unlabeled[self._student_view],
            )
        )

    def later_stages(self):
        """Finetuning of the averaged student on labeled images."""
        hp = self.hyperparameters
        if not hp.finetune_steps:
            return []
        return [
            Stage(
                "finetune",
                hp.finetune_steps,
                lambda: finetuning.finetuner(self, hp.finetune_learning_rate),
                hp.finetune_batch_size,
            )
        ]

    def _label(self, teacher_logits, unlabeled):
        """The pseudo-label; it has a gradient with `exact_soft` only."""
        if not self.hyperparameters.soft_labels:
            return pseudo_labels.sampled(
                teacher_logits, unlabeled["label_draw"]
            )
        if self.hyperparameters.feedback == "exact_soft":
            return tf.nn.softmax(teacher_logits)
        return pseudo_labels.soft(teacher_logits)

    @property
    def _student_view(self):
        return "weak" if self._regularizer else "strong"

    def _uda_weight(self):
        """The weight of the UDA loss in this step."""
        hp = self.hyperparameters
        weight = 0.0 if self._regularizer else hp.uda_weight
        return self.ramped(weight, hp.uda_ramp_steps)

    def _groups(self, batch):
        """The labeled group, and the one that is pseudo-labeled."""
        labeled = batch["labeled"]
        if self._regularizer:
            # Labels that are trained on tell nothing of pseudo-labels.
            unknown = -tf.ones_like(labeled["label"])
            return labeled, {**labeled, "oracle_label": unknown}
        return labeled, batch["unlabeled"]

    def _student_before(self, labeled, unlabeled):
        """The student as it is now, a `StudentBefore`."""
        hp = self.hyperparameters
        state = functional.state(self.student)
        label = self.one_hot(labeled["label"])  # [B, C]

        def losses_at(params, target):
            logits, new_state = functional.call(
                self.student, params, state, unlabeled[self._student_view]
            )
            target = smooth_labels(target, hp.label_smoothing)
            return cross_entropy(target, logits), new_state

        def labeled_loss_at(params):
            logits, _ = functional.call(
                self.student, params, state, labeled["weak"]
            )
            losses = cross_entropy(label, logits)
            return replicas.share_of_mean(self.class_weighted(losses, label))

        return StudentBefore(
            functional.parameters(self.student),
            self.student_optimizer.learning_rate,
            losses_at,
            labeled_loss_at,
        )

    def _scored(self, teacher):
        """The logits for pseudo-labels and for the feedback objective."""
        if self.hyperparameters.pseudo_label_view == "strong":
            return teacher.student_view
        return teacher.weak

    def _update_student(self, before, pseudo_label):
        """Takes the student's step.

        Returns:
            Its loss and gradient, this replica's shares.
        """
        target = tf.stop_gradient(pseudo_label)
        with tf.GradientTape() as tape:
            tape.watch(before.params)
            losses, new_state = before.losses_at(before.params, target)
            loss = replicas.share_of_mean(losses)
        gradient = functional.gradient(tape, loss, before.params)
        self.apply_gradients("student", gradient)
        functional.assign_state(self.student, new_state)
        return loss, gradient

    def _labeled_loss(self, labeled, logits):
        """The teacher's loss on labeled data, this replica's share."""
        label = self.one_hot(labeled["label"])
        smoothed = smooth_labels(label, self.hyperparameters.label_smoothing)
        losses = cross_entropy(smoothed, logits)
        return replicas.share_of_mean(self.class_weighted(losses, label))

    def _uda_loss(self, teacher):
        """The teacher's UDA loss, this replica's share, and its mask `[U]`."""
        losses, mask = consistency_cross_entropy(
            teacher.weak,
            teacher.student_view,
            temperature=self.hyperparameters.uda_temperature,
            threshold=self.hyperparameters.confidence_threshold,
        )
        return replicas.share_of_mean(losses), mask

    def _feedback(self, before, gradient, pseudo_label, scored):
        """This replica's share of the feedback objective, and h itself.

        Args:
            before: the student before its step, a `StudentBefore`.
            gradient: this replica's share of its gradient.
            pseudo_label: `[U, C]`, the labels that it learned.
            scored: `[U, C]`, the teacher's logits that they were made from.

        Returns:
            `(objective, h)`, two scalars.
        """
        hp = self.hyperparameters
        if hp.feedback == "off":
            zero = tf.zeros([], scored.dtype)
            return zero, zero
        if hp.feedback == "exact_soft":
            objective, h = self._exact_feedback(before, pseudo_label)
        elif hp.feedback == "per_example":
            objective, h = self._feedback_per_example(
                before, pseudo_label, cross_entropy(pseudo_label, scored)
            )
        else:
            objective, h = self._feedback_per_batch(
                before, gradient, cross_entropy(pseudo_label, scored)
            )
        # No feedback while the student's learning rate is 0 (its wait).
        student_moves = tf.cast(before.learning_rate > 0, objective.dtype)
        return hp.feedback_sign * student_moves * objective, h

    def _exact_feedback(self, before, pseudo_label):
        """The student's labeled loss after a step on soft labels.

        The lookahead is plain SGD, as in the derivation. The teacher's tape in
        `train_step` differentiates it.
        """
        with tf.GradientTape() as inner:
            inner.watch(before.params)
            losses, _ = before.losses_at(before.params, pseudo_label)
            loss = replicas.share_of_mean(losses)
        gradient = replicas.sum_over_replicas(
            functional.gradient(inner, loss, before.params)
        )
        after = before.labeled_loss_at(
            lookahead_step(before.params, gradient, before.learning_rate)
        )
        h = tf.stop_gradient(before.labeled_loss_at(before.params) - after)
        return after, replicas.sum_over_replicas(h)

    def _feedback_per_example(self, before, pseudo_label, losses):
        """The mean of h_i CE_i, one h per image."""
        h = self.feedback_of_examples(before, tf.stop_gradient(pseudo_label))
        return replicas.share_of_mean(h * losses), tf.reduce_mean(h)

    def feedback_of_examples(self, before, target):
        """The feedback h of each image, `[U]`, without gradient.

        Args:
            before: the student before its step, a `StudentBefore`.
            target: `[U, C]`, the labels that it learned.
        """
        return feedback_lib.per_example(
            before.learning_rate,
            self._labeled_gradient_after(before),
            lambda params: before.losses_at(params, target)[0],
            before.params,
            forward_mode=not layers.loses_tangents(
                self.student, replicas.count()
            ),
        )

    def _feedback_per_batch(self, before, gradient, losses):
        """h minus its baseline, times the teacher's losses."""
        hp = self.hyperparameters
        if hp.feedback == "taylor":
            # The plain step that the feedback is derived for. The optimizer's
            # own, with momentum and weight decay, is another one.
            after = lookahead_step(
                before.params,
                replicas.sum_over_replicas(gradient),
                before.learning_rate,
            )
            h = feedback_lib.taylor(
                replicas.sum_over_replicas(
                    before.labeled_loss_at(before.params)
                ),
                replicas.sum_over_replicas(before.labeled_loss_at(after)),
            )
        else:
            h = feedback_lib.dot(
                before.learning_rate,
                self._labeled_gradient_after(before),
                replicas.sum_over_replicas(gradient),
            )
        centered = h
        if hp.feedback_baseline:
            baseline = feedback_lib.update_baseline(
                tf.cast(self.baseline.value, h.dtype), h, hp.feedback_baseline
            )
            self.baseline.assign(baseline)
            centered = h - baseline
        reduce = (
            replicas.share_of_mean
            if hp.feedback_scale == "mean"
            else tf.reduce_sum
        )
        return centered * reduce(losses), h

    def _labeled_gradient_after(self, before):
        """Global gradient of the labeled loss at the updated student."""
        params = functional.parameters(self.student)
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = before.labeled_loss_at(params)
        return replicas.sum_over_replicas(
            functional.gradient(tape, loss, params)
        )
