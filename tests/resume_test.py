"""The resume state is what `state.json` has always held."""

import json

import numpy as np
import pytest

from tests.helpers import all_values, assert_same, tiny_algorithm
from tf_metassl.run import checkpoints, resume

# As earlier versions have written it, but for the line breaks.
STATE = (
    '{"best_validation": 0.25, "last_evaluation": 24, "out_of_time": false, '
    '"elapsed_share": 0.5, "recoveries": [{"stage": "train", "what": "The '
    'loss became nan", "at": 5, "back_to": 3}], "train_metrics": '
    '{"loss": [[1.5], [2.0]]}, "wall_clock_seconds": 3.5, "step": 26}'
)


def test_the_json_has_the_same_bytes():
    state = resume.ResumeState.from_json(json.loads(STATE))
    assert state.last_evaluation == 24 and state.step == 26
    assert state.recoveries[0]["back_to"] == 3
    assert json.dumps(state.to_json()) == STATE


def test_patience_is_written_where_it_is_counted():
    state = resume.ResumeState(evaluations_without_gain=3)
    assert resume.ResumeState.from_json(state.to_json()) == state


def test_the_file_of_a_checkpoint_has_the_same_bytes(tmp_path):
    state = resume.ResumeState.from_json(json.loads(STATE))
    path = checkpoints.save(
        tmp_path, tiny_algorithm("supervised"), 26, state.to_json()
    )
    assert (path / "state.json").read_text() == STATE


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"step": 6}, resume.ResumeState(step=6, last_evaluation=6)),
        (
            {"step": 6, "best_validation": 0.5, "last_evaluation": 4},
            resume.ResumeState(step=6, best_validation=0.5, last_evaluation=4),
        ),
        (
            {"step": 0, "of_a_later_version": 1},
            resume.ResumeState(),
        ),
    ],
)
def test_files_with_other_keys_can_be_read(values, expected):
    assert resume.ResumeState.from_json(values) == expected


def test_without_a_checkpoint_nothing_changes(tmp_path):
    algorithm = tiny_algorithm("supervised")
    before = all_values(algorithm)
    state = resume.restore_newest(tmp_path / "none", algorithm)
    assert state == resume.ResumeState() and state.best_validation == -1
    assert_same(before, all_values(algorithm))


def test_the_newest_and_the_selected_checkpoint(tmp_path):
    algorithm = tiny_algorithm("supervised")
    folder = resume.checkpoint_folder(tmp_path, "round_1")
    assert folder == tmp_path / "checkpoints" / "round_1"
    bias = algorithm.student.trainable_variables[-1]
    for step, name in ((1, "best"), (1, None), (2, None)):
        bias.assign(np.full(bias.shape, step, np.float32))
        state = resume.ResumeState(step=step, best_validation=0.5)
        checkpoints.save(folder, algorithm, step, state.to_json(), name=name)
    bias.assign(np.zeros(bias.shape, np.float32))
    state = resume.restore_newest(folder, algorithm)
    assert state.step == 2 and state.best_validation == 0.5
    assert bias.numpy()[0] == 2
    resume.restore_selected(folder, algorithm, "last")
    assert bias.numpy()[0] == 2
    resume.restore_selected(folder, algorithm, "best_validation")
    assert bias.numpy()[0] == 1
