"""The weak and strong augmentation policies by name."""

import dataclasses

from tf_metassl.data import auto_augment
from tf_metassl.data.affine import AffinePolicy
from tf_metassl.data.contrastive import ContrastivePolicy
from tf_metassl.data.ctaugment import CTAugmentPolicy
from tf_metassl.data.function_policy import FunctionPolicy
from tf_metassl.data.jitter import JitterPolicy
from tf_metassl.data.policy import Policy
from tf_metassl.data.rand_augment import RandAugmentPolicy
from tf_metassl.data.windows import CropPolicy, WindowPolicy
from tf_metassl.errors import ConfigError

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
    # Half the noise of the two moons, see `sklearn_sources.two_moons`.
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
        image_size=224,
        final_cutout=0.0,
    ),
    # Sohn et al., arXiv 2001.07685. The authors' code fills with 127.5 after
    # the last operation, so that later operations see black there.
    "fixmatch": RandAugmentPolicy(ops=_FIXMATCH_OPS),
    # Xie et al., arXiv 1904.12848. The authors' code fills with the dataset's
    # mean color, 113 ... 125 for CIFAR-10.
    "uda": RandAugmentPolicy(ops=_UDA_OPS),
    # Cubuk et al., arXiv 1805.09501, by the dataset of the search.
    "autoaugment_cifar10": auto_augment.CIFAR10,
    "autoaugment_svhn": auto_augment.SVHN,
    "autoaugment_imagenet": auto_augment.IMAGENET,
    # Sohn et al., arXiv 2001.07685: ReMixMatch's operations with magnitudes
    # that are learned, and a cutout.
    "ctaugment": CTAugmentPolicy(),
    # Our own choice for gray digits of 8 x 8 to 28 x 28 pixels; no paper has
    # it. No flips and no inversion: a mirrored 2 is no digit, and a negative is
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

# Chen et al., arXiv 2002.05709.
CONTRASTIVE_POLICIES = {
    "simclr": ContrastivePolicy(blur_probability=0.5),
    # Appendix B.9, for CIFAR-10: half the color distortion, no blur.
    "simclr_small": ContrastivePolicy(strength=0.5),
    # Our own choice: a mirrored 2 is no digit, nor is a twelfth of one.
    "simclr_digits": ContrastivePolicy(
        flip=False, area=(0.3, 1.0), strength=0.5
    ),
}
# The widest image that the paper's policy for CIFAR-10 is for.
_SMALL = 64


def contrastive_for(weak_policy, image_size):
    """The contrastive policy that `auto` means.

    Args:
        weak_policy: the weak one or its name; where it does not mirror images,
            the contrastive one does not.
        image_size: (height, width).

    Returns:
        A key of `CONTRASTIVE_POLICIES`.
    """
    if not getattr(weak(weak_policy), "flip", False):
        return "simclr_digits"
    return "simclr_small" if min(image_size) <= _SMALL else "simclr"


def weak(value):
    """The weak policy of a name; a `Policy` is returned as it is."""
    return value if isinstance(value, Policy) else WEAK_POLICIES[value]


def strong(value):
    """The strong policy of a name; a `Policy` is returned as it is."""
    return value if isinstance(value, Policy) else STRONG_POLICIES[value]


def contrastive(value):
    """The contrastive policy of a name; a `Policy` is returned as it is."""
    return value if isinstance(value, Policy) else CONTRASTIVE_POLICIES[value]


def of_user(argument, value):
    """A policy that a user names or gives as a function.

    Args:
        argument: `weak` or `strong`.
        value: a name, or a function of an image and a seed, see
            `FunctionPolicy`.

    Returns:
        The name, or a `FunctionPolicy`.

    Raises:
        ConfigError: if it is neither.
    """
    names = {"weak": WEAK_POLICIES, "strong": STRONG_POLICIES}[argument]
    if isinstance(value, str) and value in names:
        return value
    if callable(value):
        return FunctionPolicy(value)
    raise ConfigError(
        f"{argument}={value!r}: expected one of {', '.join(names)}, or a "
        "function of an image and a seed."
    )
