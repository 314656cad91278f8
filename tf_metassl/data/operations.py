"""A different operation for each image of a batch, in few kernels.

Shared by the policies that draw from a list of operations: RandAugment and
CTAugment.
"""

import tensorflow as tf

from tf_metassl.data import image_ops


def rows_of_operations(op, applied, names):
    """Sorts the images of a batch by their operation.

    Args:
        op: `[N]` int32, an index into `names`.
        applied: `[N]` bool; images without it are left out.
        names: of the operations.

    Returns:
        Dict from each operation to the rows `[n]` int32 that it is applied to.
    """
    target = tf.where(applied, op, len(names))
    rows = tf.dynamic_partition(
        tf.range(tf.size(target)), target, len(names) + 1
    )
    return dict(zip(names, rows[: len(names)], strict=True))


def apply_operations(images, rows, *, matrices, tables, kernels, fill_value):
    """Applies at most one operation to each image of a batch.

    All geometric operations are one projective transform, all tonal ones one
    look-up; only the others have a kernel each.

    Args:
        images: `[N, H, W, C]` uint8.
        rows: operation -> the rows `[n]` that it is applied to.
        matrices: geometric operation -> function of its name that returns
            `[n, 8]`.
        tables: tonal operation -> function of its name and its images that
            returns `[n, C, 256]` or `[n, 1, 256]`.
        kernels: other operation -> function of its name and its images that
            returns images.
        fill_value: gray level of uncovered pixels.

    Returns:
        `[N, H, W, C]` uint8.
    """
    changed = []
    if matrices:
        positions = tf.concat([rows[op] for op in matrices], 0)
        moved = image_ops.projective_transform(
            tf.gather(images, positions),
            tf.concat([make(op) for op, make in matrices.items()], 0),
            fill_value,
        )
        changed.append((positions, moved))
    if tables:
        positions = tf.concat([rows[op] for op in tables], 0)
        parts = [tf.gather(images, rows[op]) for op in tables]
        made = [
            make(op, part)
            for (op, make), part in zip(tables.items(), parts, strict=True)
        ]
        # One look-up needs [n, C, 256], also from tables [n, 1, 256].
        channels = images.shape[3]
        made = [
            tf.tile(table, [1, channels // table.shape[1], 1]) for table in made
        ]
        looked_up = image_ops.apply_lookup_table(
            tf.concat(parts, 0), tf.concat(made, 0)
        )
        changed.append((positions, looked_up))
    for op, make in kernels.items():
        changed.append((rows[op], make(op, tf.gather(images, rows[op]))))
    if not changed:
        return images
    positions, parts = zip(*changed, strict=True)
    return tf.tensor_scatter_nd_update(
        images, tf.concat(positions, 0)[:, None], tf.concat(parts, 0)
    )


def cutout_fraction(images, center_y, center_x, fraction, fill_value):
    """Covers a square in each image.

    Args:
        images: `[N, H, W, C]` uint8.
        center_y: `[N]` int32.
        center_x: `[N]` int32.
        fraction: side of the square as a fraction of the images' shorter side;
            0 changes nothing.
        fill_value: gray level of covered pixels.

    Returns:
        `[N, H, W, C]` uint8.
    """
    if not fraction:
        return images
    half_width = round(min(images.shape[1:3]) * fraction / 2.0)
    return image_ops.cutout(
        images,
        center_y,
        center_x,
        tf.fill(tf.shape(center_y), half_width),
        fill_value,
    )


def apply_layers(images, draw, apply_layer, final_cutout, fill_value):
    """Applies the operations of each image, one after the other.

    Args:
        images: `[N, H, W, C]` uint8.
        draw: name -> `[N, depth]` tensor, a column per layer; `center_y` and
            `center_x` have one more, which is the center of the last cutout.
        apply_layer: function of images and the column of a layer, name ->
            `[N]`, that returns the changed images.
        final_cutout: side of that cutout, see `cutout_fraction`.
        fill_value: gray level of covered pixels.

    Returns:
        `[N, H, W, C]` uint8.
    """
    for layer in range(draw["op"].shape[1]):
        column = {name: values[:, layer] for name, values in draw.items()}
        images = apply_layer(images, column)
    centers = draw["center_y"][:, -1], draw["center_x"][:, -1]
    return cutout_fraction(images, *centers, final_cutout, fill_value)
