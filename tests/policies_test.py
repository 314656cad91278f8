"""The tables of policies, and what every policy promises."""

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl.config import Config
from tf_metassl.data import policies

# Every policy goes through the same tests.
ALL = {
    **{f"weak {name}": p for name, p in policies.WEAK_POLICIES.items()},
    **{f"strong {name}": p for name, p in policies.STRONG_POLICIES.items()},
}
# One policy for each way through the code; tracing a graph takes a second.
TRACED = ("weak mpl", "weak affine", "strong mpl", "strong affine_digits")
SHAPES = {"rgb": (24, 20, 3), "digits": (8, 8, 1)}
SEED = tf.constant([3, 5], tf.int32)
ANOTHER_SEED = tf.constant([3, 6], tf.int32)


def make_images(num_images, shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


def rows_of(draw, rows):
    return {name: tf.gather(values, rows) for name, values in draw.items()}


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_a_flag_chooses_every_policy(kind):
    table = {"weak": policies.WEAK_POLICIES, "strong": policies.STRONG_POLICIES}
    field = Config.__dataclass_fields__[f"{kind}_augmentation"]
    assert field.metadata["choices"] == ("auto", *table[kind])


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ALL)
def test_a_slice_of_the_draw_belongs_to_a_slice_of_the_images(name, shape):
    policy = ALL[name]
    images = make_images(30, SHAPES[shape])
    drawn = policy.draw(SEED, 30, SHAPES[shape])
    assert {len(values) for values in drawn.values()} == {30}
    whole = policy.apply(images, drawn)
    assert whole.shape == images.shape and whole.dtype == tf.uint8
    order = np.random.default_rng(0).permutation(30)
    for rows in (order, list(range(4, 12)), []):
        part = policy.apply(images[rows], rows_of(drawn, np.int32(rows)))
        if name != "strong affine_digits":
            np.testing.assert_array_equal(part, whole.numpy()[rows])
            continue
        # On some processors, the values at the end of an array are computed by
        # other instructions than those before, so that a coordinate's last bit
        # differs.
        difference = np.abs(part.numpy() - np.float32(whole.numpy()[rows]))
        assert np.max(difference, initial=0) <= 1
        assert np.count_nonzero(difference) <= 0.0001 * difference.size


@pytest.mark.slow
@pytest.mark.parametrize("name", (*TRACED, "strong fixmatch"))
def test_eager_equals_tf_data(name):
    policy = ALL[name]
    shape = SHAPES["rgb"]
    images = make_images(32, shape)

    @tf.autograph.experimental.do_not_convert
    def view(step, images, num_images=32):
        seed = tf.stack([3, tf.cast(step, tf.int32)])
        return policy.apply(images, policy.draw(seed, num_images, shape))

    eager = [view(step, images).numpy() for step in range(2)]
    repeated = tf.data.Dataset.from_tensors(images).repeat(2)
    mapped = repeated.enumerate().map(view)
    assert mapped.element_spec.shape == images.shape
    np.testing.assert_array_equal(list(mapped.as_numpy_iterator()), eager)


@pytest.mark.parametrize("name", TRACED)
def test_the_size_of_the_batch_may_be_unknown(name):
    policy = ALL[name]
    shape = SHAPES["digits"]
    images = make_images(9, shape)

    @tf.autograph.experimental.do_not_convert
    def view(images):
        drawn = policy.draw(SEED, tf.shape(images)[0], shape)
        return policy.apply(images, drawn)

    batches = tf.data.Dataset.from_tensor_slices(images).batch(5).map(view)
    assert batches.element_spec.shape == (None, *shape)
    expected = [view(images[:5]).numpy(), view(images[5:]).numpy()]
    for batch, one in zip(batches, expected, strict=True):
        np.testing.assert_array_equal(batch, one)


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides_the_draw(name):
    policy = ALL[name]
    first, again = (policy.draw(SEED, 50, (32, 32, 3)) for _ in range(2))
    other = policy.draw(ANOTHER_SEED, 50, (32, 32, 3))
    for key, values in first.items():
        np.testing.assert_array_equal(values, again[key])
    if name != "weak none":
        assert any(
            np.any(values.numpy() != other[key].numpy())
            for key, values in first.items()
        )


@pytest.mark.parametrize("name", ALL)
def test_apply_draws_nothing(name):
    policy = ALL[name]
    drawn = policy.draw(SEED, 8, (32, 32, 3))
    images = make_images(8, (32, 32, 3))
    first, again = (policy.apply(images, drawn) for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", ALL)
def test_views_have_the_output_size(name):
    policy = ALL[name]
    drawn = policy.draw(SEED, 4, (12, 10, 3), (8, 6))
    images = make_images(4, (12, 10, 3))
    assert policy.apply(images, drawn, (8, 6)).shape == (4, 8, 6, 3)


@pytest.mark.parametrize("name", ALL)
def test_policies_that_mix_no_colors_take_any_channels(name):
    policy = ALL[name]
    assert policy.mixes_colors == (
        name in ("strong affine_digits", "strong mpl", "strong mpl_imagenet")
        or name in ("strong fixmatch", "strong uda")
        or name.startswith(("strong autoaugment", "strong ctaugment"))
    )
    drawn = policy.draw(SEED, 200, (8, 8, 2))
    images = make_images(200, (8, 8, 2))
    if policy.mixes_colors:
        with pytest.raises(ValueError, match="expected 1 or 3 channels, got 2"):
            policy.apply(images, drawn)
    else:
        assert policy.apply(images, drawn).shape == images.shape


def test_affine_policies_alone_replace_the_weak_one():
    replacing = {name for name, policy in ALL.items() if policy.replaces_weak}
    assert replacing == {"weak affine", "strong affine_digits"}


@pytest.mark.parametrize(
    "name", ["weak crop", "strong affine_digits", "strong autoaugment_svhn"]
)
def test_policies_without_a_magnitude_refuse_one(name):
    kind = type(ALL[name]).__name__
    with pytest.raises(ValueError, match=f"magnitude: {kind} has none, got 5"):
        ALL[name].with_magnitude(5)


@pytest.mark.parametrize("name", ALL)
def test_a_seed_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match=r"expected integers \[2\], got int32"):
        ALL[name].draw(7, 2, (8, 8, 3))
