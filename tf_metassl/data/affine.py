"""One affine transform per image, for small gray images such as digits."""

import dataclasses

from tf_metassl.data import host_draws, image_ops, operations
from tf_metassl.data.policy import Policy


@dataclasses.dataclass(frozen=True)
class AffinePolicy(Policy):
    """One affine transform, bilinear, then optional tones and cutout.

    Scale, shear, rotation and translation are one transform, so that a small
    image is blurred only once. Every value is drawn uniformly from its range
    for each image. A draw is a dict of vectors `[N]`: float32 `angle`
    (radians), `scale`, `shear_x`, `shear_y`, `shift_x`, `shift_y` (pixels),
    `contrast`, `brightness` (factors), and int32 `center_y`, `center_x` of the
    cutout.

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

    @property
    def replaces_weak(self):
        """True: the image is moved and resampled only once."""
        return True

    @property
    def mixes_colors(self):
        """Whether the contrast, which is about the gray mean, is changed."""
        return self.contrast != (1.0, 1.0)

    def _draw(self, seed, num_images, image_shape):
        height, width, _ = image_shape
        shift_x, shift_y = self.translation * width, self.translation * height
        # The order decides which seed each value gets.
        ranges = {
            "angle": (-self.rotation, self.rotation),
            "scale": self.scale,
            "shear_x": (-self.shear, self.shear),
            "shear_y": (-self.shear, self.shear),
            "shift_x": (-shift_x, shift_x),
            "shift_y": (-shift_y, shift_y),
            "contrast": self.contrast,
            "brightness": self.brightness,
        }
        shape = [num_images]
        *seeds, seed_y, seed_x = host_draws.split(seed, len(ranges) + 2)
        draw = {
            name: host_draws.uniform(shape, one_seed, low, high)
            for one_seed, (name, (low, high)) in zip(
                seeds, ranges.items(), strict=True
            )
        }
        draw["center_y"] = host_draws.integers(shape, seed_y, 0, height - 1)
        draw["center_x"] = host_draws.integers(shape, seed_x, 0, width - 1)
        return draw

    def _apply(self, images, draw):
        matrices = _affine_matrices(draw, *images.shape[1:3])
        images = image_ops.projective_transform(
            images, matrices, self.fill_value, "bilinear"
        )
        if self.contrast != (1.0, 1.0):
            mean = image_ops.gray_mean(images)
            table = image_ops.contrast_table(draw["contrast"], mean)
            images = image_ops.apply_lookup_table(images, table)
        if self.brightness != (1.0, 1.0):
            table = image_ops.brightness_table(draw["brightness"])
            images = image_ops.apply_lookup_table(images, table)
        return operations.cutout_fraction(
            images,
            draw["center_y"],
            draw["center_x"],
            self.cutout,
            self.fill_value,
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
