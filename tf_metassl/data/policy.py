"""What every augmentation policy does: draw, then apply.

`draw` makes all random choices for N images from one seed; `apply` carries them
out and is a pure function. A draw is a dict of tensors with leading dimension
N, and a row slice of it belongs to the same row slice of the images: one
replica can apply its rows of the draw for the global batch.
"""

import tensorflow as tf

from tf_metassl.data import image_ops


class Policy:
    """An augmentation of whole batches.

    A subclass is a frozen dataclass. It implements `_draw` and `_apply`, which
    see images of the output size only; one that chooses which part of a larger
    stored image is seen overrides `draw` and `apply` themselves.
    """

    @property
    def replaces_weak(self):
        """Whether, as the strong policy, it is applied without the weak one.

        False: it is applied to a weakly augmented image. True: it moves the
        image itself, so that a second resampling would only blur it.
        """
        return False

    @property
    def mixes_colors(self):
        """Whether it computes gray levels, so that C must be 1 or 3."""
        return False

    def with_magnitude(self, magnitude):
        """Returns the same policy with one fixed magnitude.

        Args:
            magnitude: number, on the scale of `RandAugmentPolicy.magnitude`.

        Raises:
            ValueError: if the policy has no magnitude.
        """
        raise ValueError(
            f"magnitude: {type(self).__name__} has none, got {magnitude}; only "
            "RandAugment policies take one. Leave --strong_magnitude at 0."
        )

    def without_mirroring(self):
        """The same policy, but it mirrors no image."""
        return self

    def draw(self, seed, num_images, image_shape, output_size=None):
        """Makes the random choices for each image.

        Args:
            seed: `[2]` int32.
            num_images: int or scalar int tensor N.
            image_shape: (height, width, channels) of the stored images, ints.
            output_size: (height, width) of the result, at most the stored one;
                None for the stored one.

        Returns:
            Dict of tensors with leading dimension N, see the class.

        Raises:
            ValueError: if `seed` has another shape or type.
        """
        size = output_size or image_shape[:2]
        return self._draw(seed, num_images, (*size, image_shape[2]))

    def apply(self, images, draw, output_size=None):
        """Carries out what `draw` has drawn.

        Args:
            images: `[N, H, W, C]` uint8. Where they are larger than the
                result, the center is cut out first, unless the class says
                otherwise.
            draw: dict of tensors with leading dimension N.
            output_size: (height, width) of the result; None for (H, W).

        Returns:
            `[N, height, width, C]` uint8.

        Raises:
            ValueError: on other shapes, types or numbers of channels.
        """
        images = tf.convert_to_tensor(images)
        if output_size:
            images = image_ops.center_crop(images, *output_size)
        return self._apply(images, draw)

    def _draw(self, seed, num_images, image_shape):
        raise NotImplementedError

    def _apply(self, images, draw):
        raise NotImplementedError
