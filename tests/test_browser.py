"""The page of the examples that runs an ONNX file in the browser, in headless Chromium."""

import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import yolov7_jax as yolo
from tests.chromium import CHROMIUM, Browser, browser
from yolov7_jax.artefacts.proof import Found, Tolerance, compare_detections
from yolov7_jax.experiment.exporting import PHOTOGRAPHS

pytest.importorskip("onnxruntime", reason="pip install 'yolov7-jax[onnx]'")

PAGE = Path(__file__).resolve().parent.parent / "examples" / "browser"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of the page, with its libraries installed, on a server."""
    folder = tmp_path / "page"
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("npm install finds no onnxruntime-web here")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def until(page: Browser, expression: str) -> None:
    """JavaScript that comes true within a minute."""
    for _ in range(600):
        if page.value(f"Boolean({expression})"):
            return
        time.sleep(0.1)
    raise AssertionError(page.value("document.getElementById('state').textContent"))


@pytest.mark.shared
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open pages with; apt-get install chromium")
@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm; apt-get install npm")
def test_boxes_in_the_browser_are_those_of_the_source(shared: Path, tmp_path: Path, address: str) -> None:
    weights = shared / "weights" / "yolov5n.pt"
    artefact = yolo.export(weights, tmp_path / "best.onnx", size=(320, 416)).file
    source = yolo.Detector.load(weights, size=416)
    source.shape = (320, 416)
    files = [*sorted(PHOTOGRAPHS.glob("*.jpg")), shared / "images" / "bus.jpg"]
    expected = source(files)
    with browser(tmp_path / "profile") as page:
        page.open(address)
        page.choose("#model", PHOTOGRAPHS / "cat.jpg")
        until(page, "document.getElementById('state').textContent.includes('is no detector')")
        page.choose("#model", artefact)
        until(page, "!document.getElementById('image').disabled")
        for file, ours in zip(files, expected, strict=True):
            page.value("window.found = null")
            page.choose("#image", file)
            until(page, "window.found")
            found = page.value("window.found")
            assert len(found) == len(ours) > 0
            boxes, scores = (np.float32([each[key] for each in found]) for key in ("box_xyxy_px", "score"))
            there = Found(boxes, scores, np.array([ours.names.index(each["class"]) for each in found]))
            here = Found(ours.boxes_xyxy_px, ours.scores, ours.class_ids)
            # All but a few pixels in a thousand are the same, and those are one off.
            near = Tolerance(0.005, 0.5, 0.5)
            measured = compare_detections(here, there, confidence=0.25, iou=0.45, capacity=300, tolerance=near)
            assert measured.detections == len(ours)
            measured.check(near, file.name)
        counts = Counter(ours.names[class_id] for class_id in expected[-1].class_ids)
        told = page.value("document.getElementById('state').textContent").partition(" (")[0]
        assert dict(part.split(" ", 1)[::-1] for part in told.split(", ")) == {k: str(v) for k, v in counts.items()}
        assert {url.split("/")[2] for url in page.asked_for() if url.startswith("http")} == {address.split("/")[2]}
        assert not page.complaints()
