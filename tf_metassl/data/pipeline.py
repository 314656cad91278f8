"""Batches as a pure function of (seed, step): see `tf_metassl.contract`.

Nothing here has a state to save. Which images are in the batch of step t, how
they are augmented and whom they are mixed with follows from the seed and t;
resuming is starting at step t.
"""

import dataclasses
import zlib

import numpy as np
import tensorflow as tf

from tf_metassl.contract import MIX_BLOCK, view_kind
from tf_metassl.data import ctaugment, image_ops, policies


@dataclasses.dataclass(frozen=True)
class Pool:
    """The rows of a training set that one group of the batch is drawn from.

    Attributes:
        name: `labeled` or `unlabeled`.
        rows: `[M]` rows of the source's training images.
        batch_size: rows per global batch.
        views: views of each image, see `tf_metassl.contract.Views`.
    """

    name: str
    rows: np.ndarray
    batch_size: int
    views: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Names of the policies behind the views `weak` and `strong`.

    Attributes:
        weak: a key of `policies.WEAK_POLICIES`.
        strong: a key of `policies.STRONG_POLICIES`.
        magnitude: magnitude of the strong policy; None for its own.
        probabilities: of CTAugment's bins, see
            `tf_metassl.ops.augmentation_rates`; None for all alike.
    """

    weak: str
    strong: str
    magnitude: float | None = None
    probabilities: np.ndarray | None = None


def augmentation(source, options):
    """The policies that the options name, with `auto` resolved.

    Args:
        source: the `tf_metassl.data.store.Source` that `auto` suits.
        options: anything with `weak_augmentation`, `strong_augmentation` and
            `strong_magnitude`, 0 for a policy's own.
    """
    weak, strong = options.weak_augmentation, options.strong_augmentation
    return Augmentation(
        weak=source.weak_policy if weak == "auto" else weak,
        strong=source.strong_policy if strong == "auto" else strong,
        magnitude=options.strong_magnitude or None,
    )


def check_channels(views, augmentation, channels):
    """Refuses policies that mix colors where there are none.

    Args:
        views: a `tf_metassl.contract.Views`.
        augmentation: an `Augmentation`.
        channels: of the images.

    Raises:
        ValueError: if a view needs gray or color images.
    """
    if channels in (1, 3):
        return
    kinds = set(map(view_kind, (*views.labeled, *views.unlabeled)))
    strong = policies.STRONG_POLICIES[augmentation.strong]
    wrong = "changes colors, and the images have"
    if "strong" in kinds and isinstance(strong, policies.RandAugmentPolicy):
        raise ValueError(
            f"--strong_augmentation={augmentation.strong} {wrong} {channels} "
            "channels, not 1 or 3: leave it at auto."
        )
    if kinds & {"ctaugment", "probe"}:
        raise ValueError(
            f"CTAugment {wrong} {channels} channels, not 1 or 3: choose an "
            "--algo without it."
        )


def fold(seed, *data):
    """Folds integers and names into a stateless seed `[2]`, one by one."""
    for item in data:
        if isinstance(item, str):
            item = zlib.crc32(item.encode()) & 0x7FFFFFFF
        seed = tf.random.experimental.stateless_fold_in(
            seed, tf.cast(item, tf.int32)
        )
    return seed


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
    epoch = draw // num_rows
    seeds = tf.stack(
        [
            tf.fill([count], tf.cast(seed[0], tf.int64)),
            tf.fill([count], tf.cast(seed[1], tf.int64)),
            epoch,
        ],
        axis=1,
    )
    return tf.raw_ops.RandomIndexShuffle(
        index=draw % num_rows,
        seed=seeds,
        max_index=tf.constant(num_rows - 1, tf.int64),
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
        the partners form one random cycle: every row is a partner once and
        nobody's own. With N not a multiple of `block`, partners are rows
        themselves.
    """
    if alpha:
        gamma = tf.random.stateless_gamma([2, count], fold(seed, 0), alpha)
        weight = tf.math.divide_no_nan(gamma[0], gamma[0] + gamma[1])
        if rule == "dominant":
            weight = tf.maximum(weight, 1.0 - weight)
    else:
        weight = tf.ones([count])
    if count % block:
        return weight, tf.range(count, dtype=tf.int32) % block
    keys = tf.random.stateless_uniform([count // block, block], fold(seed, 1))
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
        `(view, notes)`: `[n, height, width, C]` uint8 and a dict of what a
        method has to know of the draw.
    """
    kind = view_kind(view)
    weak = policies.WEAK_POLICIES[augmentation.weak]
    strong = policies.STRONG_POLICIES[augmentation.strong]
    stored = tuple(images.shape[1:])
    size = size or stored[:2]
    shape = (*size, stored[2])

    def of_replica(tensor):
        # A slice from a tensor on has no static size of its own.
        size = images.shape[0]
        return tf.ensure_shape(tensor[rows], [size, *tensor.shape[1:]])

    def replica_rows(draw):
        return tf.nest.map_structure(of_replica, draw)

    # Other operations than those of an affine policy work on a weakly augmented
    # image; that one moves the image itself, and a second resampling would only
    # blur it.
    affine = kind == "strong" and isinstance(strong, policies.AffinePolicy)
    if kind == "clean" or affine:
        images = image_ops.center_crop(images, *size)
    else:
        draw = policies.draw_weak(
            fold(seed, view, "weak"), total, stored, weak, size
        )
        images = policies.apply_weak(images, replica_rows(draw), weak, size)
    notes = {}
    if kind == "strong":
        draw = policies.draw_strong(
            fold(seed, view, "strong"),
            total,
            shape,
            strong,
            augmentation.magnitude,
        )
        images = policies.apply_strong(images, replica_rows(draw), strong)
    elif kind in ("ctaugment", "probe"):
        draw = ctaugment.draw_ctaugment(
            fold(seed, view, kind),
            total,
            shape,
            augmentation.probabilities if kind == "ctaugment" else None,
        )
        draw = replica_rows(draw)
        if kind == "probe":
            notes = {"probe_op": draw["op"], "probe_bin": draw["bin"]}
            images = ctaugment.apply_ctaugment(images, draw, cutout_fraction=0)
        else:
            images = ctaugment.apply_ctaugment(images, draw)
    return images, notes


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
        local_shards: replicas that read this dataset; they get its elements
            in turns.
        num_parallel_calls: batches that are made at the same time; changes
            the speed alone.

    Returns:
        A `tf.data.Dataset` of per-replica batches with static shapes.

    Raises:
        ValueError: if a batch cannot be split evenly over the replicas.
    """
    for pool in pools:
        if pool.batch_size % num_shards:
            raise ValueError(
                f"The {pool.name} batch of {pool.batch_size} images cannot be "
                f"split over {num_shards} replicas: change --batch_size."
            )
    labels = tf.constant(source.train.labels)
    size = source.info.image_shape[:2]
    run_seed = tf.constant([seed & 0x7FFFFFFF, 0x5E11], tf.int32)

    def group(pool, step, replica):
        per_replica = pool.batch_size // num_shards
        pool_seed = fold(run_seed, pool.name)
        step_seed = fold(pool_seed, step)
        start = replica * per_replica
        position = epoch_rows(
            len(pool.rows),
            step * pool.batch_size + tf.cast(start, tf.int64),
            per_replica,
            pool_seed,
        )
        index = tf.gather(tf.constant(pool.rows, tf.int64), position)
        rows = slice(start, start + per_replica)

        def replica_rows(tensor):
            tensor = tensor[rows]
            tensor.set_shape([per_replica, *tensor.shape[1:]])
            return tensor

        weight, partner = mix_draws(
            fold(step_seed, "mix"),
            pool.batch_size,
            views.mixup_alpha,
            views.mix_weight_rule,
        )
        draw = tf.random.stateless_uniform(
            [pool.batch_size], fold(step_seed, "label")
        )
        label_key = "label" if pool.name == "labeled" else "oracle_label"
        plain = tf.ensure_shape(
            source.train.gather(index), [per_replica, *source.train.shape]
        )
        views_of_group, notes = {}, {}
        for view in pool.views:
            views_of_group[view], noted = view_of(
                plain,
                view,
                step_seed,
                pool.batch_size,
                rows,
                augmentation,
                size,
            )
            notes |= noted
        return {
            **views_of_group,
            **notes,
            "index": index,
            label_key: tf.gather(labels, index),
            "label_draw": replica_rows(draw),
            "mix_weight": replica_rows(weight),
            "mix_partner": replica_rows(partner),
        }

    def batch(element):
        step = element // local_shards
        replica = shard + tf.cast(element % local_shards, tf.int32)
        return {pool.name: group(pool, step, replica) for pool in pools}

    dataset = tf.data.Dataset.range(first_step * local_shards, 2**62)
    return dataset.map(batch, num_parallel_calls).prefetch(2 * local_shards)


def evaluation_dataset(
    images, *, batch_size, size=None, shard=0, num_shards=1, local_shards=1
):
    """All images once, in order; the last batch is filled up and masked.

    Args:
        images: a `tf_metassl.data.store.Images`.
        batch_size: rows per global batch.
        size: (height, width) that is cut out of the middle of larger stored
            images; None for all of them.
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

    def batch(element):
        step = element // local_shards
        replica = shard + element % local_shards
        first = step * batch_size + replica * per_replica
        index = first + tf.range(per_replica, dtype=tf.int64)
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
