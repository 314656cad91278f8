"""A method needs the views that it declares, all of them and no others."""

import pytest
import tensorflow as tf

from tests.helpers import (
    EXAMPLES,
    VIEWS,
    mostly_exhaustive,
    tiny_algorithm,
    tiny_batch,
)
from tf_metassl.algorithms import ALGORITHMS
from tf_metassl.algorithms.reduced_meta_pseudo_labels import ReducedStudent

# Beside every method with its defaults: settings that change what is read.
VARIANTS = [
    *((name, {}) for name in ALGORITHMS),
    ("sntg", {"sntg_base": "temporal_ensembling"}),
    ("sntg", {"sntg_base": "vat"}),
    ("learning_to_reweight", {"pseudo_label_view": "weak"}),
    ("meta_semi", {"pseudo_label_view": "weak"}),
    ("meta_semi", {"meta_gradient": "forward_mode"}),
    ("meta_semi", {"labeled_loss_weight": 0.0}),
    ("meta_pseudo_labels", {"pseudo_label_view": "weak"}),
    ("meta_pseudo_labels", {"mpl_unlabeled": "labeled"}),
    ("meta_pseudo_labels", {"feedback": "taylor"}),
    ("remixmatch", {"num_strong_views": 1}),
]


def assert_reads_what_it_declares(algorithm):
    """Traces a step on a batch like the pipeline's, with no other views."""
    declared = {
        group: views
        for group, views in (
            ("labeled", algorithm.views.labeled),
            ("unlabeled", algorithm.views.unlabeled),
        )
        if views
    }
    full, batch = tiny_batch(), {}
    for group, views in declared.items():
        absent = set(VIEWS).difference(views)
        if "probe" in absent:
            absent |= {"probe_op", "probe_bin"}
        batch[group] = {
            key: values
            for key, values in full[group].items()
            if key not in absent
        }
    used = {}

    @tf.function(autograph=False)
    def step(batch):
        algorithm.train_step(batch)
        for group, views in declared.items():
            used[group] = tuple(v for v in views if batch[group][v].consumers())

    step.get_concrete_function(batch)
    assert used == declared
    # Whatever comes before an evaluation makes do with the same batches.
    algorithm.prepare_evaluation(lambda: iter([batch]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, hp",
    mostly_exhaustive(VARIANTS, [v for v in VARIANTS if v[0] in EXAMPLES]),
)
def test_a_step_reads_the_views_that_were_declared(name, hp):
    assert_reads_what_it_declares(tiny_algorithm(name, **hp))


def test_so_does_the_noisy_student_of_a_later_round():
    algorithm = tiny_algorithm("noisy_student")
    algorithm.learn_from("teacher")
    assert algorithm.views.unlabeled
    assert_reads_what_it_declares(algorithm)


def test_so_does_the_student_of_a_large_teacher():
    algorithm = tiny_algorithm("reduced_meta_pseudo_labels", cls=ReducedStudent)
    algorithm.learn_from("large")
    assert_reads_what_it_declares(algorithm)
