"""The interface between the data pipeline and the algorithms.

A training batch is a dict of two groups, `labeled` and `unlabeled`; each group
is a dict of tensors with the same leading dimension:

    <view>         [N, H, W, C] uint8   one entry per view asked for
    index          [N] int64            row in the dataset's training images
    label          [N] int32            labeled group only
    oracle_label   [N] int32            unlabeled group only; the true label
                                        where it is known and training does not
                                        use it, else -1, and `FOREIGN` for
                                        a class that is not to be learned. For
                                        metrics only.
    label_draw     [N] float32          uniform in [0, 1), for sampled labels
    mix_weight     [N] float32          MixUp weight of the example itself
    mix_partner    [N] int32            MixUp partner, counted from the start
                                        of the example's block (`MIX_BLOCK`)
    probe_op       [N, depth] int32     with the view `probe`: its operations,
    probe_bin      [N, depth, P] int32  and the bins of their parameters, see
                                        `tf_metassl.ops.augmentation_rates`

An evaluation batch has `image` [N, H, W, C] uint8, `label` [N] int32 and `mask`
[N] float32, which is 0 on the rows that only fill up the last batch.

There are no scalars: every tensor can be split over replicas along its first
axis. The global batch is the same for any number of replicas.
"""

import dataclasses

# MixUp partners are drawn inside blocks of this many neighbors, so that a
# partner is always on the same replica and a global batch is mixed in the same
# way on any number of replicas. Batches are random samples, hence a partner
# from the block is as random as one from the whole batch.
MIX_BLOCK = 8

# The label of an image of a class that is not to be learned, in an unlabeled
# pool. Negative: nothing may learn it or measure by it.
FOREIGN = -2

# What the pipeline does to the image. A suffix `_1`, `_2`, ... asks for a
# further independent draw of the same kind. `ctaugment` is a strong view whose
# magnitudes are learned; `probe` is one whose magnitudes are being rated;
# `contrastive` is a strong view for self-supervised methods.
VIEW_KINDS = ("clean", "weak", "strong", "ctaugment", "probe", "contrastive")


def view_kind(view: str) -> str:
    """Returns the kind of `view`: `weak` for `weak`, `weak_1`, `weak_2`, ...

    Raises:
        ValueError: if the view's kind is unknown.
    """
    kind = view.split("_")[0]
    if kind not in VIEW_KINDS:
        raise ValueError(
            f"Unknown view {view!r}: expected one of {', '.join(VIEW_KINDS)}, "
            "with an optional suffix such as weak_1."
        )
    return kind


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of each image that an algorithm needs in its batches.

    Attributes:
        labeled: views of the labeled images.
        unlabeled: views of the unlabeled images; empty if the algorithm uses
            no unlabeled images.
        mixup_alpha: `mix_weight` is drawn from Beta(alpha, alpha); 0 makes it
            always 1.
        mix_weight_rule: `plain` for the draw itself, `dominant` for
            max(draw, 1 - draw).
        mix_weight_per: `image` for a draw per image, `batch` for one per
            group of a batch.
        judge_share: the share of the labeled images of which `judges` is True;
            0: there is no `judges`.
    """

    labeled: tuple[str, ...] = ("weak",)
    unlabeled: tuple[str, ...] = ()
    mixup_alpha: float = 0.0
    mix_weight_rule: str = "plain"
    mix_weight_per: str = "image"
    judge_share: float = 0.0

    def __post_init__(self) -> None:
        for view in self.labeled + self.unlabeled:
            view_kind(view)


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What networks and algorithms need to know about a dataset.

    Attributes:
        name: the value of `--dataset`.
        class_names: one name per class, in the order of the labels.
        image_shape: height, width and channels of every image.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)
