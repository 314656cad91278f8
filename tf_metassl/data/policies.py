"""Weak and strong augmentation of whole batches, as draw and apply.

`draw_*` makes all random choices for N images from one seed, `apply_*` carries
them out and is a pure function. A draw is a dict of tensors with leading
dimension N, so that a row slice of it belongs to the same row slice of the
images. The policies by name are in `WEAK_POLICIES` and `STRONG_POLICIES`.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_metassl.data import image_ops

_UDA_OPS = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "cutout",
)
_FIXMATCH_OPS = ("identity",) + tuple(
    op for op in _UDA_OPS if op not in ("invert", "cutout")
)

TONE_RULES = ("kept", "removed")

# There is no control flow for autograph to convert here, and its attempt would
# take seconds the first time that a dataset is mapped.
_as_it_is = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True)
class RandAugmentPolicy:
    """RandAugment: a few operations per image, drawn with replacement.

    Source: Cubuk et al., arXiv 1909.13719.

    Attributes:
        ops: names of the operations to draw from, see `OPERATIONS`.
        num_ops: operations per image, N in the paper.
        magnitude: lowest and highest magnitude M; one whole number is drawn per
            image and operation, uniformly, both ends included. On a scale of
            10, but may exceed it.
        apply_probability: one probability per image is drawn uniformly from
            this range; each of its operations is carried out with it.
        tones: `kept` if the magnitude is the strength of what is kept
            (posterize keeps 0.4 M bits, solarize starts at 25.6 M: weaker for
            larger M), `removed` if of what is lost (4 - 0.4 M bits,
            256 - 25.6 M). At least 1 bit is kept: 0 would be a black image.
        translate: pixels that `translate_x` and `translate_y` move at M = 10.
        cutout: pixels of half the side of the operation `cutout` at M = 10.
        fill_value: gray level of uncovered and cut out pixels.
        final_cutout: side of a last cutout that every image gets, as a fraction
            of the image's shorter side; 0 for none.
    """

    ops: tuple[str, ...]
    num_ops: int = 2
    magnitude: tuple[int, int] = (1, 9)
    apply_probability: tuple[float, float] = (0.5, 0.5)
    tones: str = "removed"
    translate: float = 10.0
    cutout: float = 10.0
    fill_value: int = 128
    final_cutout: float = 0.5

    def __post_init__(self):
        unknown = [op for op in self.ops if op not in OPERATIONS]
        if unknown or not self.ops or len(set(self.ops)) < len(self.ops):
            raise ValueError(
                "ops: expected different names out of "
                f"{', '.join(OPERATIONS)}; got {self.ops}."
            )
        if self.tones not in TONE_RULES:
            raise ValueError(
                f"tones: expected one of {', '.join(TONE_RULES)}, got "
                f"{self.tones!r}."
            )


@dataclasses.dataclass(frozen=True)
class CropPolicy:
    """Random mirroring, and a random crop out of the padded image.

    Attributes:
        flip: whether to mirror left to right with probability 1/2.
        padding: pixels added to each side, as a fraction of the image's shorter
            side, rounded; 0 for no crop.
        mode: `reflect` or `constant`.
        fill_value: gray level for the mode `constant`.
    """

    flip: bool = False
    padding: float = 0.0
    mode: str = "reflect"
    fill_value: int = 128


@dataclasses.dataclass(frozen=True)
class WindowPolicy:
    """A random window of a larger stored image, and random mirroring.

    Source of the resized window: Szegedy et al., arXiv 1409.4842, as common
    code has it: area and the logarithm of the aspect ratio are drawn uniformly,
    up to ten times until the window fits, else the whole image is taken.

    Attributes:
        flip: whether to mirror left to right with probability 1/2.
        area: smallest and largest area of the window as a fraction of the
            stored image, bilinearly resized; None for windows of the wanted
            size, which are not resized.
        ratio: smallest and largest width / height of a window to be resized.
    """

    flip: bool = True
    area: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class AffinePolicy:
    """One affine transform, bilinear, then optional tones and cutout.

    Every value is drawn uniformly from its range for each image.

    Attributes:
        rotation: largest angle in radians, either way.
        scale: smallest and largest magnification.
        shear: largest shear, either way, in x and in y.
        translation: largest shift as a fraction of the side, either way.
        contrast: smallest and largest factor, 1 for no change.
        brightness: smallest and largest factor, 1 for no change.
        cutout: side of the cutout as a fraction of the image's shorter side; 0
            for none.
        fill_value: gray level of uncovered and cut out pixels.
    """

    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    translation: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    brightness: tuple[float, float] = (1.0, 1.0)
    cutout: float = 0.0
    fill_value: int = 0


@dataclasses.dataclass(frozen=True)
class JitterPolicy:
    """Gaussian noise on every value, for points rather than pictures.

    Attributes:
        sigma: standard deviation on a scale of 0...255.
    """

    sigma: float


# The published slopes are per 10; multiplying whole numbers before the only
# division makes the levels of whole magnitudes exact to the last bit.
def _rotate_level(magnitude, policy):
    return magnitude * 3.0 * (np.pi / 180.0)


def _shear_level(magnitude, policy):
    return magnitude * 3.0 / 100.0


def _translate_level(magnitude, policy):
    return magnitude * policy.translate / 10.0


def _enhance_level(magnitude, policy):
    return (magnitude * 18.0 + 10.0) / 100.0


def _posterize_level(magnitude, policy):
    bits = tf.cast(tf.floor(magnitude * 4.0 / 10.0), tf.int32)
    if policy.tones == "removed":
        bits = 4 - bits
    return tf.clip_by_value(bits, 1, 8)


def _solarize_level(magnitude, policy):
    level = tf.cast(tf.floor(magnitude * 256.0 / 10.0), tf.int32)
    return level if policy.tones == "kept" else 256 - level


def _cutout_level(magnitude, policy):
    return tf.cast(tf.floor(magnitude * policy.cutout / 10.0), tf.int32)


def _no_level(magnitude, policy):
    return magnitude


# Operation -> what it makes of the magnitude.
OPERATIONS = {
    "identity": _no_level,
    "autocontrast": _no_level,
    "equalize": _no_level,
    "invert": _no_level,
    "rotate": _rotate_level,
    "posterize": _posterize_level,
    "solarize": _solarize_level,
    "color": _enhance_level,
    "contrast": _enhance_level,
    "brightness": _enhance_level,
    "sharpness": _enhance_level,
    "shear_x": _shear_level,
    "shear_y": _shear_level,
    "translate_x": _translate_level,
    "translate_y": _translate_level,
    "cutout": _cutout_level,
}

# Operation -> matrices of signed levels and (height, width).
_MATRICES = {
    "rotate": lambda level, size: image_ops.rotation_matrix(level, *size),
    "shear_x": lambda level, size: image_ops.shear_x_matrix(level),
    "shear_y": lambda level, size: image_ops.shear_y_matrix(level),
    "translate_x": lambda level, size: image_ops.translation_matrix(
        level, tf.zeros_like(level)
    ),
    "translate_y": lambda level, size: image_ops.translation_matrix(
        tf.zeros_like(level), level
    ),
}

# Operation -> look-up tables of images and levels.
_TABLES = {
    "autocontrast": lambda images, level: image_ops.autocontrast_table(
        image_ops.histograms(images)
    ),
    "equalize": lambda images, level: image_ops.equalize_table(
        image_ops.histograms(images)
    ),
    "invert": lambda images, level: image_ops.invert_table(tf.size(level)),
    "posterize": lambda images, level: image_ops.posterize_table(level),
    "solarize": lambda images, level: image_ops.solarize_table(level),
    "contrast": lambda images, level: image_ops.contrast_table(
        level, image_ops.gray_mean(images)
    ),
    "brightness": lambda images, level: image_ops.brightness_table(level),
}

# Operation -> images of images and levels.
_KERNELS = {"color": image_ops.color, "sharpness": image_ops.sharpness}

WEAK_POLICIES = {
    "none": CropPolicy(),
    "crop": CropPolicy(padding=1 / 8),
    "flip_crop": CropPolicy(flip=True, padding=1 / 8),
    # Two pixels of 32, as in the Pi-model's code and that of its followers.
    "narrow_crop": CropPolicy(padding=1 / 16),
    "flip_narrow_crop": CropPolicy(flip=True, padding=1 / 16),
    "mpl": CropPolicy(flip=True, padding=1 / 8, mode="constant"),
    # For large images, which are stored larger than they are used.
    "random_crop": WindowPolicy(),
    "resized_crop": WindowPolicy(area=(0.08, 1.0)),
    # For gray digits of some 8 x 8 pixels, which a flip would spoil.
    "affine": AffinePolicy(rotation=0.25, scale=(0.9, 1.1), translation=1 / 8),
    # Half the noise of the two moons themselves, see `sources.two_moons`.
    "jitter": JitterPolicy(sigma=3.0),
}

_MPL = RandAugmentPolicy(
    ops=_UDA_OPS,
    magnitude=(16, 16),
    apply_probability=(0.2, 0.8),
    tones="kept",
    translate=4.0,
    cutout=4.0,
)

STRONG_POLICIES = {
    # Pham et al., arXiv 2003.10580, with the constants of the authors' code for
    # CIFAR-10. Other than there, a solarize threshold above 255 changes nothing
    # (it does not wrap around), enhanced pixels are clipped to 0 ... 255, and
    # contrast blends with the image's gray mean.
    "mpl": _MPL,
    # The same with the constants for ImageNet's 224 x 224 pixels.
    "mpl_imagenet": dataclasses.replace(
        _MPL,
        magnitude=(17, 17),
        translate=100.0,
        cutout=40.0,
        final_cutout=0.0,
    ),
    # Sohn et al., arXiv 2001.07685. The authors' code fills with 127.5 after
    # the last operation, so that later operations see black there.
    "fixmatch": RandAugmentPolicy(ops=_FIXMATCH_OPS),
    # Xie et al., arXiv 1904.12848. The authors' code fills with the dataset's
    # mean color, 113 ... 125 for CIFAR-10.
    "uda": RandAugmentPolicy(ops=_UDA_OPS),
    # Our own choice for gray digits of 8 x 8 to 28 x 28 pixels; no paper has
    # it. No flips, no inversion: a mirrored 2 is no digit, and a negative is
    # another domain.
    "affine_digits": AffinePolicy(
        rotation=0.5,
        scale=(0.75, 1.25),
        shear=0.3,
        translation=1 / 6,
        contrast=(0.6, 1.4),
        brightness=(0.6, 1.4),
        cutout=1 / 4,
    ),
    # As wide as the gap between the two moons allows.
    "jitter_points": JitterPolicy(sigma=10.0),
}


def operation_level(op, magnitude, policy):
    """Converts magnitudes to the unit in which an operation is carried out.

    Radians for `rotate`, pixels for translations, half the side in pixels for
    `cutout`, the first inverted value for `solarize`, the number of bits kept
    for `posterize`, the factor for `color`, `contrast`, `brightness` and
    `sharpness`. No level is negative: the sign is another draw.

    Args:
        op: a name out of `OPERATIONS`.
        magnitude: number or float32 tensor of any shape.
        policy: a `RandAugmentPolicy`.

    Returns:
        Tensor of the same shape; int32 for `posterize`, `solarize` and
        `cutout`, else float32.

    Raises:
        ValueError: if `op` is unknown.
    """
    if op not in OPERATIONS:
        raise ValueError(
            f"op: expected one of {', '.join(OPERATIONS)}, got {op!r}."
        )
    return OPERATIONS[op](tf.cast(magnitude, tf.float32), policy)


def _split(seed, num):
    seed = tf.convert_to_tensor(seed)
    if seed.shape != [2] or not seed.dtype.is_integer:
        raise ValueError(
            f"seed: expected integers [2], got {seed.dtype.name} {seed.shape}."
        )
    return tf.unstack(tf.random.split(seed, num))


def _uniform(seed, shape, low, high):
    return tf.random.stateless_uniform(shape, seed, low, high)


def _integers(seed, shape, low, high):
    """Uniform int32, both ends included."""
    return tf.random.stateless_uniform(shape, seed, low, high + 1, tf.int32)


def _check_type(policy, *types):
    if not isinstance(policy, types):
        raise ValueError(
            f"policy: expected {' or '.join(t.__name__ for t in types)}, got "
            f"{type(policy).__name__}."
        )


@_as_it_is
def draw_rand_augment(seed, num_images, image_shape, policy, magnitude=None):
    """Draws the operations of RandAugment for each image.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels), ints.
        policy: a `RandAugmentPolicy` with L operations per image.
        magnitude: number that replaces the policy's range, or None.

    Returns:
        Dict of `op` `[N, L]` int32, an index into `policy.ops`; `applied`
        `[N, L]` bool, whether it is carried out; `magnitude` `[N, L]` float32;
        `sign` `[N, L]` float32, 1 or -1, for geometric operations; `center_y`
        and `center_x` `[N, L + 1]` int32, of each layer's cutout and the final
        one.

    Raises:
        ValueError: if `seed` or `policy` is of another type.
    """
    _check_type(policy, RandAugmentPolicy)
    seeds = _split(seed, 7)
    height, width, _ = image_shape
    shape = [num_images, policy.num_ops]
    centers = [num_images, policy.num_ops + 1]
    probability = _uniform(seeds[0], [num_images, 1], *policy.apply_probability)
    if magnitude is None:
        drawn = _integers(seeds[3], shape, *policy.magnitude)
    else:
        drawn = tf.fill(shape, magnitude)
    return {
        "op": _integers(seeds[1], shape, 0, len(policy.ops) - 1),
        "applied": _uniform(seeds[2], shape, 0.0, 1.0) < probability,
        "magnitude": tf.cast(drawn, tf.float32),
        "sign": tf.cast(2 * _integers(seeds[4], shape, 0, 1) - 1, tf.float32),
        "center_y": _integers(seeds[5], centers, 0, height - 1),
        "center_x": _integers(seeds[6], centers, 0, width - 1),
    }


@_as_it_is
def apply_rand_augment(images, draw, policy):
    """Carries out what `draw_rand_augment` has drawn.

    Only the images that drew an operation go through its kernel.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 or 3.
        draw: dict of tensors with leading dimension N.
        policy: the `RandAugmentPolicy` of the draw.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    _check_type(policy, RandAugmentPolicy)
    images = tf.convert_to_tensor(images)
    for layer in range(policy.num_ops):
        column = {name: values[:, layer] for name, values in draw.items()}
        images = _apply_layer(images, column, policy)
    if not policy.final_cutout:
        return images
    return _cutout_fraction(
        images,
        draw["center_y"][:, -1],
        draw["center_x"][:, -1],
        policy.final_cutout,
        policy.fill_value,
    )


def _apply_layer(images, draw, policy):
    """Carries out one operation per image; `draw` holds vectors `[N]`."""
    rows = rows_of_operations(draw["op"], draw["applied"], policy.ops)

    def level(op):
        magnitude = tf.gather(draw["magnitude"], rows[op])
        return operation_level(op, magnitude, policy)

    def matrices(op):
        sign = tf.gather(draw["sign"], rows[op])
        return _MATRICES[op](sign * level(op), images.shape[1:3])

    def table(op, part):
        return _TABLES[op](part, level(op))

    def kernel(op, part):
        if op != "cutout":
            return _KERNELS[op](part, level(op))
        return image_ops.cutout(
            part,
            tf.gather(draw["center_y"], rows[op]),
            tf.gather(draw["center_x"], rows[op]),
            level(op),
            policy.fill_value,
        )

    return apply_operations(
        images,
        rows,
        matrices={op: matrices for op in rows if op in _MATRICES},
        tables={op: table for op in rows if op in _TABLES},
        kernels={op: kernel for op in rows if op in (*_KERNELS, "cutout")},
        fill_value=policy.fill_value,
    )


def rows_of_operations(op, applied, names):
    """Sorts the images of a batch by their operation.

    Args:
        op: `[N]` int32, an index into `names`.
        applied: `[N]` bool; images without it are left out.
        names: of the operations.

    Returns:
        Operation -> the rows `[n]` int32 that it is carried out on.
    """
    target = tf.where(applied, op, len(names))
    rows = tf.dynamic_partition(
        tf.range(tf.size(target)), target, len(names) + 1
    )
    return dict(zip(names, rows[: len(names)], strict=True))


def apply_operations(images, rows, *, matrices, tables, kernels, fill_value):
    """Carries out at most one operation on each image of a batch.

    All geometric operations are one projective transform, all tonal ones one
    look-up; only the others have a kernel each.

    Args:
        images: `[N, H, W, C]` uint8.
        rows: operation -> the rows `[n]` that it is carried out on.
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
        # [n, 1, 256] and [n, C, 256] alike, for one look-up.
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


def _cutout_fraction(images, center_y, center_x, fraction, fill_value):
    """Covers a square with a side of `fraction` of the shorter image side."""
    half_width = round(min(images.shape[1:3]) * fraction / 2.0)
    return image_ops.cutout(
        images,
        center_y,
        center_x,
        tf.fill(tf.shape(center_y), half_width),
        fill_value,
    )


@_as_it_is
def draw_crop(seed, num_images, image_shape, policy):
    """Draws a flip and a crop for each image.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels), ints.
        policy: a `CropPolicy`.

    Returns:
        Dict of `flip` `[N]` bool, `offset_y` and `offset_x` `[N]` int32.

    Raises:
        ValueError: if `seed` or `policy` is of another type.
    """
    _check_type(policy, CropPolicy)
    seeds = _split(seed, 3)
    padding = _padding(image_shape, policy)
    flip = _integers(seeds[0], [num_images], 0, 1) == 1
    return {
        "flip": flip & policy.flip,
        "offset_y": _integers(seeds[1], [num_images], 0, 2 * padding),
        "offset_x": _integers(seeds[2], [num_images], 0, 2 * padding),
    }


@_as_it_is
def apply_crop(images, draw, policy):
    """Carries out what `draw_crop` has drawn.

    Args:
        images: `[N, H, W, C]` uint8.
        draw: dict of tensors with leading dimension N.
        policy: the `CropPolicy` of the draw.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    _check_type(policy, CropPolicy)
    images = tf.convert_to_tensor(images)
    if policy.flip:
        images = image_ops.flip_horizontal(images, draw["flip"])
    padding = _padding(images.shape[1:], policy)
    if not padding:
        return images
    return image_ops.pad_and_crop(
        images,
        draw["offset_y"],
        draw["offset_x"],
        padding,
        policy.mode,
        policy.fill_value,
    )


def _padding(image_shape, policy):
    return round(min(image_shape[:2]) * policy.padding)


_ATTEMPTS = 10


@_as_it_is
def draw_window(seed, num_images, image_shape, policy, output_size):
    """Draws a flip and a window for each image.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels) of the stored images, ints.
        policy: a `WindowPolicy`.
        output_size: (height, width) of the result, at most the stored one.

    Returns:
        Dict of `flip` `[N]` bool and, in pixels, `top`, `left`, `height` and
        `width` `[N]` float32.

    Raises:
        ValueError: if `seed` or `policy` is of another type.
    """
    _check_type(policy, WindowPolicy)
    seeds = _split(seed, 5)
    stored = tf.constant(image_shape[:2], tf.float32)
    if policy.area is None:
        size = tf.tile([tf.constant(output_size, tf.float32)], [num_images, 1])
    else:
        shape = [num_images, _ATTEMPTS]
        area = _uniform(seeds[0], shape, *policy.area) * tf.reduce_prod(stored)
        low, high = np.log(policy.ratio)
        ratio = tf.exp(_uniform(seeds[1], shape, low, high))
        sizes = tf.round(
            tf.stack([tf.sqrt(area / ratio), tf.sqrt(area * ratio)], axis=-1)
        )  # [N, attempts, 2]
        fits = tf.reduce_all((sizes <= stored) & (sizes >= 1.0), axis=-1)
        first = tf.argmax(fits, axis=1, output_type=tf.int32)
        size = tf.where(
            tf.reduce_any(fits, axis=1)[:, None],
            tf.gather(sizes, first, batch_dims=1),
            stored,
        )
    room = stored - size
    place = tf.stack(
        [_uniform(s, [num_images], 0.0, 1.0) for s in seeds[2:4]], axis=1
    )
    # Whole pixels, so that a window that is not resized is cut, not blurred.
    corner = tf.minimum(tf.floor(place * (room + 1.0)), room)
    flip = _integers(seeds[4], [num_images], 0, 1) == 1
    return {
        "flip": flip & policy.flip,
        "top": corner[:, 0],
        "left": corner[:, 1],
        "height": size[:, 0],
        "width": size[:, 1],
    }


@_as_it_is
def apply_window(images, draw, policy, output_size):
    """Carries out what `draw_window` has drawn.

    Args:
        images: `[N, H, W, C]` uint8.
        draw: dict of tensors with leading dimension N.
        policy: the `WindowPolicy` of the draw.
        output_size: (height, width) of the result.

    Returns:
        `[N, height, width, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    _check_type(policy, WindowPolicy)
    box = (draw[name] for name in ("top", "left", "height", "width"))
    images = image_ops.projective_transform(
        images,
        image_ops.window_matrix(*box, output_size),
        interpolation="bilinear",
        output_size=output_size,
    )
    return image_ops.flip_horizontal(images, draw["flip"])


@_as_it_is
def draw_affine(seed, num_images, image_shape, policy):
    """Draws an affine transform, tones and a cutout for each image.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels), ints.
        policy: an `AffinePolicy`.

    Returns:
        Dict of vectors `[N]`: float32 `angle` (radians), `scale`, `shear_x`,
        `shear_y`, `shift_x`, `shift_y` (pixels), `contrast`, `brightness`
        (factors), and int32 `center_y`, `center_x` of the cutout.

    Raises:
        ValueError: if `seed` or `policy` is of another type.
    """
    _check_type(policy, AffinePolicy)
    height, width, _ = image_shape
    ranges = {
        "angle": (-policy.rotation, policy.rotation),
        "scale": policy.scale,
        "shear_x": (-policy.shear, policy.shear),
        "shear_y": (-policy.shear, policy.shear),
        "shift_x": (-policy.translation * width, policy.translation * width),
        "shift_y": (-policy.translation * height, policy.translation * height),
        "contrast": policy.contrast,
        "brightness": policy.brightness,
    }
    *seeds, seed_y, seed_x = _split(seed, len(ranges) + 2)
    draw = {
        name: _uniform(one_seed, [num_images], low, high)
        for one_seed, (name, (low, high)) in zip(
            seeds, ranges.items(), strict=True
        )
    }
    draw["center_y"] = _integers(seed_y, [num_images], 0, height - 1)
    draw["center_x"] = _integers(seed_x, [num_images], 0, width - 1)
    return draw


@_as_it_is
def apply_affine(images, draw, policy):
    """Carries out what `draw_affine` has drawn.

    Scale, shear, rotation and translation are one bilinear transform, so that
    a small image is blurred only once.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 or 3.
        draw: dict of tensors with leading dimension N.
        policy: the `AffinePolicy` of the draw.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    _check_type(policy, AffinePolicy)
    images = tf.convert_to_tensor(images)
    matrices = _affine_matrices(draw, *images.shape[1:3])
    images = image_ops.projective_transform(
        images, matrices, policy.fill_value, "bilinear"
    )
    if policy.contrast != (1.0, 1.0):
        mean = image_ops.gray_mean(images)
        table = image_ops.contrast_table(draw["contrast"], mean)
        images = image_ops.apply_lookup_table(images, table)
    if policy.brightness != (1.0, 1.0):
        table = image_ops.brightness_table(draw["brightness"])
        images = image_ops.apply_lookup_table(images, table)
    if not policy.cutout:
        return images
    return _cutout_fraction(
        images,
        draw["center_y"],
        draw["center_x"],
        policy.cutout,
        policy.fill_value,
    )


def _affine_matrices(draw, height, width):
    shears = image_ops.compose(
        image_ops.shear_x_matrix(draw["shear_x"]),
        image_ops.shear_y_matrix(draw["shear_y"]),
    )
    return image_ops.compose(
        image_ops.scale_matrix(draw["scale"], height, width),
        image_ops.centered(shears, height, width),
        image_ops.rotation_matrix(draw["angle"], height, width),
        image_ops.translation_matrix(draw["shift_x"], draw["shift_y"]),
    )


@_as_it_is
def draw_jitter(seed, num_images, image_shape, policy):
    """Draws noise for each value of each image.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels), ints.
        policy: a `JitterPolicy`.

    Returns:
        Dict of `noise` `[N, H, W, C]` float32.

    Raises:
        ValueError: if `seed` or `policy` is of another type.
    """
    _check_type(policy, JitterPolicy)
    (seed,) = _split(seed, 1)
    shape = [num_images, *image_shape]
    return {"noise": tf.random.stateless_normal(shape, seed, 0.0, policy.sigma)}


@_as_it_is
def apply_jitter(images, draw, policy):
    """Carries out what `draw_jitter` has drawn.

    Args:
        images: `[N, H, W, C]` uint8.
        draw: dict of tensors with leading dimension N.
        policy: the `JitterPolicy` of the draw.

    Returns:
        `[N, H, W, C]` uint8, rounded and clipped.

    Raises:
        ValueError: on other types.
    """
    _check_type(policy, JitterPolicy)
    moved = tf.round(tf.cast(images, tf.float32) + draw["noise"])
    return tf.cast(tf.clip_by_value(moved, 0.0, 255.0), tf.uint8)


# Type of a policy that needs no more than the image -> draw and apply.
_SIMPLE = {
    CropPolicy: (draw_crop, apply_crop),
    AffinePolicy: (draw_affine, apply_affine),
    JitterPolicy: (draw_jitter, apply_jitter),
}


@_as_it_is
def draw_weak(seed, num_images, image_shape, policy, output_size=None):
    """Draws a weak view as its policy says, such as `draw_crop`.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels) of the stored images, ints.
        policy: a value of `WEAK_POLICIES`.
        output_size: (height, width) of the view; None for the stored one.

    Returns:
        Dict of tensors with leading dimension N.

    Raises:
        ValueError: if `seed` or `policy` is of another type.
    """
    _check_type(policy, WindowPolicy, *_SIMPLE)
    output_size = output_size or image_shape[:2]
    if isinstance(policy, WindowPolicy):
        return draw_window(seed, num_images, image_shape, policy, output_size)
    draw, _ = _SIMPLE[type(policy)]
    return draw(seed, num_images, (*output_size, image_shape[2]), policy)


@_as_it_is
def apply_weak(images, draw, policy, output_size=None):
    """Carries out what `draw_weak` has drawn.

    Args:
        images: `[N, H, W, C]` uint8.
        draw: dict of tensors with leading dimension N.
        policy: the policy of the draw; all but a `WindowPolicy` see the middle
            of a larger stored image.
        output_size: (height, width) of the view; None for the stored one.

    Returns:
        `[N, height, width, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    _check_type(policy, WindowPolicy, *_SIMPLE)
    images = tf.convert_to_tensor(images)
    output_size = output_size or images.shape[1:3]
    if isinstance(policy, WindowPolicy):
        return apply_window(images, draw, policy, output_size)
    _, apply = _SIMPLE[type(policy)]
    return apply(image_ops.center_crop(images, *output_size), draw, policy)


@_as_it_is
def draw_strong(seed, num_images, image_shape, policy, magnitude=None):
    """Draws a strong view, such as `draw_rand_augment`.

    Args:
        seed: `[2]` int32.
        num_images: int or scalar int tensor N.
        image_shape: (height, width, channels), ints.
        policy: a value of `STRONG_POLICIES`.
        magnitude: number that replaces a RandAugment policy's range, or None.

    Returns:
        Dict of tensors with leading dimension N.

    Raises:
        ValueError: if `seed` or `policy` is of another type, or a magnitude is
            given for a policy without one.
    """
    _check_type(policy, RandAugmentPolicy, AffinePolicy, JitterPolicy)
    if isinstance(policy, RandAugmentPolicy):
        return draw_rand_augment(
            seed, num_images, image_shape, policy, magnitude
        )
    if magnitude is not None:
        raise ValueError(
            f"magnitude: {type(policy).__name__} has none, got {magnitude}; "
            "only RandAugment policies take one."
        )
    draw, _ = _SIMPLE[type(policy)]
    return draw(seed, num_images, image_shape, policy)


@_as_it_is
def apply_strong(images, draw, policy):
    """Carries out what `draw_strong` has drawn.

    Args:
        images: `[N, H, W, C]` uint8, C = 1 or 3.
        draw: dict of tensors with leading dimension N.
        policy: the policy of the draw.

    Returns:
        `[N, H, W, C]` uint8.

    Raises:
        ValueError: on other shapes or types.
    """
    _check_type(policy, RandAugmentPolicy, AffinePolicy, JitterPolicy)
    if isinstance(policy, RandAugmentPolicy):
        return apply_rand_augment(images, draw, policy)
    _, apply = _SIMPLE[type(policy)]
    return apply(images, draw, policy)
