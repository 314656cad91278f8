"""The line that an evaluation prints."""

import types

import pytest

from tf_metassl.run import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = types.SimpleNamespace(seconds=0.0)
    fake = types.SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(progress, "time", fake)
    return now


@pytest.mark.parametrize(
    "verbose, expected",
    [
        (0, ""),
        # 10 steps of 48 images in 5 s; 165 steps are left at 2 a second.
        (
            1,
            "step 10/175  1:22 left  96 images/s  loss 0.500 "
            "val_ema_accuracy 0.250\n",
        ),
    ],
)
def test_speed_and_time_left(clock, capsys, verbose, expected):
    shown = progress.Progress(
        num_steps=175, images_per_step=48, verbose=verbose
    )
    model = types.SimpleNamespace(finished_steps=0)
    shown.set_model(model)
    shown.on_train_begin()
    shown.on_epoch_begin(0)
    for batch in range(10):
        clock.seconds += 0.5
        model.finished_steps += 1
        shown.on_train_batch_end(batch, {"loss": 0.5})
    logs = {"loss": 0.5, "val_ema_accuracy": 0.25, "val_ema_macro_f1": 0.1}
    shown.on_epoch_end(0, logs)
    shown.on_train_end()
    shown.on_train_end()
    assert capsys.readouterr().out == expected


def test_a_file_gets_lines_between_evaluations(clock, capsys):
    shown = progress.Progress(num_steps=1000, images_per_step=48, verbose=2)
    model = types.SimpleNamespace(finished_steps=0)
    shown.set_model(model)
    shown.on_train_begin()
    shown.on_epoch_begin(0)
    at = []
    for batch in range(300):
        clock.seconds += 1.0
        model.finished_steps += 1
        # The metrics are read now and then only.
        shown.on_train_batch_end(batch, {} if batch % 7 else {"loss": 0.5})
        if text := capsys.readouterr().out:
            assert text.startswith(f"step {batch + 1}/1000  ")
            assert "48 images/s  loss 0.500" in text
            at.append(batch + 1)
    # After half a minute, then at intervals that double.
    assert at == [31, 92, 213]
