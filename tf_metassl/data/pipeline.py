"""Batches as a pure function of seed and step, see `tf_metassl.contract`.

The pipeline has no state to save: the seed and the step t decide which images
are in the batch, how they are augmented and which of them are mixed. A run is
resumed at step t by asking for the batches from t on.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_metassl.contract import MIX_BLOCK, Views, view_kind
from tf_metassl.data import host_draws, image_ops, policies, splits
from tf_metassl.data.ctaugment import CTAugmentPolicy
from tf_metassl.data.store import Source

# The pipeline contains no control flow for autograph to convert, and its
# attempt takes seconds when a dataset is mapped.
_without_autograph = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class Pool:
    """The rows of a training set that one group of the batch is drawn from.

    Attributes:
        name: `labeled` or `unlabeled`.
        rows: `[M]` rows of the source's training images.
        batch_size: rows per global batch.
        views: views of each image, see `tf_metassl.contract.Views`.
        balanced: whether every class is drawn equally often; all rows must
            have a label then.
    """

    name: str
    rows: np.ndarray
    batch_size: int
    views: tuple[str, ...]
    balanced: bool = False


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The policies behind the views `weak`, `strong` and `contrastive`.

    Attributes:
        weak: a key of `policies.WEAK_POLICIES`, or a `Policy`.
        strong: a key of `policies.STRONG_POLICIES`, or a `Policy`.
        magnitude: magnitude of the strong policy; None for its own.
        contrastive: a key of `policies.CONTRASTIVE_POLICIES`, or a `Policy`.
        mirror: whether policies may mirror images.
        probabilities: of CTAugment's bins, see
            `tf_metassl.ops.augmentation_rates`; None: all bins are equally
            probable.
    """

    weak: str | policies.Policy
    strong: str | policies.Policy
    magnitude: float | None = None
    contrastive: str | policies.Policy = "simclr_small"
    mirror: bool = True
    probabilities: np.ndarray | None = None


def augmentation(source, options):
    """Returns the policies that the options name, with `auto` resolved.

    Args:
        source: the `tf_metassl.data.store.Source` whose policies `auto` means.
        options: anything with `weak_augmentation`, `strong_augmentation`,
            `contrastive_augmentation`, `strong_magnitude`, 0 for a policy's
            own, and `mirror`.
    """
    weak, strong = options.weak_augmentation, options.strong_augmentation
    contrastive = options.contrastive_augmentation
    if contrastive == "auto":
        contrastive = policies.contrastive_for(
            source.weak_policy, source.info.image_shape[:2]
        )
    return Augmentation(
        weak=source.weak_policy if weak == "auto" else weak,
        strong=source.strong_policy if strong == "auto" else strong,
        magnitude=options.strong_magnitude or None,
        contrastive=contrastive,
        mirror=options.mirror == "on",
    )


def check_channels(views, augmentation, channels):
    """Checks that the policies of all views suit the images.

    Args:
        views: a `tf_metassl.contract.Views`.
        augmentation: an `Augmentation`.
        channels: of the images.

    Raises:
        ValueError: if a policy needs gray or color images and there are
            others, or has no magnitude and one is given.
    """
    for view in (*views.labeled, *views.unlabeled):
        kind = view_kind(view)
        layers = _layers(kind, augmentation).values()
        if channels in (1, 3) or not any(p.mixes_colors for p in layers):
            continue
        if kind == "strong":
            what = f"--strong_augmentation={augmentation.strong}"
            remedy = "leave it at auto"
        elif kind == "contrastive":
            what = f"--contrastive_augmentation={augmentation.contrastive}"
            remedy = "choose an --algo without it"
        else:
            what, remedy = "CTAugment", "choose an --algo without it"
        raise ValueError(
            f"{what} changes colors, and the images have {channels} channels, "
            f"not 1 or 3: {remedy}."
        )


def epoch_rows(num_rows, first, count, seed):
    """Positions in a pool for consecutive draws: each row once per epoch.

    Args:
        num_rows: size M of the pool.
        first: scalar int64, number of draws made before.
        count: how many draws to return, static.
        seed: `[2]` int32, stateless seed of the pool.

    Returns:
        `[count]` int64 in [0, M); a fresh permutation every M draws, also
        where an epoch ends inside the batch.
    """
    draw = first + tf.range(count, dtype=tf.int64)
    size = tf.fill([count], tf.constant(num_rows, tf.int64))
    return _shuffled(draw % num_rows, size, draw // num_rows, seed)


def balanced_rows(labels, first, count, seed):
    """Positions in a pool for consecutive draws, every class equally often.

    C draws from a multiple of C on are of the C classes, in a fresh order. Of
    the draws of a class each row is drawn once before one is drawn again.

    Args:
        labels: `[M]` integers, the classes of the rows of the pool.
        first: scalar int64, number of draws made before.
        count: how many draws to return, static.
        seed: `[2]` int32, stateless seed of the pool.

    Returns:
        `[count]` int64 in [0, M).
    """
    _, starts, sizes = np.unique(
        np.sort(labels), return_index=True, return_counts=True
    )
    num_classes = len(sizes)
    members = tf.constant(np.argsort(labels, kind="stable"), tf.int64)
    place = epoch_rows(
        num_classes, first, count, host_draws.fold_in(seed, "class")
    )
    size = tf.gather(tf.constant(sizes, tf.int64), place)
    # Every class has been drawn once in each of the rounds before.
    drawn = (first + tf.range(count, dtype=tf.int64)) // num_classes
    row = _shuffled(
        drawn % size, size, drawn // size * num_classes + place, seed
    )
    return tf.gather(members, tf.gather(tf.constant(starts), place) + row)


def _shuffled(index, size, epoch, seed):
    """The places of numbers in permutations.

    Args:
        index: `[n]` int64 in [0, size).
        size: `[n]` int64, of the permutations.
        epoch: `[n]` int64, the permutation of each; which is a function of it,
            the size and the seed.
        seed: `[2]` int32.

    Returns:
        `[n]` int64 in [0, size).
    """
    seeds = [tf.zeros_like(epoch) + tf.cast(seed[i], tf.int64) for i in (0, 1)]
    return tf.raw_ops.RandomIndexShuffle(
        index=index,
        seed=tf.stack([*seeds, epoch], axis=1),
        max_index=size - 1,
        rounds=4,
    )


def mix_draws(seed, count, alpha, rule, block=MIX_BLOCK):
    """MixUp weights and partners for a whole batch.

    Args:
        seed: `[2]` int32.
        count: N, static.
        alpha: of Beta(alpha, alpha); 0 gives weight 1.
        rule: `plain` or `dominant`, see `tf_metassl.contract.Views`.
        block: partners are drawn inside blocks of this many rows.

    Returns:
        `mix_weight [N]` float32 and `mix_partner [N]` int32. Inside a block
        the partners form one random cycle: every row is a partner once, and
        never its own. If N is not a multiple of `block`, every row is its own
        partner.
    """
    if alpha:
        gamma = tf.random.stateless_gamma(
            [2, count], host_draws.fold_in(seed, 0), alpha
        )
        weight = tf.math.divide_no_nan(gamma[0], gamma[0] + gamma[1])
        if rule == "dominant":
            weight = tf.maximum(weight, 1.0 - weight)
    else:
        weight = tf.ones([count])
    if count % block:
        return weight, tf.range(count, dtype=tf.int32) % block
    keys = host_draws.uniform(
        [count // block, block], host_draws.fold_in(seed, 1)
    )
    cycle = tf.argsort(keys)
    place = tf.argsort(cycle)
    partner = tf.gather(tf.roll(cycle, -1, axis=1), place, batch_dims=1)
    return weight, tf.reshape(partner, [count])


def view_of(images, view, seed, total, rows, augmentation, size=None):
    """One view of a batch of images.

    Draws are made for the whole global batch, which is cheap, and applied to
    the rows of one replica.

    Args:
        images: `[n, H, W, C]` uint8, the stored images of one replica.
        view: name of the view.
        seed: `[2]` int32 of this step and group.
        total: size of the global batch.
        rows: a slice, the replica's rows of the global batch.
        augmentation: an `Augmentation`.
        size: (height, width) of the view; None for that of the images.

    Returns:
        `(view, notes)`: `[n, height, width, C]` uint8, and a dict of the parts
        of the draw that belong to the batch.
    """
    kind = view_kind(view)
    size = size or tuple(images.shape[1:3])
    notes = {}
    for name, policy in _layers(kind, augmentation).items():
        draw = policy.draw(
            host_draws.fold_in(seed, view, name),
            total,
            tuple(images.shape[1:]),
            size,
        )
        draw = {
            key: _replica_rows(values, rows, images.shape[0])
            for key, values in draw.items()
        }
        images = policy.apply(images, draw, size)
        if name == "probe":
            notes = {"probe_op": draw["op"], "probe_bin": draw["bin"]}
    if kind == "clean":
        images = image_ops.center_crop(images, *size)
    return images, notes


def _layers(kind, augmentation):
    """Policies of a kind of view, by name, in the order of application."""
    layers = _with_mirroring(kind, augmentation)
    if augmentation.mirror:
        return layers
    return {name: p.without_mirroring() for name, p in layers.items()}


def _with_mirroring(kind, augmentation):
    """`_layers` with `mirror`."""
    if kind == "clean":
        return {}
    if kind == "contrastive":
        return {kind: policies.contrastive(augmentation.contrastive)}
    layers = {"weak": policies.weak(augmentation.weak)}
    if kind == "strong":
        strong = policies.strong(augmentation.strong)
        if augmentation.magnitude is not None:
            strong = strong.with_magnitude(augmentation.magnitude)
        if isinstance(strong, CTAugmentPolicy):
            strong = dataclasses.replace(
                strong, probabilities=augmentation.probabilities
            )
        if strong.replaces_weak:
            return {kind: strong}
        layers[kind] = strong
    elif kind == "ctaugment":
        # The code of ReMixMatch has no cutout besides; FixMatch's has one.
        layers[kind] = CTAugmentPolicy(
            augmentation.probabilities, final_cutout=0.0
        )
    elif kind == "probe":
        layers[kind] = CTAugmentPolicy(final_cutout=0.0)
    return layers


def _replica_rows(values, rows, size):
    """The rows of one replica; a slice from a tensor on has no static size."""
    return tf.ensure_shape(values[rows], [size, *values.shape[1:]])


@dataclasses.dataclass(frozen=True, eq=False)
class _Batches:
    """Everything that a batch depends on, besides its step and replica.

    Attributes:
        source: the dataset.
        labels: `[N]` int32 tensor, those of its training images.
        oracle_labels: `[N]` int32 tensor, the labels that training does not
            use; -1 for all others.
        pools: the groups of the batch.
        views: for the MixUp draws.
        augmentation: the policies.
        seed: `[2]` int32, of the run.
        num_shards: replicas in all.
        judges: `[N]` boolean tensor, see `splits.judges`; None: not asked for.
    """

    source: Source
    labels: tf.Tensor
    oracle_labels: tf.Tensor
    pools: tuple[Pool, ...]
    views: Views
    augmentation: Augmentation
    seed: tf.Tensor
    num_shards: int
    judges: tf.Tensor | None

    def batch(self, step, replica):
        """The batch of one replica, a dict of groups.

        Args:
            step: scalar int64.
            replica: scalar int32.
        """
        return {
            pool.name: self._group(pool, step, replica) for pool in self.pools
        }

    def _group(self, pool, step, replica):
        share = pool.batch_size // self.num_shards
        start = replica * share
        rows = slice(start, start + share)
        pool_seed = host_draws.fold_in(self.seed, pool.name)
        step_seed = host_draws.fold_in(pool_seed, step)
        first = step * pool.batch_size + tf.cast(start, tf.int64)
        if pool.balanced:
            of_rows = self.source.train.labels[pool.rows]
            position = balanced_rows(of_rows, first, share, pool_seed)
        else:
            position = epoch_rows(len(pool.rows), first, share, pool_seed)
        index = tf.gather(tf.constant(pool.rows, tf.int64), position)
        if pool.name == "labeled":
            group = {"index": index, "label": tf.gather(self.labels, index)}
            if self.judges is not None:
                group["judges"] = tf.gather(self.judges, index)
        else:
            oracle_label = tf.gather(self.oracle_labels, index)
            group = {"index": index, "oracle_label": oracle_label}
        for name, values in self._row_draws(step_seed, pool.batch_size).items():
            group[name] = _replica_rows(values, rows, share)
        train = self.source.train
        images = tf.ensure_shape(train.gather(index), [share, *train.shape])
        for view in pool.views:
            group[view], notes = view_of(
                images,
                view,
                step_seed,
                pool.batch_size,
                rows,
                self.augmentation,
                self.source.info.image_shape[:2],
            )
            group |= notes
        return group

    def _row_draws(self, seed, total):
        """The draws of a step that are no augmentation, `[total]` each."""
        weight, partner = mix_draws(
            host_draws.fold_in(seed, "mix"),
            total,
            self.views.mixup_alpha,
            self.views.mix_weight_rule,
        )
        if self.views.mix_weight_per == "batch":
            weight = tf.fill([total], weight[0])
        return {
            "label_draw": host_draws.uniform(
                [total], host_draws.fold_in(seed, "label")
            ),
            "mix_weight": weight,
            "mix_partner": partner,
        }


def training_dataset(
    source,
    pools,
    *,
    views,
    augmentation,
    seed,
    first_step=0,
    shard=0,
    num_shards=1,
    local_shards=1,
    num_parallel_calls=tf.data.AUTOTUNE,
    hide_trained_labels=True,
):
    """The batches from `first_step` on, without end.

    Args:
        source: a `tf_metassl.data.store.Source`.
        pools: a sequence of `Pool`; groups of the batch.
        views: a `tf_metassl.contract.Views`, for the MixUp draws.
        augmentation: an `Augmentation`.
        seed: the run's data seed.
        first_step: the step of the first batch.
        shard: the first replica that reads this dataset.
        num_shards: replicas in all, each of which gets consecutive rows of
            the global batch.
        local_shards: replicas that read this dataset; its elements go to them
            in turn.
        num_parallel_calls: batches that are made at the same time; changes
            only the speed.
        hide_trained_labels: whether `oracle_label` is -1 for images whose
            labels are in the labeled pool: what is known of them proves
            nothing of pseudo-labels.

    Returns:
        A `tf.data.Dataset` of per-replica batches with static shapes.

    Raises:
        ValueError: if a batch cannot be split evenly over the replicas, or no
            labeled image can judge.
    """
    for pool in pools:
        if pool.batch_size % num_shards:
            raise ValueError(
                f"The {pool.name} batch of {pool.batch_size} images cannot be "
                f"split over {num_shards} replicas: change --batch_size."
            )
    oracle_labels = source.train.labels.copy()
    for pool in pools:
        if pool.name == "labeled" and hide_trained_labels:
            oracle_labels[pool.rows] = -1
    judges = None
    if views.judge_share:
        (labeled,) = [pool for pool in pools if pool.name == "labeled"]
        judges = tf.constant(
            splits.judges(source.train.labels, labeled.rows, views.judge_share)
        )
    batches = _Batches(
        source=source,
        labels=tf.constant(source.train.labels),
        oracle_labels=tf.constant(oracle_labels),
        pools=tuple(pools),
        views=views,
        augmentation=augmentation,
        seed=tf.constant([seed & 0x7FFFFFFF, 0x5E11], tf.int32),
        num_shards=num_shards,
        judges=judges,
    )

    @_without_autograph
    def batch(element):
        step = element // local_shards
        replica = shard + tf.cast(element % local_shards, tf.int32)
        return batches.batch(step, replica)

    dataset = tf.data.Dataset.range(first_step * local_shards, 2**62)
    return dataset.map(batch, num_parallel_calls).prefetch(2 * local_shards)


def evaluation_dataset(
    images,
    *,
    batch_size,
    size=None,
    fill=True,
    shard=0,
    num_shards=1,
    local_shards=1,
):
    """All images once, in order; what the last batch is filled with is masked.

    Args:
        images: a `tf_metassl.data.store.Images`.
        batch_size: rows per global batch.
        size: (height, width) that is cut out of the middle of larger stored
            images; None for all of them.
        fill: give the last batch as many rows as the others; else it has as
            few as fit, the same number on each replica, and the number of rows
            is no part of the static shape.
        shard: as in `training_dataset`.
        num_shards: as in `training_dataset`.
        local_shards: as in `training_dataset`.

    Returns:
        A finite `tf.data.Dataset` of per-replica batches with `image`, `label`
        and `mask`.
    """
    if batch_size % num_shards:
        raise ValueError(
            f"The evaluation batch of {batch_size} images cannot be split "
            f"over {num_shards} replicas: change --eval_batch_size."
        )
    per_replica = batch_size // num_shards
    labels = tf.constant(images.labels)
    total = len(images)
    size = size or images.shape[:2]

    @_without_autograph
    def batch(element):
        step = element // local_shards
        replica = shard + element % local_shards
        rows = tf.constant(per_replica, tf.int64)
        if not fill:
            left = total - step * batch_size
            rows = tf.minimum(rows, -(-left // num_shards))
        first = step * batch_size + replica * rows
        index = first + tf.range(rows)
        inside = tf.minimum(index, total - 1)
        return {
            "image": image_ops.center_crop(images.gather(inside), *size),
            "label": tf.gather(labels, inside),
            "mask": tf.cast(index < total, tf.float32),
        }

    num_steps = evaluation_steps(total, batch_size)
    dataset = tf.data.Dataset.range(num_steps * local_shards)
    return dataset.map(batch, tf.data.AUTOTUNE).prefetch(2 * local_shards)


def evaluation_steps(size, batch_size):
    """Global batches that cover `size` images."""
    return -(-size // batch_size)
