"""Pictures of what a run shows, for docs/images/: reports and TensorBoard.

    python tools/screenshots.py [--out=docs/images] [--keep=FOLDER]

Trains two short runs on the digits, audits them, and photographs report.html,
audit.html and TensorBoard's scalars, HParams and images in a headless Chromium,
which has to be installed (--chromium=PATH). With --keep the runs are kept in
that folder and used again. Takes a few minutes.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[1]
WIDTH = 1200
COMMANDS = {
    "fixmatch": [
        *("train", "--algo=fixmatch", "--num_steps=200"),
        *("--supervised_twin=on", "--verbose=0"),
    ],
    "supervised": [
        *("train", "--algo=supervised", "--num_steps=200", "--verbose=0"),
    ],
    "audit": ["audit", "--dataset=digits"],
}
# Fragment of TensorBoard's address -> width and height of the window.
TABS = {
    "scalars": (1200, 850),
    "hparams": (1900, 560),
    "images": (1200, 850),
    "histograms": (1200, 850),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "docs" / "images"))
    parser.add_argument("--keep", default="")
    parser.add_argument("--chromium", default=find_chromium())
    given = parser.parse_args()
    if not given.chromium:
        sys.exit("No Chromium is found: install it or give --chromium=PATH.")
    # Before the work, which a folder that cannot be made would lose.
    out = pathlib.Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        place = given.keep or stack.enter_context(tempfile.TemporaryDirectory())
        place = pathlib.Path(place).resolve()
        make_runs(place)
        browser = Browser(given.chromium, place / "browser")
        report = (place / "fixmatch" / "report.html").as_uri()
        browser.photograph(report, out / "report.png", 1500)
        audit = (place / "audit" / "audit.html").as_uri()
        browser.photograph(audit, out / "audit.png", 1300)
        with tensorboard(place) as address:
            for tab, (width, height) in TABS.items():
                path = out / f"tensorboard_{tab}.png"
                browser.photograph(f"{address}/#{tab}", path, height, width)


def find_chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), "")


def make_runs(place):
    """Trains and audits what is not in the folder yet."""
    for name, (command, *flags) in COMMANDS.items():
        if (place / name).exists():
            continue
        folder = "out" if command == "audit" else "run_dir"
        words = [sys.executable, "-m", f"tf_metassl.{command}", *flags]
        words.append(f"--{folder}={place / name}")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(words, cwd=ROOT, env=environment, check=True)


class Browser:
    """A headless Chromium.

    Args:
        program: its path.
        profile: a folder for its own files.
    """

    def __init__(self, program, profile):
        self._program, self._profile = program, profile

    def photograph(self, address, path, height, width=WIDTH):
        """Writes the picture of a page.

        Args:
            address: of the page.
            path: of the PNG file.
            height: pixels from the top.
            width: of the window; a wider picture is reduced to WIDTH.
        """
        words = [
            *(self._program, "--headless", "--no-sandbox", "--disable-gpu"),
            *("--hide-scrollbars", f"--user-data-dir={self._profile}"),
            f"--window-size={width},{height}",
            # Milliseconds of the page's own time that it may load.
            "--virtual-time-budget=40000",
            *(f"--screenshot={path}", address),
        ]
        subprocess.run(words, check=True, timeout=300, capture_output=True)
        image = Image.open(path).convert("RGB")
        image.thumbnail((WIDTH, height))
        image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


@contextlib.contextmanager
def tensorboard(logdir):
    """Yields the address of a TensorBoard on the logs of a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tensorboard.main", "--logdir=."]
    words += [f"--port={port}", "--host=127.0.0.1", "--load_fast=false"]
    process = subprocess.Popen(
        words,
        cwd=logdir,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            time.sleep(1)
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=5).close()
                break
        # It reads the logs in the background.
        time.sleep(15)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main()
