"""The confusion matrix against scikit-learn."""

import numpy as np
import tensorflow as tf
from sklearn import metrics as oracle

from tf_metassl.metrics import ConfusionMatrix


def test_accuracy_and_macro_f1_with_masked_rows():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 90).astype(np.int32)
    logits = rng.normal(size=(90, 5)).astype(np.float32)
    mask = (np.arange(90) < 83).astype(np.float32)
    metric = ConfusionMatrix(5, name="student")
    for part in np.split(np.arange(90), 3):
        metric.update_state(label[part], logits[part], mask[part])
    true, predicted = label[:83], logits[:83].argmax(1)
    result = {k: float(v) for k, v in metric.result().items()}
    np.testing.assert_array_equal(
        metric.counts.value, oracle.confusion_matrix(true, predicted)
    )
    np.testing.assert_allclose(
        result["student_accuracy"],
        oracle.accuracy_score(true, predicted),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        result["student_macro_f1"],
        oracle.f1_score(true, predicted, average="macro"),
        rtol=1e-6,
    )
    metric.reset_state()
    assert tf.reduce_sum(metric.counts.value) == 0
    assert float(metric.result()["student_accuracy"]) == 0
