"""The hyperparameters of every method, one frozen dataclass each.

They are not in the modules of the methods because flags are made from them
before TensorFlow is imported, so that `--help` and error messages are fast. A
field means the same in every method that has it. Which dataclass belongs to
which method is in `tf_metassl.algorithms.ALGORITHMS`.
"""

import dataclasses

# The run that the defaults of the dataclasses below are written for; it is the
# default on the digits. See `share` of `setting`.
REFERENCE_STEPS = 600


def setting(
    default,
    help,
    *,
    choices=None,
    minimum=None,
    maximum=None,
    read_by=None,
    share=None,
    spans=None,
):
    """A dataclass field with its documentation and its allowed values.

    Args:
        default: its value where none is given.
        help: what it does.
        choices: the allowed values; None: no list.
        minimum: smallest allowed number.
        maximum: largest allowed number.
        read_by: name of another setting -> the values of it with which this
            one has an effect; None: it always has.
        share: of `--num_steps`, which a number of steps is by default; None
            if `default` is right for runs of any length.
        spans: share of `--num_steps` over which an average extends, whose
            decay this is by default; None as for `share`.
    """
    metadata = {
        "share": share,
        "spans": spans,
        "read_by": read_by or {},
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
    }
    return dataclasses.field(default=default, metadata=metadata)


def steps_setting(share, help, *, minimum=0):
    """A `setting` that is a number of steps, by default a share of the run.

    Args:
        share: of `--num_steps`.
        help: what it does.
        minimum: smallest allowed number.
    """
    default = round(share * REFERENCE_STEPS)
    return setting(default, help, minimum=minimum, share=share)


def decay_over(steps):
    """The decay of an average that extends over a number of steps, a float.

    It is 1 - 1 / steps and at least 0.9, so that short runs have an average,
    and at most 0.999, as what is published for long ones.
    """
    return round(min(max(1.0 - 1.0 / max(steps, 1.0), 0.9), 0.999), 4)


def depends_on_length(field):
    """Whether the default of a field follows the length of the run."""
    return bool(field.metadata["share"] or field.metadata["spans"])


# Fields that several methods have with different defaults.


def _mix_weight_rule(default):
    return setting(
        default,
        "Weight of an image in its mixture. plain: the Beta draw; dominant: "
        "max(draw, 1 - draw), so that it is the larger part.",
        choices=("plain", "dominant"),
    )


def _unlabeled_loss_weight(default, paper):
    """The field of the unlabeled loss's weight; its scale differs by method.

    The code of the Pi-model, Temporal Ensembling and Mean Teacher divides the
    labeled loss by the size of the whole batch and multiplies the weight by the
    labeled share of the batch. Here the labeled loss is a mean over labeled
    images, so that the share cancels.
    """
    return setting(
        default,
        f"Weight of the unlabeled loss. 0 = off. Published: {paper}.",
        minimum=0.0,
    )


def _unlabeled_ramp_steps(share, shape, paper):
    """The field of the unlabeled weight's ramp."""
    return steps_setting(
        share,
        f"Steps over which the weight of the unlabeled loss rises, {shape}. "
        f"0 = at once. Published: {paper}.",
    )


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """What every method has.

    The properties tell how the optimizers and stages of a method depend on its
    hyperparameters. Methods override those that apply to them.
    """

    # What the steps of a method read. These are no fields, hence no flags.
    uses_unlabeled = True
    uses_weak_policy = True
    uses_contrastive_policy = False
    # Whether a step moves, makes or reconstructs pixels, as features cannot
    # be.
    changes_images = False
    # With whatever --strong_augmentation.
    uses_ctaugment = False

    ema_decay: float = setting(
        0.99,
        "Decay of the averaged copy of the student, which is evaluated and "
        "exported; ramped as min(decay, (1 + t) / (10 + t)). 0 = no copy.",
        minimum=0.0,
        maximum=1.0,
    )

    @property
    def without_effect(self):
        """Fields that the values of others leave without effect.

        Returns:
            Name -> the flag that is responsible, such as `--feedback=off`.
        """
        found = {}
        if getattr(self, "unlabeled_loss_weight", 1) == 0:
            found["unlabeled_ramp_steps"] = "--unlabeled_loss_weight=0"
        return {k: v for k, v in found.items() if hasattr(self, k)}

    def dropout_of(self, role):
        """The dropout rate of a network; None for that of `--dropout`."""
        del role
        return None

    def learning_rate_of(self, role):
        """The peak rate of a network; 0 for that of `--learning_rate`."""
        del role
        return 0.0

    def wait_steps_of(self, role):
        """The steps at learning rate 0 before a network's warm-up."""
        del role
        return 0

    @property
    def learning_rate_cycle(self):
        """Start and length of the rate's cycles, see `WarmupSchedule`."""
        return 0, 0

    @property
    def scheduled_stage_steps(self):
        """Field -> steps, of later stages with a warm-up and a schedule."""
        return {}

    @property
    def uses_strong_policy(self):
        """Whether there are strong views: here, with --learned_view=strong."""
        return getattr(self, "learned_view", "weak") == "strong"

    @property
    def later_stage_steps(self):
        """Field -> steps, of all stages after the main one."""
        return self.scheduled_stage_steps

    @property
    def later_batch_sizes(self):
        """Field -> labeled images per step of a later stage; 0 for the run's.

        Of stages that have a batch size of their own.
        """
        return {}

    @property
    def mixes(self):
        """Whether the data pipeline draws MixUp weights for this method."""
        return False


@dataclasses.dataclass(frozen=True)
class Supervised(Hyperparameters):
    """Supervised training."""

    uses_unlabeled = False


@dataclasses.dataclass(frozen=True)
class RandAugment(Supervised):
    """Supervised training on strong views (arXiv 1909.13719)."""

    # Unless the strong policy is applied to the weak view.
    uses_weak_policy = False
    uses_strong_policy = True


@dataclasses.dataclass(frozen=True)
class Mixup(Hyperparameters):
    """What methods that mix images have in common."""

    mixup_alpha: float = setting(
        1.0,
        "The parameter of MixUp's Beta(alpha, alpha); Meta-Semi's beta. "
        "0 = no MixUp.",
        minimum=0.0,
    )
    mix_weight_rule: str = _mix_weight_rule("dominant")

    @property
    def mixes(self):
        """See `Hyperparameters.mixes`."""
        return self.mixup_alpha > 0

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.mixup_alpha:
            found["mix_weight_rule"] = "--mixup_alpha=0"
        return found


@dataclasses.dataclass(frozen=True)
class SupervisedMixup(Mixup, Supervised):
    """Supervised training on MixUp of labeled pairs (arXiv 1710.09412)."""

    uses_unlabeled = False

    mixing: str = setting(
        "mixup",
        "How labeled pairs are mixed. mixup: all pixels are averaged; cutmix: "
        "a rectangle comes from the other image (arXiv 1905.04899).",
        choices=("mixup", "cutmix"),
    )

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.mixup_alpha:
            found["mixing"] = "--mixup_alpha=0"
        return found


@dataclasses.dataclass(frozen=True)
class LabelSmoothing(Supervised):
    """Supervised training on smoothed labels (arXiv 1512.00567)."""

    label_smoothing: float = setting(
        0.1,
        "a in (1 - a) * label + a / classes. 0 = off.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclasses.dataclass(frozen=True)
class PseudoLabel(Hyperparameters):
    """Pseudo-Label (Lee, 2013), with MixMatch's threshold."""

    unlabeled_loss_weight: float = _unlabeled_loss_weight(1.0, "1, SVHN 2")
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "linearly", "40 % of the run"
    )
    confidence_threshold: float = setting(
        0.95,
        "Pseudo-labels of at most this confidence are dropped. 0 = keep all.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclasses.dataclass(frozen=True)
class PiModel(Hyperparameters):
    """Pi-model, arXiv 1610.02242."""

    unlabeled_loss_weight: float = _unlabeled_loss_weight(10.0, "100")
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "as a sigmoid", "80 of 300 epochs"
    )


@dataclasses.dataclass(frozen=True)
class TemporalEnsembling(Hyperparameters):
    """Temporal Ensembling, arXiv 1610.02242."""

    unlabeled_loss_weight: float = _unlabeled_loss_weight(
        10.0, "30, CIFAR-100 100"
    )
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "as a sigmoid", "80 of 300 epochs"
    )
    ensemble_momentum: float = setting(
        0.6,
        "a in ensemble <- a * ensemble + (1 - a) * prediction, once per epoch "
        "and image. 0 = the last prediction alone.",
        minimum=0.0,
        maximum=0.999,
    )


@dataclasses.dataclass(frozen=True)
class MeanTeacher(Hyperparameters):
    """Mean Teacher, arXiv 1703.01780; `ema_decay` is the teacher's."""

    unlabeled_loss_weight: float = _unlabeled_loss_weight(10.0, "100")
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "as a sigmoid", "40,000 of 150,000 steps"
    )


@dataclasses.dataclass(frozen=True)
class FastSwa(MeanTeacher):
    """fast-SWA on Mean Teacher, arXiv 1806.05594."""

    cycle_start: int = steps_setting(
        2 / 3,
        "Step at which the learning rate first jumps back by a cycle. "
        "Published: 180 epochs.",
    )
    cycle_steps: int = steps_setting(
        1 / 6,
        "Steps of a cycle of the learning rate. 0 = no cycles. Published: 30 "
        "epochs.",
    )
    swa_start: int = steps_setting(
        1 / 2,
        "Step from which the student is added to the mean of students. "
        "Published: 150 epochs.",
        minimum=1,
    )
    swa_every: int = steps_setting(
        1 / 60,
        "Steps between additions to the mean, which is exported. 0 = no mean. "
        "Published: 3 epochs.",
    )
    swa_batches: int = setting(
        10,
        "Training batches from which the batch-norm statistics of the mean are "
        "computed before an evaluation. Published: about 100.",
        minimum=1,
    )

    @property
    def learning_rate_cycle(self):
        """See `Hyperparameters.learning_rate_cycle`."""
        return self.cycle_start, self.cycle_steps


@dataclasses.dataclass(frozen=True)
class Vat(Hyperparameters):
    """Virtual Adversarial Training, arXiv 1704.03976."""

    changes_images = True

    unlabeled_loss_weight: float = _unlabeled_loss_weight(1.0, "1")
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        0, "as a sigmoid", "0, at once"
    )
    vat_epsilon: float = setting(
        0.0,
        "Length of the adversarial perturbation of an image with pixels in "
        "-1...1. 0 = an eighth of the root of the number of values: 1 for 8x8 "
        "gray, 6.9 for 32x32 color images. Published: 8, SVHN 3.5; MixMatch's "
        "code 6.",
        minimum=0.0,
    )
    vat_xi: float = setting(
        0.1,
        "Length of the perturbation at which the adversarial direction is "
        "computed. Published: 1e-6, which the rounding of pixels removes.",
        minimum=1e-9,
    )
    entropy_weight: float = setting(
        0.0,
        "Weight of the entropy of unlabeled predictions, relative to the "
        "unlabeled loss. 0 = VAT alone. Published: 1 for VAT + EntMin.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class Lga(Vat):
    """Label gradient alignment with VAT, arXiv 1902.02336 (reconstruction)."""

    unlabeled_loss_weight: float = setting(
        1.0,
        "Weight of the loss of the imputed labels (reconstruction). 0 = off.",
        minimum=0.0,
    )
    unlabeled_ramp_steps: int = steps_setting(
        1 / 3,
        "Steps over which that weight rises, as a sigmoid (reconstruction). 0 "
        "= at once.",
    )
    label_learning_rate: float = setting(
        0.1,
        "Root mean square of the change of the entries of imputed labels in a "
        "step (reconstruction). 0 = labels stay the first predictions.",
        minimum=0.0,
    )
    vat_weight: float = setting(
        1.0, "Weight of the VAT loss. 0 = off.", minimum=0.0
    )
    entropy_weight: float = setting(
        0.0,
        "Weight of the entropy of unlabeled predictions, relative to the VAT "
        "loss. 0 = off.",
        minimum=0.0,
    )

    @property
    def changes_images(self):
        """See `Hyperparameters`."""
        return self.vat_weight > 0

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.vat_weight:
            names = ("vat_epsilon", "vat_xi", "entropy_weight")
            found |= dict.fromkeys(names, "--vat_weight=0")
        return found


@dataclasses.dataclass(frozen=True)
class Sntg(Vat, TemporalEnsembling):
    """Smooth Neighbors on Teacher Graphs, arXiv 1711.00258.

    Hyperparameters of the bases other than `sntg_base` have no effect.
    """

    sntg_base: str = setting(
        "pi_model",
        "The method to which SNTG is added.",
        choices=("pi_model", "temporal_ensembling", "vat"),
    )
    sntg_weight: float = setting(
        0.4,
        "Weight of the neighbor loss, relative to the unlabeled loss. 0 = "
        "off. Published: 0.4.",
        minimum=0.0,
    )
    unlabeled_loss_weight: float = _unlabeled_loss_weight(
        10.0, "as for --sntg_base"
    )
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "as a sigmoid", "as for --sntg_base"
    )

    @property
    def changes_images(self):
        """See `Hyperparameters`."""
        return self.sntg_base == "vat"

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        base = f"--sntg_base={self.sntg_base}"
        if self.sntg_base != "vat":
            names = ("vat_epsilon", "vat_xi", "entropy_weight")
            found |= dict.fromkeys(names, base)
        if self.sntg_base != "temporal_ensembling":
            found["ensemble_momentum"] = base
        return found


@dataclasses.dataclass(frozen=True)
class Ict(Mixup):
    """Interpolation Consistency Training, arXiv 1903.03825."""

    unlabeled_loss_weight: float = _unlabeled_loss_weight(1.0, "100")
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "as a sigmoid", "100 of 400 epochs"
    )
    mix_weight_rule: str = _mix_weight_rule("plain")


@dataclasses.dataclass(frozen=True)
class Generative(Hyperparameters):
    """What methods share that make images of unlabeled ones."""

    changes_images = True

    learned_view: str = setting(
        "strong",
        "The view of a labeled image whose label is learned. strong: that of "
        "--strong_augmentation, which is not in the paper.",
        choices=("weak", "strong"),
    )


@dataclasses.dataclass(frozen=True)
class Swwae(Generative):
    """Stacked what-where autoencoder, arXiv 1506.02351."""

    reconstruction_weight: float = setting(
        1.0,
        "Weight of the squared error of reconstructed images, averaged over "
        "their values in -1...1; the paper's lambda_L2rec, of a sum. 0 = off.",
        minimum=0.0,
    )
    intermediate_weight: float = setting(
        0.1,
        "Weight of the squared errors of reconstructed feature maps after max "
        "pooling, averaged over the values of each; the paper's lambda_L2M, of "
        "a sum. 0 = off.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class CcGan(Generative):
    """Context-conditional GAN, arXiv 1611.06430 (reconstruction)."""

    adversarial_weight: float = setting(
        0.1,
        "Weight of the discriminator's loss in the update of the student; the "
        "paper weighs the labeled loss instead. 0 = off.",
        minimum=0.0,
    )
    whole_image_weight: float = setting(
        1.0,
        "Weight of whole generated images in the losses of discriminator and "
        "generator, relative to in-painted ones. 1 = CC-GAN^2; 0 = CC-GAN.",
        minimum=0.0,
    )
    hole_share: float = setting(
        0.5,
        "Side of the square hole, relative to the shorter side of the image "
        "(reconstruction).",
        minimum=0.0,
        maximum=1.0,
    )
    generator_learning_rate: float = setting(
        0.03,
        "Peak learning rate of the generator (reconstruction). 0 = that of "
        "the student.",
        minimum=0.0,
    )

    def learning_rate_of(self, role):
        """See `Hyperparameters.learning_rate_of`."""
        return self.generator_learning_rate if role == "generator" else 0.0


def _labeled_loss_weight(default):
    return setting(
        default,
        "Weight of the labeled loss in the update. Algorithm 1 of Meta-Semi "
        "prints none, which is 0 (reconstruction).",
        minimum=0.0,
    )


def _learned_view(default):
    """`--learned_view` of methods that weight pseudo-labeled images."""
    return setting(
        default,
        "The view of an unlabeled image that is learned. strong: that of "
        "--strong_augmentation, which is not in the paper.",
        choices=("weak", "strong"),
    )


@dataclasses.dataclass(frozen=True)
class Reweighting(Hyperparameters):
    """What Meta-Semi and Learning to Reweight have in common.

    Fields whose help says "reconstruction" decide what the slides leave open.
    """

    meta_gradient: str = setting(
        "auto",
        "How the meta gradient is computed. nested_tape: Algorithm 1 as "
        "printed; forward_mode: the same numbers from one forward-mode "
        "derivative, in less time; auto: forward_mode, except where a batch "
        "norm of your own is synchronized over replicas; "
        "finite_difference: nearly the same numbers from a second forward "
        "pass, in still less time (our own).",
        choices=("auto", "nested_tape", "forward_mode", "finite_difference"),
    )
    pseudo_label: str = setting(
        "soft",
        "The label of an unlabeled image. soft: the predicted distribution; "
        "one_hot: its argmax (an ablation).",
        choices=("soft", "one_hot"),
    )
    pseudo_label_view: str = setting(
        "clean",
        "The view of an unlabeled image from which its label is predicted. "
        "clean: the image itself; weak: the augmented image that is trained on "
        "(reconstruction).",
        choices=("clean", "weak"),
    )
    labeled_loss_weight: float = _labeled_loss_weight(1.0)
    learned_view: str = _learned_view("weak")

    @property
    def has_labeled_loss(self):
        """Whether the update has a labeled loss of its own."""
        return self.labels_in_update == "separate" and (
            self.labeled_loss_weight > 0
        )


@dataclasses.dataclass(frozen=True)
class LearningToReweight(Reweighting):
    """Learning to Reweight Examples, arXiv 1803.09050, for pseudo-labels."""

    # At 1, pseudo-labels that agree with memorized labels outweigh the labels.
    labeled_loss_weight: float = _labeled_loss_weight(3.0)
    # Weak views of few labels are known by heart before they can judge.
    learned_view: str = _learned_view("strong")

    # What this method is as a case of Meta-Semi. These are no fields, hence no
    # flags.
    example_weights = "relu_norm"
    weight_normalizer = "num_selected"
    selection_margin = 0.0
    meta_labeled_batch = "raw"
    judge_share = 0.0
    labels_in_update = "separate"
    labeled_loss_batch = "raw"
    labeler = "ema"
    labeler_mode = "inference"
    lookahead_steps = 1
    mixup_on = "none"
    mixup_alpha = 0.0
    mix_weight_rule = "plain"
    mix_weight_per = "image"
    mix_partners = "own"


@dataclasses.dataclass(frozen=True)
class MetaSemi(Reweighting, Mixup):
    """Meta-Semi, arXiv 2007.02394; the paper tunes `mixup_alpha` alone."""

    lookahead_steps: int = setting(
        1,
        "M, SGD steps of the lookahead. It multiplies the meta gradient by M, "
        "which changes no example's weight, only the time.",
        minimum=1,
    )
    example_weights: str = setting(
        "indicator",
        "The weight of an example given its meta gradient. indicator: 1 where "
        "the gradient is at most 0, else 0 (equation 9); "
        "constant: all 1; plus_minus_one: -1 instead of 0; relu_norm: "
        "learning-to-reweight's. The last three are ablations.",
        choices=("indicator", "constant", "plus_minus_one", "relu_norm"),
    )
    mixup_on: str = setting(
        "both",
        "Which batches MixUp mixes; all but both are ablations.",
        choices=("both", "labeled", "unlabeled", "none"),
    )
    meta_labeled_batch: str = setting(
        "mixed",
        "The labeled images of the lookahead's loss. raw: without MixUp; "
        "mixed: with MixUp, as Algorithm 1 prints.",
        choices=("raw", "mixed"),
    )
    judge_share: float = setting(
        0.0,
        "The share of the labeled images of each class that judge the "
        "pseudo-labels, in the lookahead's loss, and are not learned; the "
        "others are learned and do not judge. 0 = all do both, as in the "
        "paper.",
        minimum=0.0,
        maximum=0.9,
    )
    labels_in_update: str = setting(
        "separate",
        "How the labels reach the update. separate: a labeled loss of weight "
        "--labeled_loss_weight beside the weighted one; joint: labeled images "
        "stand with their true labels beside the pseudo-labeled ones, under "
        "one rule and one divisor; none: not at all (reconstruction).",
        choices=("separate", "joint", "none"),
    )
    labeled_loss_batch: str = setting(
        "raw",
        "The labeled images of the update. raw: without MixUp; mixed: with "
        "MixUp (reconstruction).",
        choices=("raw", "mixed"),
    )
    selection_margin: float = setting(
        0.0,
        "An example is kept while its meta gradient is at most this multiple "
        "of the root mean square over the batch. 0 = equation 9; not in the "
        "paper.",
        minimum=0.0,
    )
    labeler: str = setting(
        "ema",
        "The network that predicts pseudo-labels. ema: the averaged one; "
        "student: the one that is trained, which is not in the paper.",
        choices=("ema", "student"),
    )
    labeler_mode: str = setting(
        "inference",
        "Batch-norm statistics of the network that predicts pseudo-labels. "
        "inference: running averages; training: those of the batch "
        "(reconstruction).",
        choices=("inference", "training"),
    )
    mix_partners: str = setting(
        "own",
        "Where MixUp takes partners from. own: labeled images for labeled "
        "ones, unlabeled for unlabeled ones; all: both (reconstruction).",
        choices=("own", "all"),
    )
    mix_weight_per: str = setting(
        "image",
        "How many MixUp weights are drawn. image: one for each image; batch: "
        "one for each group of a batch (reconstruction).",
        choices=("image", "batch"),
    )
    weight_normalizer: str = setting(
        "num_selected",
        "The divisor of the weighted loss. num_selected: the sum of the "
        "weights, as Algorithm 1 prints; num_unlabeled: the batch size "
        "(reconstruction).",
        choices=("num_selected", "num_unlabeled"),
    )

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if self.labels_in_update != "separate":
            where = f"--labels_in_update={self.labels_in_update}"
            found["labeled_loss_weight"] = where
            if self.labels_in_update == "none":
                found |= dict.fromkeys(
                    ("labeled_loss_batch", "judge_share"), where
                )
        off = (
            "--mixup_alpha=0"
            if self.mixup_alpha == 0
            else f"--mixup_on={self.mixup_on}"
        )
        if self.mixup_on == "none" or not self.mixup_alpha:
            names = ("mix_weight_rule", "mix_weight_per", "mix_partners")
            found |= dict.fromkeys(names, off)
            if self.mixup_alpha:
                found["mixup_alpha"] = off
        if self.mixup_on in ("none", "unlabeled") or not self.mixup_alpha:
            found["labeled_loss_batch"] = off
        if not self.ema_decay:
            found["labeler"] = "--ema_decay=0"
        if self.example_weights == "constant":
            names = (
                "meta_gradient",
                "selection_margin",
                "meta_labeled_batch",
                "lookahead_steps",
            )
            found |= dict.fromkeys(names, "--example_weights=constant")
        if self.example_weights != "indicator":
            # relu_norm has a divisor of its own; the other weights are 1 or
            # -1, whose absolute values add up to the batch size.
            rule = f"--example_weights={self.example_weights}"
            found["weight_normalizer"] = rule
        return found


@dataclasses.dataclass(frozen=True)
class MetaSemiIct(MetaSemi):
    """Meta-Semi with ICT's unlabeled loss."""

    unlabeled_loss_weight: float = _unlabeled_loss_weight(10.0, "not known")
    unlabeled_ramp_steps: int = _unlabeled_ramp_steps(
        1 / 3, "as a sigmoid", "not known"
    )


@dataclasses.dataclass(frozen=True)
class StudentFeedback(Hyperparameters):
    """What teachers that learn from their student's feedback have in common."""

    feedback: str = setting(
        "per_example",
        "The student's feedback h to the teacher. taylor: labeled loss before "
        "minus after the student's step; dot: inner product of the labeled and "
        "the pseudo-label gradient; per_example: one product per image; "
        "exact_soft: the lookahead student is differentiated through soft "
        "labels; off: 0.",
        choices=("taylor", "dot", "per_example", "exact_soft", "off"),
    )
    feedback_sign: int = setting(
        1,
        "Factor on the feedback; -1 gives the inverted sign of public code.",
        choices=(1, -1),
    )
    feedback_scale: str = setting(
        "sum",
        "Scale of the feedback objective. sum: h times the summed "
        "cross-entropy, the unbiased estimator; mean: 1/N of it, as in papers "
        "and public code. Used by taylor and dot.",
        choices=("sum", "mean"),
    )
    feedback_baseline: float = setting(
        0.99,
        "Momentum of the moving average that is subtracted from h; used by "
        "taylor and dot. 0 = no baseline.",
        minimum=0.0,
        maximum=1.0,
    )
    pseudo_label: str = setting(
        "auto",
        "The label that the student learns. sampled: a class drawn from the "
        "teacher's distribution; soft: the distribution; auto: soft for "
        "--feedback=exact_soft, else sampled.",
        choices=("auto", "sampled", "soft"),
    )
    label_smoothing: float = setting(
        0.1,
        "Smoothing of the targets of the teacher's labeled loss and of the "
        "student's loss. 0 = off.",
        minimum=0.0,
        maximum=1.0,
    )
    teacher_learning_rate: float = setting(
        0.0, "The teacher's peak rate. 0 = --learning_rate.", minimum=0.0
    )
    finetune_steps: int = steps_setting(
        1 / 6,
        "Steps of the second stage, in which the averaged student is trained "
        "on the labeled images alone. 0 = no second stage.",
    )
    finetune_learning_rate: float = setting(
        1e-3, "Constant rate of the second stage.", minimum=0.0
    )
    finetune_batch_size: int = setting(
        0,
        "Labeled images per step of the second stage (paper: 512). 0 = "
        "--batch_size.",
        minimum=0,
    )

    def learning_rate_of(self, role):
        """See `Hyperparameters.learning_rate_of`."""
        return self.teacher_learning_rate if role == "teacher" else 0.0

    @property
    def later_stage_steps(self):
        """See `Hyperparameters.later_stage_steps`."""
        # Finetuning has a constant learning rate.
        return {
            "finetune_steps": self.finetune_steps,
            **self.scheduled_stage_steps,
        }

    @property
    def later_batch_sizes(self):
        """See `Hyperparameters.later_batch_sizes`."""
        return {"finetune_batch_size": self.finetune_batch_size}

    @property
    def soft_labels(self):
        """Whether the student learns the teacher's distribution."""
        if self.pseudo_label == "auto":
            return self.feedback == "exact_soft"
        return self.pseudo_label == "soft"

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        feedback = f"--feedback={self.feedback}"
        if self.feedback not in ("taylor", "dot"):
            names = ("feedback_scale", "feedback_baseline")
            found |= dict.fromkeys(names, feedback)
        if self.feedback == "off":
            found["feedback_sign"] = feedback
        if not self.finetune_steps:
            names = ("finetune_learning_rate", "finetune_batch_size")
            found |= dict.fromkeys(names, "--finetune_steps=0")
        return found


@dataclasses.dataclass(frozen=True)
class MetaPseudoLabels(StudentFeedback):
    """Meta Pseudo Labels, arXiv 2003.10580, teacher trained with UDA."""

    uses_strong_policy = True

    pseudo_label_view: str = setting(
        "strong",
        "The view on which the teacher predicts the pseudo-label and its "
        "cross-entropy is computed. The student is trained on the strong view.",
        choices=("strong", "weak"),
    )
    uda_weight: float = setting(
        1.0, "Weight of the teacher's UDA loss. 0 = off.", minimum=0.0
    )
    uda_ramp_steps: int = steps_setting(
        1 / 3, "Steps over which the UDA weight rises. 0 = at once."
    )
    uda_temperature: float = setting(
        0.7, "Divides the logits of UDA's targets. 1 = off.", minimum=0.01
    )
    confidence_threshold: float = setting(
        0.6,
        "UDA's targets with a lower sharpened confidence are dropped. 0 = keep "
        "all.",
        minimum=0.0,
        maximum=1.0,
    )
    student_wait_steps: int = setting(
        0,
        "Steps before the student starts to learn; feedback is 0 meanwhile.",
        minimum=0,
    )
    teacher_dropout: float = setting(
        0.0,
        "Dropout of the teacher; see --dropout. 0 = off.",
        minimum=0.0,
        maximum=0.99,
    )
    mpl_unlabeled: str = setting(
        "unlabeled",
        "The images that are pseudo-labeled. labeled: the labeled images, "
        "without UDA; the method then regularizes supervised training.",
        choices=("unlabeled", "labeled"),
    )

    def dropout_of(self, role):
        """See `Hyperparameters.dropout_of`."""
        return self.teacher_dropout if role == "teacher" else None

    def wait_steps_of(self, role):
        """See `Hyperparameters.wait_steps_of`."""
        return self.student_wait_steps if role == "student" else 0

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        off = "--uda_weight=0" if not self.uda_weight else ""
        if self.mpl_unlabeled == "labeled":
            off = "--mpl_unlabeled=labeled"
            # The labeled images have one view.
            found |= dict.fromkeys(("uda_weight", "pseudo_label_view"), off)
        if off:
            names = (
                "uda_ramp_steps",
                "uda_temperature",
                "confidence_threshold",
            )
            found |= dict.fromkeys(names, off)
        return found


@dataclasses.dataclass(frozen=True)
class FixMatch(Hyperparameters):
    """FixMatch, arXiv 2001.07685."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = setting(
        1.0, "Weight of the unlabeled loss (paper: 1). 0 = off.", minimum=0.0
    )
    confidence_threshold: float = setting(
        0.95,
        "Pseudo-labels with a lower confidence are dropped (paper: 0.95). 0 = "
        "keep all.",
        minimum=0.0,
        maximum=1.0,
    )
    labeled_mixup_alpha: float = setting(
        0.0,
        "The parameter of MixUp's Beta(alpha, alpha) on the labeled images, "
        "which is not in the paper. 0 = no MixUp.",
        minimum=0.0,
    )

    @property
    def mixes(self):
        """See `Hyperparameters.mixes`."""
        return self.labeled_mixup_alpha > 0


@dataclasses.dataclass(frozen=True)
class FlexMatch(FixMatch):
    """FlexMatch, arXiv 2110.08263."""


@dataclasses.dataclass(frozen=True)
class Uda(Hyperparameters):
    """UDA, arXiv 1904.12848."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = setting(
        1.0, "Weight of the unlabeled loss (paper: 1). 0 = off.", minimum=0.0
    )
    confidence_threshold: float = setting(
        0.8,
        "Targets of at most this confidence before sharpening are dropped "
        "(paper: 0.8). 0 = keep all.",
        minimum=0.0,
        maximum=1.0,
    )
    temperature: float = setting(
        0.4,
        "Divides the logits of the targets (paper: 0.4). 1 = off.",
        minimum=0.01,
    )
    tsa_schedule: str = setting(
        "off",
        "Training signal annealing: labeled images whose true class has a "
        "probability above a threshold are dropped. How the threshold rises "
        "from 1 / classes to 1. Published: by the dataset; off in the paper on "
        "Meta Pseudo Labels.",
        choices=("off", "linear", "exp", "log"),
    )
    tsa_steps: int = steps_setting(
        1,
        "Steps over which that threshold rises (paper: the whole run).",
        minimum=1,
    )

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if self.tsa_schedule == "off":
            found["tsa_steps"] = "--tsa_schedule=off"
        return found


@dataclasses.dataclass(frozen=True)
class FreeMatch(Hyperparameters):
    """FreeMatch, arXiv 2205.07246."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = setting(
        1.0, "Weight of the unlabeled loss (paper: 1). 0 = off.", minimum=0.0
    )
    statistics_decay: float = setting(
        0.99,
        "Decay of the running means of confidence and predictions (paper: "
        "0.999).",
        minimum=0.0,
        maximum=1.0,
    )
    max_confidence_threshold: float = setting(
        1.0,
        "Bound on the global threshold (paper: 0.95 on SVHN). 1 = no bound.",
        minimum=0.0,
        maximum=1.0,
    )
    fairness_weight: float = setting(
        0.01,
        "Weight of the fairness term (paper: 0.001 to 0.01). 0 = off.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class SoftMatch(Hyperparameters):
    """SoftMatch, arXiv 2301.10921."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = setting(
        1.0, "Weight of the unlabeled loss (paper: 1). 0 = off.", minimum=0.0
    )
    statistics_decay: float = setting(
        0.99,
        "Decay of the running means of confidence and predictions (paper: "
        "0.999).",
        minimum=0.0,
        maximum=1.0,
    )
    num_sigmas: float = setting(
        2.0,
        "n: the weight falls with a variance of sigma^2 / n^2 (paper: 2).",
        minimum=0.01,
    )
    uniform_alignment: bool = setting(
        True, "Whether confidences are aligned to the uniform distribution."
    )


@dataclasses.dataclass(frozen=True)
class AdaMatch(Hyperparameters):
    """AdaMatch, arXiv 2106.04732."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = _unlabeled_loss_weight(1.0, "1")
    statistics_decay: float = setting(
        0.99,
        "Decay of the running means of confidence and predictions. Published: "
        "0.999.",
        minimum=0.0,
        maximum=1.0,
    )
    relative_threshold: float = setting(
        0.9,
        "Pseudo-labels whose confidence is lower than this share of the mean "
        "confidence on labeled images are dropped. 0 = keep all. Published: "
        "0.9, USB 0.95.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclasses.dataclass(frozen=True)
class Dash(Hyperparameters):
    """Dash, arXiv 2109.00650."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = _unlabeled_loss_weight(
        1.0, "0.9 in the authors' code"
    )
    labeled_warmup_steps: int = steps_setting(
        1 / 10,
        "Steps on the labeled images alone, before unlabeled ones are "
        "selected. Published: USB 0.2 % of the run; the authors' code 1 %, on "
        "all images.",
    )
    loss_threshold_factor: float = setting(
        1.0001,
        "C: the first threshold on the loss, relative to the labeled loss "
        "after --labeled_warmup_steps. Published: 1.0001.",
        minimum=0.0,
    )
    loss_threshold_divisor: float = setting(
        1.27,
        "gamma: the threshold is divided by it every --loss_threshold_steps. "
        "1 = a constant threshold. Published: 1.27.",
        minimum=1.0,
    )
    loss_threshold_steps: int = steps_setting(
        1 / 100,
        "Steps between two divisions of the threshold. Published: 0.9 % of the "
        "run.",
        minimum=1,
    )
    min_loss_threshold: float = setting(
        0.05,
        "Lower bound of the threshold, at which targets are one-hot. "
        "Published: 0.05, which is a confidence of 0.951.",
        minimum=0.0,
    )
    temperature: float = setting(
        0.5,
        "Divides the logits of the targets, as long as the threshold is above "
        "its lower bound. 1 = off. Published: 0.5.",
        minimum=0.01,
    )

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if self.loss_threshold_divisor == 1:
            found["loss_threshold_steps"] = "--loss_threshold_divisor=1"
        return found


@dataclasses.dataclass(frozen=True)
class SimMatch(Hyperparameters):
    """SimMatch, arXiv 2203.06915."""

    uses_strong_policy = True

    unlabeled_loss_weight: float = _unlabeled_loss_weight(
        1.0, "USB 1, ImageNet 10"
    )
    confidence_threshold: float = setting(
        0.95,
        "Pseudo-labels with a lower confidence are dropped. 0 = keep all. "
        "Published: USB 0.95, ImageNet 0.7.",
        minimum=0.0,
        maximum=1.0,
    )
    instance_loss_weight: float = setting(
        1.0,
        "Weight of the loss of the similarities to labeled images. 0 = off. "
        "Published: USB 1, ImageNet 5.",
        minimum=0.0,
    )
    similarity_temperature: float = setting(
        0.1,
        "Divides the cosines to labeled images. Published: 0.1.",
        minimum=0.01,
    )
    semantic_share: float = setting(
        0.9,
        "alpha: share of the classifier in a pseudo-label; the rest is from "
        "the labels of similar images. 1 = the classifier alone. Published: "
        "0.9.",
        minimum=0.0,
        maximum=1.0,
    )
    bank_size: int = setting(
        512,
        "Labeled images in the memory bank, the most recent ones. Published: "
        "every labeled image once.",
        minimum=1,
    )
    projection_size: int = setting(
        64,
        "Size of the projections that are compared. Published: 128.",
        minimum=1,
    )
    uniform_alignment: bool = setting(
        True,
        "Whether predictions on weak views are aligned to the uniform "
        "distribution.",
    )
    statistics_decay: float = setting(
        0.99,
        "Decay of the running means of confidence and predictions. Published: "
        "a mean over 256 steps.",
        minimum=0.0,
        maximum=1.0,
    )

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.uniform_alignment:
            found["statistics_decay"] = "--nouniform_alignment"
        if not self.instance_loss_weight and self.semantic_share == 1:
            names = "similarity_temperature", "bank_size", "projection_size"
            found |= dict.fromkeys(names, "--instance_loss_weight=0")
        return found


@dataclasses.dataclass(frozen=True)
class CrMatch(Hyperparameters):
    """CRMatch, arXiv 2112.05825."""

    uses_strong_policy = True
    changes_images = True

    unlabeled_loss_weight: float = _unlabeled_loss_weight(1.0, "1 in USB")
    confidence_threshold: float = setting(
        0.95,
        "Pseudo-labels with a lower confidence are dropped. 0 = keep all. "
        "Published: 0.95 in USB.",
        minimum=0.0,
        maximum=1.0,
    )
    feature_loss_weight: float = setting(
        1.0,
        "Weight of the similarity of the features of both views. 0 = off. "
        "Published: 1 in USB.",
        minimum=0.0,
    )
    rotation_loss_weight: float = setting(
        1.0,
        "Weight of the loss of the rotation head. 0 = off. Published: 1 in "
        "USB.",
        minimum=0.0,
    )


@dataclasses.dataclass(frozen=True)
class MixMatch(Mixup):
    """MixMatch, arXiv 1905.02249."""

    mixup_alpha: float = setting(
        0.75,
        "The parameter of MixUp's Beta(alpha, alpha) (paper: 0.75). 0 = no "
        "MixUp.",
        minimum=0.0,
    )
    temperature: float = setting(
        0.5,
        "Guessed labels are sharpened to the power of 1 / temperature (paper: "
        "0.5). 1 = off.",
        minimum=0.01,
    )
    unlabeled_loss_weight: float = setting(
        10.0,
        "Weight of the unlabeled loss, the squared error averaged over "
        "classes (paper: 75; CIFAR-100 150, SVHN 250, STL-10 50). 0 = off.",
        minimum=0.0,
    )
    unlabeled_ramp_steps: int = steps_setting(
        1 / 3,
        "Steps over which that weight rises linearly (paper: 16,000). 0 = at "
        "once.",
    )


def _projection_hidden_size(default):
    """The field of the hidden layer of projection heads."""
    return setting(
        default,
        "Units of the hidden layer of the projection head, and of BYOL's "
        "predictor (paper: SimCLR and MoCo v2 2048, BYOL 4096). 0 = none, a "
        "linear head, as in PIRL.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True)
class SelfSupervised(Hyperparameters):
    """What self-supervised methods have in common."""

    uses_contrastive_policy = True

    projection_size: int = setting(
        64,
        "Size of the projections that are compared (paper: SimCLR and MoCo v2 "
        "128, BYOL 256).",
        minimum=1,
    )
    projection_hidden_size: int = _projection_hidden_size(256)
    finetune_steps: int = steps_setting(
        1 / 2,
        "Steps of the second stage, in which the network is trained on the "
        "labeled images alone. 0 = no second stage: the network is exported "
        "with its linear probe.",
    )
    finetune_learning_rate: float = setting(
        0.01,
        "Peak rate of the second stage, of sgd; it falls to 0 as a cosine.",
        minimum=0.0,
    )
    finetune_batch_size: int = setting(
        0,
        "Labeled images per step of the second stage. 0 = --batch_size.",
        minimum=0,
    )

    @property
    def later_stage_steps(self):
        """See `Hyperparameters.later_stage_steps`."""
        return {"finetune_steps": self.finetune_steps}

    @property
    def later_batch_sizes(self):
        """See `Hyperparameters.later_batch_sizes`."""
        return {"finetune_batch_size": self.finetune_batch_size}

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.finetune_steps:
            names = ("finetune_learning_rate", "finetune_batch_size")
            found |= dict.fromkeys(names, "--finetune_steps=0")
        return found


def _contrast_temperature(default, paper):
    """The field of the temperature of a contrastive loss."""
    return setting(
        default,
        f"Divides the cosines of the contrastive loss. Published: {paper}.",
        minimum=0.01,
    )


def _target_decay(paper):
    """The field of the decay of a target network, with the published one.

    The average is over a sixtieth of the run. With a longer one, short runs are
    taught by a network that has not learned anything yet.
    """
    spans = 1 / 60
    return setting(
        decay_over(spans * REFERENCE_STEPS),
        "Decay of the averaged network that gives the targets (paper: "
        f"{paper}).",
        minimum=0.0,
        maximum=1.0,
        spans=spans,
    )


@dataclasses.dataclass(frozen=True)
class SimClr(SelfSupervised):
    """SimCLR, arXiv 2002.05709."""

    contrast_temperature: float = _contrast_temperature(
        0.5, "0.1, CIFAR-10 0.5"
    )


@dataclasses.dataclass(frozen=True)
class Byol(SelfSupervised):
    """BYOL, arXiv 2006.07733."""

    target_decay: float = _target_decay("0.996")
    target_decay_steps: int = steps_setting(
        1,
        "Steps over which that decay rises to 1 as a cosine (paper: the whole "
        "run). 0 = constant.",
    )


@dataclasses.dataclass(frozen=True)
class MoCoV2(SelfSupervised):
    """MoCo v2, arXiv 2003.04297."""

    contrast_temperature: float = _contrast_temperature(0.5, "0.2")
    target_decay: float = _target_decay("0.999")
    queue_size: int = setting(
        512,
        "Projections of earlier images that are the negatives (paper: 65,536).",
        minimum=1,
    )


@dataclasses.dataclass(frozen=True)
class Pirl(SelfSupervised):
    """PIRL, arXiv 1912.01991."""

    changes_images = True

    projection_hidden_size: int = _projection_hidden_size(0)
    contrast_temperature: float = _contrast_temperature(0.2, "0.07")
    jigsaw_share: float = setting(
        0.5,
        "Share of the loss of the patches; the rest is that of the whole image "
        "(paper: lambda = 0.5).",
        minimum=0.0,
        maximum=1.0,
    )
    patch_size: int = setting(
        0,
        "Height and width at which the network sees patches, each of which is "
        "a quarter of its image (paper: 64 of 224). 0 = half of the image's. "
        "For a network that takes one size only, the image's.",
        minimum=0,
    )
    bank_momentum: float = setting(
        0.5,
        "Decay of the representations in the memory bank (paper: 0.5).",
        minimum=0.0,
        maximum=1.0,
    )
    num_negatives: int = setting(
        512,
        "Entries of the bank that are drawn as negatives in each step (paper: "
        "32,000 for each image).",
        minimum=1,
    )

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.jigsaw_share:
            found["patch_size"] = "--jigsaw_share=0"
        return found


@dataclasses.dataclass(frozen=True)
class Pcl(MoCoV2):
    """PCL, arXiv 2005.04966."""

    num_prototypes: int = setting(
        25,
        "Prototypes of the coarsest clustering; each further one has twice as "
        "many (paper: 25,000).",
        minimum=2,
    )
    num_clusterings: int = setting(
        3,
        "Clusterings of different granularity, M (paper: 3).",
        minimum=1,
        maximum=20,
    )
    cluster_start: int = steps_setting(
        1 / 10,
        "First step with prototypes; before it there is the contrastive loss "
        "alone (paper: after a tenth of the run).",
    )
    cluster_every: int = steps_setting(
        1 / 20,
        "Steps after which images are clustered again (paper: an epoch). The "
        "data pipeline begins anew each time.",
        minimum=1,
    )


@dataclasses.dataclass(frozen=True)
class NoisyStudent(Hyperparameters):
    """Noisy Student, arXiv 1911.04252."""

    uses_weak_policy = False
    uses_strong_policy = True

    num_rounds: int = setting(
        2,
        "Students after the first teacher, each taught by the one before "
        "(paper: 3). 0 = the first teacher alone.",
        minimum=0,
    )
    round_steps: int = steps_setting(1, "Steps of every student.", minimum=1)
    unlabeled_loss_weight: float = setting(
        1.0,
        "Weight of the unlabeled loss (paper: the ratio of the batch sizes). "
        "0 = off.",
        minimum=0.0,
    )
    confidence_threshold: float = setting(
        0.3,
        "Pseudo-labels with a lower confidence are dropped (paper: 0.3). 0 = "
        "keep all.",
        minimum=0.0,
        maximum=1.0,
    )
    images_per_class: int = setting(
        0,
        "Unlabeled images per predicted class: the most confident ones, "
        "repeated if there are fewer (paper: 130,000). 0 = unlabeled images / "
        "classes.",
        minimum=0,
    )
    pseudo_label: str = setting(
        "soft",
        "The label of an unlabeled image. soft: the predicted distribution; "
        "one_hot: its argmax.",
        choices=("soft", "one_hot"),
    )
    label_smoothing: float = setting(
        0.1,
        "Smoothing of the labels of labeled images (paper: 0.1). 0 = off.",
        minimum=0.0,
        maximum=1.0,
    )

    @property
    def scheduled_stage_steps(self):
        """See `Hyperparameters.scheduled_stage_steps`."""
        return {"round_steps": self.round_steps} if self.num_rounds else {}

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.num_rounds:
            names = (
                "round_steps",
                "unlabeled_loss_weight",
                "confidence_threshold",
                "images_per_class",
                "pseudo_label",
            )
            found |= dict.fromkeys(names, "--num_rounds=0")
        return found


@dataclasses.dataclass(frozen=True)
class BillionScale(Hyperparameters):
    """Billion-scale semi-supervised learning, arXiv 1905.00546."""

    # What this method is as a case of Noisy Student. These are no fields, hence
    # no flags.
    label_smoothing = 0.0

    student_steps: int = steps_setting(
        1, "Steps of the student on the ranked images.", minimum=1
    )
    images_per_class: int = setting(
        0,
        "Unlabeled images of each class, those that the teacher ranks first "
        "(paper: 16,000 of a billion). 0 = half of unlabeled images / classes.",
        minimum=0,
    )
    classes_per_image: int = setting(
        10,
        "An image is ranked for so many classes, its most probable ones "
        "(paper: 10).",
        minimum=1,
    )
    finetune_steps: int = steps_setting(
        1 / 6,
        "Steps of the last stage, in which the averaged student is trained on "
        "the labeled images alone. 0 = no last stage.",
    )
    finetune_learning_rate: float = setting(
        1e-3, "Constant rate of the last stage.", minimum=0.0
    )

    @property
    def scheduled_stage_steps(self):
        """See `Hyperparameters.scheduled_stage_steps`."""
        return {"student_steps": self.student_steps}

    @property
    def later_stage_steps(self):
        """See `Hyperparameters.later_stage_steps`."""
        # Finetuning has a constant learning rate.
        return {
            "finetune_steps": self.finetune_steps,
            **self.scheduled_stage_steps,
        }

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if not self.finetune_steps:
            found["finetune_learning_rate"] = "--finetune_steps=0"
        return found


@dataclasses.dataclass(frozen=True)
class EnsembleSelfTraining(Hyperparameters):
    """Self-training on averaged pseudo-labels, after arXiv 2503.09707."""

    # What this method is as a case of Noisy Student. These are no fields, hence
    # no flags.
    label_smoothing = 0.0
    pseudo_label = "soft"

    num_members: int = setting(
        3,
        "Networks that are trained on the labeled images and label the others "
        "together, the first one included.",
        minimum=1,
    )
    member_steps: int = steps_setting(
        1, "Steps of every member but the first.", minimum=1
    )
    student_steps: int = steps_setting(
        1, "Steps of the student, which is exported.", minimum=1
    )
    unlabeled_loss_weight: float = setting(
        1.0, "Weight of the unlabeled loss. 0 = off.", minimum=0.0
    )
    learned_view: str = setting(
        "strong",
        "The view of every image that members and student learn.",
        choices=("weak", "strong"),
    )

    @property
    def uses_weak_policy(self):
        """See `Hyperparameters`."""
        return self.learned_view == "weak"

    @property
    def scheduled_stage_steps(self):
        """See `Hyperparameters.scheduled_stage_steps`."""
        members = {"member_steps": self.member_steps}
        students = {"student_steps": self.student_steps}
        return {**(members if self.num_members > 1 else {}), **students}

    @property
    def without_effect(self):
        """See `Hyperparameters.without_effect`."""
        found = super().without_effect
        if self.num_members == 1:
            found["member_steps"] = "--num_members=1"
        return found


@dataclasses.dataclass(frozen=True)
class ReducedMetaPseudoLabels(Uda, StudentFeedback):
    """Reduced Meta Pseudo Labels: a frozen large teacher, trained with UDA."""

    student_steps: int = steps_setting(
        1,
        "Steps of the student, after those of the large teacher.",
        minimum=1,
    )

    # What this method is as a case of Meta Pseudo Labels; the small teacher
    # sees no images. These are no fields, hence no flags.
    pseudo_label_view = "strong"
    mpl_unlabeled = "unlabeled"
    uda_weight = 0.0
    uda_ramp_steps = 0
    uda_temperature = 1.0

    @property
    def scheduled_stage_steps(self):
        """See `Hyperparameters.scheduled_stage_steps`."""
        return {"student_steps": self.student_steps}


@dataclasses.dataclass(frozen=True)
class ReMixMatch(MixMatch):
    """ReMixMatch, arXiv 1911.09785."""

    changes_images = True
    uses_ctaugment = True

    unlabeled_loss_weight: float = setting(
        1.5,
        "Weight of the unlabeled loss, a cross-entropy (paper: 1.5). 0 = off.",
        minimum=0.0,
    )
    strong_loss_weight: float = setting(
        0.5,
        "Weight of the loss of one strong view without MixUp; rises with the "
        "unlabeled loss (paper: 0.5). 0 = off.",
        minimum=0.0,
    )
    rotation_loss_weight: float = setting(
        0.5,
        "Weight of the loss of the rotation head (paper: 0.5; 2 with 40 labels "
        "of CIFAR-10). 0 = off.",
        minimum=0.0,
    )
    num_strong_views: int = setting(
        2,
        "Number of strong views of an unlabeled image (paper: 8; STL-10 4).",
        minimum=1,
    )


@dataclasses.dataclass(frozen=True)
class EnAet(MixMatch):
    """EnAET, arXiv 1911.09265: MixMatch and predicted transformations."""

    changes_images = True

    transformation_weight: float = setting(
        1.0,
        "Weight of the decoders' losses, which are multiplied by 1, 0.75, 0.5, "
        "0.2 and 0.05 (paper: 1). 0 = off.",
        minimum=0.0,
    )
    transformation_ramp_steps: int = steps_setting(
        1 / 10,
        "Steps over which that weight rises linearly (paper: a tenth of the "
        "run). 0 = at once.",
    )
    agreement_weight: float = setting(
        1.0,
        "Weight of the divergence of predictions on transformed images from "
        "the guessed label (paper: 1). 0 = off.",
        minimum=0.0,
    )
    max_rotation: float = setting(
        30.0, "Largest rotation in degrees (paper: 180).", minimum=0.0
    )
