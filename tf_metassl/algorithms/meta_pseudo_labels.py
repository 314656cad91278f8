"""Meta Pseudo Labels: Pham, Dai, Xie, Luong, Le, arXiv 2003.10580."""

import keras
import tensorflow as tf

from tf_metassl import averaging, pseudo_labels
from tf_metassl.algorithms.algorithm import Algorithm, Stage
from tf_metassl.algorithms.supervised import Supervised
from tf_metassl.contract import Views
from tf_metassl.hyperparameters import Hyperparameters
from tf_metassl.losses import (
    consistency_cross_entropy,
    cross_entropy,
    smooth_labels,
)
from tf_metassl.meta import feedback as feedback_lib
from tf_metassl.meta import functional
from tf_metassl.meta.lookahead import lookahead_step
from tf_metassl.schedules import linear_ramp


class MetaPseudoLabels(Algorithm):
    """A teacher that learns from how its student does on labeled images.

    Algorithm 1 of the slides, with a teacher trained by UDA. The student never
    sees a label in the main stage; a second stage finetunes its average on the
    labeled images. Only the student is exported.

    Every labeled loss of the student is one function: the labeled batch alone,
    batch statistics, and the dropout masks and batch-norm averages that the
    student had before its step. It changes no moving average.
    """

    roles = ("student", "teacher")
    metric_names = (
        "loss",
        "student_loss",
        "teacher_labeled_loss",
        "teacher_uda_loss",
        "feedback",
        "labeled_accuracy",
        "selected_share",
        "pseudo_label_accuracy",
        "pseudo_label_entropy",
    )

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        hp = self.hyperparameters
        soft = hp.feedback == "exact_soft"
        if hp.pseudo_label != "auto":
            soft = hp.pseudo_label == "soft"
        if soft and hp.feedback in ("taylor", "dot", "per_example"):
            raise ValueError(
                f"--feedback={hp.feedback} scores the teacher on the labels "
                "that it gave; with --pseudo_label=soft that cross-entropy "
                "has no gradient. Use --pseudo_label=sampled or "
                "--feedback=exact_soft."
            )
        if not soft and hp.feedback == "exact_soft":
            raise ValueError(
                "--feedback=exact_soft differentiates through soft labels: "
                "use --pseudo_label=soft or auto."
            )
        self._soft = soft
        self._regulariser = hp.mpl_unlabeled == "labeled"
        self.baseline = self.memory("baseline", ())

    @property
    def views(self):
        """See `Algorithm.views`."""
        if self._regulariser:
            return Views(labeled=("weak",))
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def train_step(self, batch):
        """One step of student and teacher. See `keras.Model.train_step`."""
        hp = self.hyperparameters
        labeled = batch["labeled"]
        unlabeled = labeled if self._regulariser else batch["unlabeled"]
        label = self.one_hot(labeled["label"])  # [B, C]
        images = unlabeled["weak" if self._regulariser else "strong"]
        learning_rate = self.student_optimizer.learning_rate

        theta_s = functional.parameters(self.student)
        state_s = functional.state(self.student)

        def student_losses(params, target):  # [U]
            logits, new_state = functional.call(
                self.student, params, state_s, images
            )
            target = smooth_labels(target, hp.label_smoothing)
            return cross_entropy(target, logits), new_state

        def student_labeled_loss(params):
            logits, _ = functional.call(
                self.student, params, state_s, labeled["weak"]
            )
            return self.mean(cross_entropy(label, logits))

        with tf.GradientTape() as teacher_tape:
            logits_l, logits_w, logits_s = self.teacher_pass(
                labeled, unlabeled, images
            )
            teacher_logits = (
                logits_s if hp.pseudo_label_view == "strong" else logits_w
            )
            # Sample y_u ~ P(. | x_u; theta_T), once: the student learns this
            # tensor and the teacher is scored on it.
            pseudo_label = self._label(teacher_logits, unlabeled)  # [U, C]

            # Update the student using the pseudo-label.
            with tf.GradientTape() as student_tape:
                student_tape.watch(theta_s)
                losses, new_state = student_losses(
                    theta_s, tf.stop_gradient(pseudo_label)
                )
                student_loss = self.mean(losses)
            gradient_s = functional.gradient(
                student_tape, student_loss, theta_s
            )
            self.apply_gradients("student", gradient_s)
            functional.assign_state(self.student, new_state)

            # The teacher's feedback, as the objective whose gradient is g_T.
            objective, feedback = self._feedback(
                theta_s,
                gradient_s,
                learning_rate,
                pseudo_label,
                teacher_logits,
                student_losses,
                student_labeled_loss,
            )

            # The teacher's loss on labeled data and its UDA loss.
            labeled_loss = self.mean(
                cross_entropy(
                    smooth_labels(label, hp.label_smoothing), logits_l
                )
            )
            uda_losses, confidence_mask = consistency_cross_entropy(
                logits_w,
                logits_s,
                temperature=hp.uda_temperature,
                threshold=hp.confidence_threshold,
            )
            uda_loss = self.mean(uda_losses)
            uda_weight = 0.0 if self._regulariser else hp.uda_weight
            ramp = tf.cast(
                linear_ramp(self.step, hp.uda_ramp_steps), uda_loss.dtype
            )
            loss = objective + labeled_loss + uda_weight * ramp * uda_loss
        self.update("teacher", teacher_tape, loss)
        self.update_ema()

        share = self.num_replicas
        self.track("loss", (labeled_loss + uda_weight * uda_loss) * share)
        self.track("student_loss", student_loss * share)
        self.track("teacher_labeled_loss", labeled_loss * share)
        self.track("teacher_uda_loss", uda_loss * share)
        self.track("feedback", feedback)
        self.track_labeled(labeled["label"], logits_l)
        self.track("selected_share", confidence_mask)
        oracle = "label" if self._regulariser else "oracle_label"
        self.track_pseudo_labels(unlabeled[oracle], pseudo_label)
        return {}

    def teacher_pass(self, labeled, unlabeled, images):
        """The teacher's logits `[B, C]`, `[U, C]` and `[U, C]`.

        Args:
            labeled: the labeled group.
            unlabeled: the group that is pseudo-labeled.
            images: `[U, H, W, C]`, those of its images that the student sees.

        Returns:
            Logits of the labeled images, of the weak view of the others, and
            of `images`.
        """
        return self.forward(
            self.teacher, labeled["weak"], unlabeled["weak"], images
        )

    def later_stages(self):
        """Finetuning of the averaged student on labeled images."""
        if not self.hyperparameters.finetune_steps:
            return []
        return [
            Stage(
                "finetune", self.hyperparameters.finetune_steps, self._finetuner
            )
        ]

    def _finetuner(self):
        """Plain supervised training that starts from the averaged student."""
        student = averaging.copy_of(self.deployable_model, name="finetuned")
        student.trainable = True
        finetuner = Supervised(
            networks={"student": student},
            hyperparameters=Hyperparameters(ema_decay=0.0),
            num_classes=self.num_classes,
        )
        rate = self.hyperparameters.finetune_learning_rate
        finetuner.compile(
            optimizers={
                "student": keras.optimizers.SGD(
                    rate, momentum=0.9, nesterov=True
                )
            },
            jit_compile=self.jit_compile,
            steps_per_execution=self.steps_per_execution,
        )
        return finetuner

    def _label(self, teacher_logits, unlabeled):
        """The pseudo-label; it keeps its gradient for `exact_soft` alone."""
        if not self._soft:
            return pseudo_labels.sampled(
                teacher_logits, unlabeled["label_draw"]
            )
        if self.hyperparameters.feedback == "exact_soft":
            return tf.nn.softmax(teacher_logits)
        return pseudo_labels.soft(teacher_logits)

    def _feedback(
        self,
        theta_s,
        gradient_s,
        learning_rate,
        pseudo_label,
        teacher_logits,
        student_losses,
        student_labeled_loss,
    ):
        """This replica's share of the feedback objective, and h itself.

        Args:
            theta_s: the student's parameters before its step.
            gradient_s: this replica's share of the student's gradient.
            learning_rate: the student's, at this step.
            pseudo_label: `[U, C]`, the labels that the student learned.
            teacher_logits: `[U, C]` of the view that they were made from.
            student_losses: `params, target -> ([U], state)`.
            student_labeled_loss: `params -> scalar`, this replica's share.

        Returns:
            `(objective, h)`, two scalars.
        """
        hp = self.hyperparameters
        zero = tf.zeros([], teacher_logits.dtype)
        if hp.feedback == "off":
            return zero, zero
        # A student that waits has nothing to say.
        sign = hp.feedback_sign * tf.cast(learning_rate > 0, zero.dtype)

        if hp.feedback == "exact_soft":
            # The lookahead is plain SGD, as the derivation has it, and its
            # labeled loss is differentiated by the surrounding teacher's tape.
            with tf.GradientTape() as inner:
                inner.watch(theta_s)
                losses, _ = student_losses(theta_s, pseudo_label)
                loss = self.mean(losses)
            gradient = self.replica_sum(
                functional.gradient(inner, loss, theta_s)
            )
            after = student_labeled_loss(
                lookahead_step(theta_s, gradient, learning_rate)
            )
            h = tf.stop_gradient(student_labeled_loss(theta_s) - after)
            return sign * after, self.replica_sum(h)

        teacher_losses = cross_entropy(pseudo_label, teacher_logits)  # [U]
        updated = functional.parameters(self.student)
        if hp.feedback == "per_example":
            h = feedback_lib.per_example(
                learning_rate,
                self._labeled_gradient(student_labeled_loss, updated),
                lambda params: student_losses(
                    params, tf.stop_gradient(pseudo_label)
                )[0],
                theta_s,
                num_replicas=self.num_replicas,
                sum_over_replicas=self.replica_sum,
            )  # [U]
            return sign * self.mean(h * teacher_losses), tf.reduce_mean(h)

        if hp.feedback == "taylor":
            h = feedback_lib.taylor(
                self.replica_sum(student_labeled_loss(theta_s)),
                self.replica_sum(student_labeled_loss(updated)),
            )
        else:
            h = feedback_lib.dot(
                learning_rate,
                self._labeled_gradient(student_labeled_loss, updated),
                self.replica_sum(gradient_s),
            )
        centred = h
        if hp.feedback_baseline:
            baseline = feedback_lib.update_baseline(
                tf.cast(self.baseline.value, h.dtype), h, hp.feedback_baseline
            )
            self.baseline.assign(baseline)
            centred = h - baseline
        reduce = self.mean if hp.feedback_scale == "mean" else tf.reduce_sum
        return sign * centred * reduce(teacher_losses), h

    def _labeled_gradient(self, student_labeled_loss, params):
        """Global gradient of the student's labeled loss at `params`."""
        with tf.GradientTape() as tape:
            tape.watch(params)
            loss = student_labeled_loss(params)
        return self.replica_sum(functional.gradient(tape, loss, params))
