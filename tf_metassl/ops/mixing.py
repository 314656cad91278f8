"""MixUp and CutMix, with weights and partners that the data pipeline draws."""

from collections.abc import Sequence

import tensorflow as tf

from tf_metassl.contract import MIX_BLOCK
from tf_metassl.ops.checks import check_rank, known_size


def num_blocks(size: int | None, block: int = MIX_BLOCK) -> int:
    """The number of blocks of `block` rows in a batch of `size` rows.

    Raises:
        ValueError: if it is not a whole number.
    """
    if size is None or size % block:
        raise ValueError(
            f"MixUp needs a static batch size that is a multiple of {block}, "
            f"got {size}. Change --batch_size or the number of replicas."
        )
    return size // block


def joined(groups: Sequence[tf.Tensor], count: int) -> tf.Tensor:
    """Concatenates groups so that each block has its share of every group.

    Rows can then be mixed across groups within blocks, which never span
    replicas.

    Args:
        groups: tensors `[N_i, ...]` that differ in N_i only, a multiple of
            `count`.
        count: number of blocks.

    Returns:
        `[sum N_i, ...]`; `parted` is the inverse.
    """
    blocks = [tf.reshape(g, [count, -1, *g.shape[1:]]) for g in groups]
    values = tf.concat(blocks, axis=1)
    return tf.reshape(values, [-1, *values.shape[2:]])


def parted(
    values: tf.Tensor, sizes: Sequence[int], count: int
) -> list[tf.Tensor]:
    """Splits what `joined` returned into groups of N_i = `sizes` rows."""
    blocks = tf.reshape(values, [count, -1, *values.shape[1:]])
    groups = tf.split(blocks, [size // count for size in sizes], axis=1)
    return [tf.reshape(g, [-1, *g.shape[2:]]) for g in groups]


def partners(
    values: tf.Tensor, mix_partner: tf.Tensor, block: int = MIX_BLOCK
) -> tf.Tensor:
    """Gathers the MixUp partner of every row.

    Args:
        values: `[N, ...]`; N must be a multiple of `block`.
        mix_partner: `[N]` int32 in [0, block), counted inside the block of
            the row.
        block: rows per block.

    Returns:
        `[N, ...]`, same dtype; gradients flow to the gathered rows.
    """
    check_rank("mix_partner", mix_partner, 1)
    size = block * num_blocks(values.shape[0], block)
    start = tf.repeat(tf.range(0, size, block, dtype=mix_partner.dtype), block)
    return tf.gather(values, start + mix_partner)


def mixup(
    values: tf.Tensor,
    mix_weight: tf.Tensor,
    mix_partner: tf.Tensor,
    block: int = MIX_BLOCK,
) -> tf.Tensor:
    """Convex combination of every row with its partner.

    Call it twice with the same draw: for float images in 0...255 and for label
    distributions.

    Source: Zhang et al., arXiv 1710.09412, equation 1.

    Args:
        values: `[N, ...]` of a float dtype.
        mix_weight: `[N]`, the weight of the row itself; 1 is the identity.
        mix_partner: `[N]` int32, see `partners`.
        block: rows per block.

    Returns:
        `[N, ...]`: weight * row + (1 - weight) * partner, same dtype.

    Raises:
        ValueError: if the values are integers, which would be truncated.
    """
    check_rank("mix_weight", mix_weight, 1)
    if not values.dtype.is_floating:
        raise ValueError(
            f"mixup: expected float values, got {values.dtype.name}; cast "
            "uint8 images before mixing them."
        )
    shape = [-1] + [1] * (values.shape.rank - 1)
    weight = tf.reshape(tf.cast(mix_weight, values.dtype), shape)
    return weight * values + (1.0 - weight) * partners(
        values, mix_partner, block
    )


def cutmix(
    images: tf.Tensor,
    mix_weight: tf.Tensor,
    mix_partner: tf.Tensor,
    center: tf.Tensor,
    block: int = MIX_BLOCK,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces a rectangle of every image by that of its partner.

    The sides of the rectangle are sqrt(1 - weight) of those of the image,
    rounded as in the authors' code; what lies outside the image is cut off.
    Mix the labels by `mixup` with the weight that is returned, the share of
    the image that is left.

    Source: Yun et al., arXiv 1905.04899, equations 1 and 2 of the paper, which
    draws one weight and rectangle per batch, not per image.

    Args:
        images: `[N, H, W, C]` of any dtype, H and W static.
        mix_weight: `[N]`, the share of the row itself; 1 is the identity.
        mix_partner: `[N]` int32, see `partners`.
        center: `[N, 2]` in [0, 1), y and x of the rectangle's center as shares
            of height and width.
        block: rows per block.

    Returns:
        `(images, weight)`: `[N, H, W, C]` of the same dtype, and `[N]`, which
        has no gradient. Gradients of the images flow to both sources.
    """
    check_rank("images", images, 4)
    check_rank("mix_weight", mix_weight, 1)
    check_rank("center", center, 2)
    shape = [known_size("images", images, axis) for axis in (1, 2)]
    share = tf.sqrt(1.0 - tf.cast(mix_weight, tf.float32))
    inside = []
    for axis, size in enumerate(shape):
        half = tf.cast(size * share, tf.int32) // 2
        middle = tf.cast(size * tf.cast(center[:, axis], tf.float32), tf.int32)
        place = tf.range(size)[tf.newaxis]
        begin, end = (middle - half)[:, None], (middle + half)[:, None]
        inside.append((place >= begin) & (place < end))  # [N, size]
    cut = inside[0][:, :, None] & inside[1][:, None]  # [N, H, W]
    mixed = tf.where(
        tf.expand_dims(cut, -1), partners(images, mix_partner, block), images
    )
    covered = tf.reduce_mean(tf.cast(cut, mix_weight.dtype), axis=[1, 2])
    return mixed, 1.0 - covered
