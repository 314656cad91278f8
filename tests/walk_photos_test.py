"""The walk from photographs to predictions."""

from tools import walk_photos


def test_two_wrong_pseudo_labels_are_corrected(tmp_path):
    manifest = tmp_path / "labels.csv"
    lines = [
        "path,label,split,confidence,predicted,student_agrees",
        "photos/cat/0.jpg,dog,train,,,",  # A true label is left alone.
        "photos/cat/1.jpg,cat,train,0.9,cat,yes",
        "photos/cat/2.jpg,dog,train,0.9,dog,yes",
        "photos/cat/3.jpg,,train,0.3,dog,no",
        "photos/dog/4.jpg,cat,train,0.9,cat,yes",
        "photos/dog/5.jpg,cat,train,0.9,cat,yes",
    ]
    manifest.write_text("\n".join(lines) + "\n")
    text = walk_photos.correct(manifest)
    assert text == (
        "photos/cat/2.jpg: dog -> cat\nphotos/dog/4.jpg: cat -> dog"
    )
    lines[3] = lines[3].replace(",dog,train", ",cat,train")
    lines[5] = lines[5].replace(",cat,train", ",dog,train")
    assert manifest.read_text() == "\n".join(lines) + "\n"


def test_the_output_of_a_command_is_shortened(tmp_path):
    step = walk_photos.Step("", "import sys; print('method: x'); print('y')")
    assert walk_photos.run(step, tmp_path) == "method: x\ny"
    step = step._replace(kept="method")
    assert walk_photos.run(step, tmp_path) == "method: x"
