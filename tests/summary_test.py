"""The command that says what a network costs."""

import subprocess
import sys

import pytest

from tf_metassl import summary
from tf_metassl.models.costs import Costs


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tf_metassl.summary", *arguments],
        capture_output=True,
        text=True,
    )


def test_the_text():
    costs = Costs(2**20, 7, 1_234_567, 3 * 2**19)
    assert summary.text("net", (8, 9, 1), 4, costs).splitlines() == [
        "net, 8x9x1 -> 4",
        "parameters        1,048,576 (4.0 MiB as float32), and 7 averages",
        "FLOPs per image   1,234,567 forward (a multiply-add is 2; "
        "convolutions and dense layers)",
        "activation memory 1.5 MiB per image (the outputs of all layers)",
    ]


@pytest.mark.slow
def test_the_command_on_wrn_28_2():
    done = command("--model=wrn_28_2", "--image_size=32", "--num_classes=10")
    assert done.returncode == 0, done.stderr
    for words in ("wrn_28_2, 32x32x3 -> 10", "1,467,610", "428,706,304"):
        assert words in done.stdout


@pytest.mark.slow
def test_half_precision_halves_the_activations():
    # 64 pixels stay in full precision, as do 10 logits.
    done = command("--model=digits_cnn", "--precision=mixed_bfloat16")
    assert "digits_cnn, 8x8x3 -> 10" in done.stdout
    full = command("--model=digits_cnn")
    assert "0.1 MiB" in full.stdout and "0.0 MiB" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--model=vgg"], "--model=vgg: must be one of digits_cnn"),
        (["--model=cnn13", "--image_size=8"], "needs images of at least 12x12"),
        (["--model=no.such:f"], "cannot import no.such"),
        ([], "--model"),
    ],
)
def test_mistakes_end_with_a_message(arguments, words):
    done = command(*arguments)
    assert done.returncode != 0
    assert words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
