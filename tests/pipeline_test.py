"""Batches as a function of the step: exact, paired, the same on replicas."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_metassl import options
from tf_metassl.contract import MIX_BLOCK, DatasetInfo, Views, view_kind
from tf_metassl.data import pipeline, policies, sources
from tf_metassl.ops import augmentation_rates

NUM_IMAGES = 50


def numbered_source():
    """Images whose every pixel is their own number."""
    number = np.arange(NUM_IMAGES, dtype=np.uint8)
    images = np.broadcast_to(number[:, None, None, None], (NUM_IMAGES, 8, 8, 1))
    data = sources.Images(images.copy(), (number % 5).astype(np.int32))
    return sources.Source(
        info=DatasetInfo("numbered", tuple("abcde"), (8, 8, 1)),
        train=data,
        test=data,
        weak_policy="crop",
        strong_policy="affine_digits",
    )


VIEWS = Views(
    labeled=("weak",),
    unlabeled=("clean", "weak", "weak_1", "strong"),
    mixup_alpha=0.75,
)


def dataset(source=None, *, size=8, weak="crop", views=VIEWS, **options):
    source = source or numbered_source()
    pools = [
        pipeline.Pool("labeled", np.arange(10), size, views.labeled),
        pipeline.Pool(
            "unlabeled", np.arange(NUM_IMAGES), 2 * size, views.unlabeled
        ),
    ]
    augmentation = pipeline.Augmentation(weak=weak, strong="affine_digits")
    return pipeline.training_dataset(
        source,
        pools,
        views=views,
        augmentation=augmentation,
        seed=3,
        **options,
    )


def take(data, count):
    return [
        tf.nest.map_structure(lambda t: t.numpy(), batch)
        for batch in data.take(count)
    ]


def assert_equal(a, b):
    tf.nest.map_structure(np.testing.assert_array_equal, a, b)


@pytest.fixture(scope="module")
def batches():
    return take(dataset(), 8)


def test_the_contract(batches):
    batch = batches[0]
    assert set(batch) == {"labeled", "unlabeled"}
    common = {"index", "label_draw", "mix_weight", "mix_partner"}
    assert set(batch["labeled"]) == common | {"weak", "label"}
    assert set(batch["unlabeled"]) == common | {
        "oracle_label",
        *VIEWS.unlabeled,
    }
    spec = dataset().element_spec
    for group, size in (("labeled", 8), ("unlabeled", 16)):
        for name, tensor in spec[group].items():
            assert tensor.shape.is_fully_defined(), (group, name)
            assert tensor.shape[0] == size
    assert batch["unlabeled"]["strong"].dtype == np.uint8


def test_all_views_of_a_row_are_of_the_same_image(batches):
    for batch in batches:
        for group in batch.values():
            number = group["index"].astype(np.uint8)[:, None, None, None]
            for view in ("clean", "weak", "weak_1"):
                if view in group:
                    # A reflected crop of a constant image is the image.
                    np.testing.assert_array_equal(
                        group[view], np.broadcast_to(number, group[view].shape)
                    )
        # What is known of the labels that training uses proves nothing.
        index = batch["unlabeled"]["index"]
        np.testing.assert_array_equal(
            batch["unlabeled"]["oracle_label"],
            np.where(index < 10, -1, index % 5),
        )


def test_every_image_once_an_epoch_across_batch_borders(batches):
    index = np.concatenate([b["unlabeled"]["index"] for b in batches])
    epochs = [index[:50], index[50:100]]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    assert not np.array_equal(*epochs)


def test_starting_at_step_five_gives_the_batches_from_five_on(batches):
    assert_equal(take(dataset(first_step=5), 3), batches[5:])


def test_other_steps_and_seeds_have_other_draws(batches):
    weights = np.stack([b["unlabeled"]["mix_weight"] for b in batches])
    assert len(np.unique(weights)) == weights.size
    draws = np.stack([b["labeled"]["label_draw"] for b in batches])
    assert len(np.unique(draws)) == draws.size


@pytest.mark.slow
@pytest.mark.parametrize("replicas", (2, 4))
def test_replicas_share_the_global_batch(batches, replicas):
    shares = [
        take(dataset(shard=r, num_shards=replicas), 2) for r in range(replicas)
    ]
    for step in range(2):
        joined = tf.nest.map_structure(
            lambda *parts: np.concatenate(parts), *(s[step] for s in shares)
        )
        assert_equal(joined, batches[step])


@pytest.mark.slow
@pytest.mark.parametrize("shards", (1, 2))
def test_all_shapes_are_static(shards):
    """XLA and TPUs ask for them; notes on a view are part of the batch."""
    kinds = ("clean", "weak", "strong", "ctaugment", "probe", "contrastive")
    data = pipeline.training_dataset(
        numbered_source(),
        [pipeline.Pool("labeled", np.arange(10), 8, kinds)],
        views=Views(labeled=kinds),
        augmentation=pipeline.Augmentation(weak="crop", strong="fixmatch"),
        seed=3,
        num_shards=shards,
        local_shards=shards,
    )
    group = data.element_spec["labeled"]
    assert {"probe", "probe_op", "probe_bin"} <= set(group)
    for name, spec in group.items():
        assert spec.shape.is_fully_defined(), name
        assert spec.shape[0] == 8 // shards, name


def test_replicas_fed_by_one_dataset_take_its_elements_in_turns():
    shares = [take(dataset(shard=r, num_shards=2), 2) for r in (0, 1)]
    together = take(dataset(num_shards=2, local_shards=2), 4)
    for step in (0, 1):
        for r in (0, 1):
            assert_equal(together[step * 2 + r], shares[r][step])


def test_partners_form_one_cycle_in_every_block(batches):
    for batch in batches:
        for group in batch.values():
            blocks = group["mix_partner"].reshape(-1, MIX_BLOCK)
            for block in blocks:
                seen, at = [], 0
                for _ in range(MIX_BLOCK):
                    seen.append(at)
                    at = block[at]
                assert sorted(seen) == list(range(MIX_BLOCK)) and at == 0


@pytest.mark.parametrize("alpha", (0.1, 0.75, 1.0, 4.0))
def test_mix_weights_have_the_moments_of_a_beta_distribution(alpha):
    seed = tf.constant([1, 2])
    weight, _ = pipeline.mix_draws(seed, 40_000, alpha, "plain")
    assert 0 <= weight.numpy().min() and weight.numpy().max() <= 1
    np.testing.assert_allclose(np.mean(weight), 0.5, atol=0.01)
    variance = 1 / (4 * (2 * alpha + 1))
    np.testing.assert_allclose(np.var(weight), variance, rtol=0.03)
    dominant, _ = pipeline.mix_draws(seed, 40_000, alpha, "dominant")
    np.testing.assert_array_equal(dominant, np.maximum(weight, 1 - weight))


def test_batches_are_mixed_by_the_rule_and_alpha_that_were_asked_for(batches):
    assert np.min([b["unlabeled"]["mix_weight"] for b in batches]) < 0.4
    views = dataclasses.replace(VIEWS, mix_weight_rule="dominant")
    for plain, dominant in zip(
        batches, take(dataset(views=views), 8), strict=True
    ):
        for group in ("labeled", "unlabeled"):
            weight = plain[group]["mix_weight"]
            np.testing.assert_array_equal(
                dominant[group]["mix_weight"], np.maximum(weight, 1 - weight)
            )
    views = dataclasses.replace(VIEWS, mixup_alpha=0.0)
    (unmixed,) = take(dataset(views=views), 1)
    np.testing.assert_array_equal(unmixed["labeled"]["mix_weight"], np.ones(8))


def test_judges_are_the_same_images_in_every_batch(batches):
    assert all("judges" not in batch["labeled"] for batch in batches)
    views = dataclasses.replace(VIEWS, judge_share=0.5)
    said = {}
    for batch in take(dataset(views=views), 8):
        assert "judges" not in batch["unlabeled"]
        labeled = batch["labeled"]
        for row, judges in zip(
            labeled["index"], labeled["judges"], strict=True
        ):
            assert said.setdefault(int(row), bool(judges)) == judges
    assert set(said.values()) == {True, False}


def test_without_mixup_the_weight_is_one():
    weight, _ = pipeline.mix_draws(tf.constant([1, 2]), 8, 0.0, "plain")
    np.testing.assert_array_equal(weight, np.ones(8))


@pytest.mark.parametrize("fill", (True, False))
@pytest.mark.parametrize("replicas", (1, 2))
def test_evaluation_sees_every_image_once(replicas, fill):
    images = numbered_source().train
    seen, last = [], []
    for shard in range(replicas):
        data = pipeline.evaluation_dataset(
            images, batch_size=16, fill=fill, shard=shard, num_shards=replicas
        )
        *full, final = data.as_numpy_iterator()
        for batch in (*full, final):
            kept = batch["mask"] == 1
            seen.extend(batch["image"][kept, 0, 0, 0])
        assert {len(batch["mask"]) for batch in full} == {16 // replicas}
        last.append(len(final["image"]))
        rows = 16 // replicas if fill else None
        assert data.element_spec["image"].shape == (rows, *images.shape)
    np.testing.assert_array_equal(np.sort(seen), np.arange(NUM_IMAGES))
    rest = NUM_IMAGES % 16
    assert last == [(16 if fill else -(-rest // 2) * 2) // replicas] * replicas


@pytest.mark.parametrize(
    "view, policy, message",
    [
        ("strong", "mpl", "--strong_augmentation=mpl changes colors.* 2 ch"),
        ("strong_1", "affine_digits", "=affine_digits changes colors.* 2 ch"),
        ("ctaugment", "jitter_points", "CTAugment changes colors.* 2 chan"),
        ("probe", "jitter_points", "CTAugment changes colors"),
    ],
)
def test_policies_that_mix_colors_need_some(view, policy, message):
    views = Views(labeled=(view,))
    augmentation = pipeline.Augmentation(weak="none", strong=policy)
    with pytest.raises(ValueError, match=message):
        pipeline.check_channels(views, augmentation, 2)
    pipeline.check_channels(views, augmentation, 3)
    pipeline.check_channels(Views(labeled=("weak",)), augmentation, 2)


def test_a_magnitude_that_the_policy_has_not_is_refused():
    given = pipeline.Augmentation("none", "affine_digits", magnitude=5.0)
    with pytest.raises(ValueError, match="none, got 5.0.*--strong_magnitude"):
        pipeline.check_channels(Views(unlabeled=("strong",)), given, 1)
    # Nothing asks for the strong policy here.
    pipeline.check_channels(Views(unlabeled=("weak",)), given, 1)


def test_points_may_have_two_channels():
    points = pipeline.Augmentation(weak="jitter", strong="jitter_points")
    pipeline.check_channels(Views(unlabeled=("weak", "strong")), points, 2)


def test_batches_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match="labeled batch of 8 .* 3 replicas"):
        dataset(num_shards=3)
    with pytest.raises(ValueError, match="--eval_batch_size"):
        pipeline.evaluation_dataset(
            numbered_source().train, batch_size=7, num_shards=2
        )


def test_unknown_views_are_refused():
    with pytest.raises(ValueError, match="Unknown view 'soft'"):
        Views(unlabeled=("soft",))
    assert view_kind("weak_12") == "weak"


@pytest.mark.parametrize("calls", (1, 8))
def test_parallel_calls_change_nothing(batches, calls):
    assert_equal(take(dataset(num_parallel_calls=calls), 8), batches)


def stored_larger(side=12):
    """Random images, stored at 12 pixels and used at 8."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, side, side, 1), np.uint8)
    data = sources.Images(images, np.zeros(NUM_IMAGES, np.int32))
    return sources.Source(
        info=DatasetInfo("stored", tuple("ab"), (8, 8, 1)),
        train=data,
        test=data,
        weak_policy="random_crop",
        strong_policy="affine_digits",
    )


@pytest.mark.slow
@pytest.mark.parametrize("weak", ("random_crop", "resized_crop", "crop"))
def test_views_are_cut_out_of_larger_stored_images(weak):
    source = stored_larger()
    batch = take(dataset(source, weak=weak), 1)[0]["unlabeled"]
    for view in ("clean", "weak", "weak_1", "strong"):
        assert batch[view].shape == (16, 8, 8, 1)
    middle = source.train.images[:, 2:10, 2:10]
    np.testing.assert_array_equal(batch["clean"], middle[batch["index"]])
    assert not np.array_equal(batch["weak"], batch["weak_1"])
    evaluation = pipeline.evaluation_dataset(
        source.test, batch_size=NUM_IMAGES, size=(8, 8)
    )
    (evaluated,) = evaluation.as_numpy_iterator()
    np.testing.assert_array_equal(evaluated["image"], middle)


@pytest.mark.slow
def test_probes_tell_what_they_did_and_ctaugment_follows_the_rates():
    source = stored_larger(8)
    views = Views(labeled=("weak", "probe"), unlabeled=("ctaugment",))
    identity = list(augmentation_rates.BINS).index("identity")

    def batch(probabilities=None, **options):
        pools = [
            pipeline.Pool(group, np.arange(NUM_IMAGES), 16, kinds)
            for group, kinds in (
                ("labeled", views.labeled),
                ("unlabeled", views.unlabeled),
            )
        ]
        data = pipeline.training_dataset(
            source,
            pools,
            views=views,
            augmentation=pipeline.Augmentation(
                weak="none",
                strong="affine_digits",
                probabilities=probabilities,
            ),
            seed=3,
            **options,
        )
        return take(data, 1)[0]

    whole = batch()
    labeled = whole["labeled"]
    assert labeled["probe_op"].shape == (16, 2)
    assert labeled["probe_bin"].shape == (16, 2, 2)
    still = (labeled["probe_op"] == identity).all(axis=1)
    unchanged = (labeled["probe"] == labeled["weak"]).all((1, 2, 3))
    assert unchanged[still].all() and not unchanged.all()
    halves = [batch(shard=r, num_shards=2) for r in (0, 1)]
    joined = tf.nest.map_structure(lambda *p: np.concatenate(p), *halves)
    assert_equal(joined, whole)

    rates = augmentation_rates.initial().numpy()
    rates[:, :, 1:] = 0
    other = batch(augmentation_rates.probabilities(rates).numpy())
    assert_equal(other["labeled"], labeled)
    changed = other["unlabeled"]["ctaugment"] != whole["unlabeled"]["ctaugment"]
    assert changed.any((1, 2, 3)).sum() > 8


def test_learned_strong_views_have_no_further_cutout():
    """The authors of ReMixMatch have none."""
    augmentation = pipeline.Augmentation("none", "fixmatch")
    policy = pipeline._layers("ctaugment", augmentation)["ctaugment"]
    assert policy.final_cutout == 0.0


def balanced(labels, first, count):
    seed = tf.constant([7, 8])
    return pipeline.balanced_rows(labels, first, count, seed).numpy()


def test_balanced_draws_have_every_class_equally_often():
    labels = np.repeat([0, 1, 2], [12, 5, 1])
    np.random.default_rng(0).shuffle(labels)
    draws = balanced(labels, 0, 180)
    for start in range(0, 180, 3):
        assert sorted(labels[draws[start : start + 3]]) == [0, 1, 2]
    orders = {tuple(labels[draws[i : i + 3]]) for i in range(0, 180, 3)}
    assert len(orders) == 6
    for label, size in ((0, 12), (1, 5), (2, 1)):
        own = draws[labels[draws] == label]
        assert len(own) == 60
        for start in range(0, 60, size):
            assert len(set(own[start : start + size])) == size
    # The order of a class differs from epoch to epoch.
    first = draws[labels[draws] == 0][:24]
    assert not np.array_equal(first[:12], first[12:])


def test_balanced_draws_are_a_function_of_their_number():
    labels = np.repeat([0, 1, 2], [12, 5, 1])
    whole = balanced(labels, 0, 40)
    np.testing.assert_array_equal(balanced(labels, 23, 17), whole[23:])


@pytest.mark.parametrize("num_shards", [1, 2])
def test_balanced_batches(num_shards):
    """Of 50 images the labels are 0 ... 4; the labeled ones are unbalanced."""
    rows = np.array([0, 5, 10, 15, 20, 25, 1, 6, 2, 3, 4])
    source = numbered_source()

    def batches(first_step, count, num_shards=1):
        pool = pipeline.Pool("labeled", rows, 10, ("weak",), balanced=True)
        data = pipeline.training_dataset(
            source,
            [pool],
            views=Views(),
            augmentation=pipeline.Augmentation("crop", "affine_digits"),
            seed=3,
            first_step=first_step,
            num_shards=num_shards,
            local_shards=num_shards,
        )
        return take(data, count * num_shards)

    whole = batches(0, 4)
    for batch in whole:
        assert np.bincount(batch["labeled"]["label"]).tolist() == [2] * 5
        assert set(batch["labeled"]["index"]) <= set(rows)
    parts = batches(2, 2, num_shards)
    for step in range(2):
        shards = parts[step * num_shards : (step + 1) * num_shards]
        joined = tf.nest.map_structure(
            lambda *values: np.concatenate(values), *shards
        )
        assert_equal(joined, whole[2 + step])


def mirrored_share(view, **names):
    """The share of views with more detail on the right, of images without."""
    image = np.full((24, 24, 3), 128, np.uint8)
    image[::2, 2:9], image[1::2, 2:9] = 255, 0
    images = tf.constant(np.tile(image, (200, 1, 1, 1)))
    augmentation = pipeline.Augmentation(**names)
    found, _ = pipeline.view_of(
        images, view, tf.constant([1, 2]), 200, slice(0, 200), augmentation
    )
    detail = np.abs(np.diff(found.numpy().astype(float), axis=1)).mean((1, 3))
    left, right = detail[:, :12].mean(1), detail[:, 12:].mean(1)
    return np.mean(right > left)


VIEWS_OF_POLICIES = [
    *(("weak", name, "fixmatch") for name in policies.WEAK_POLICIES),
    *(("strong", "flip_crop", name) for name in policies.STRONG_POLICIES),
    *((kind, "flip_crop", "fixmatch") for kind in ("ctaugment", "probe")),
]


@pytest.mark.parametrize("view, weak, strong", VIEWS_OF_POLICIES)
def test_no_view_is_mirrored_with_mirror_off(view, weak, strong):
    names = {"weak": weak, "strong": strong}
    # A little is left where a strong operation hides the detail.
    hidden = 0.05 if view == "weak" else 0.15
    assert mirrored_share(view, mirror=False, **names) <= hidden
    mirrors = weak in options.MIRRORING and not (
        view == "strong" and policies.strong(strong).replaces_weak
    )
    share = mirrored_share(view, **names)
    assert 0.3 <= share <= 0.7 if mirrors else share <= hidden


def test_mirroring_policies_are_named():
    for name, policy in policies.WEAK_POLICIES.items():
        named = name in options.MIRRORING
        assert named == (policy.without_mirroring() != policy)
    for policy in policies.STRONG_POLICIES.values():
        assert policy.without_mirroring() == policy


def test_strong_views_by_ctaugment_have_learned_magnitudes_and_a_cutout():
    rates = augmentation_rates.probabilities(augmentation_rates.initial())
    augmentation = pipeline.Augmentation(
        "none", "ctaugment", probabilities=rates
    )
    policy = pipeline._layers("strong", augmentation)["strong"]
    assert policy.probabilities is rates and policy.final_cutout == 0.5
