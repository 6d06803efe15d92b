"""The server of the examples, asked by real clients over HTTP."""

import asyncio
import http.client
import json
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import yolov7_jax as yolo
from tests.small_networks import noise, small_weights
from yolov7_jax.convert.weights_file import save

pytest.importorskip("fastapi", reason="pip install 'yolov7-jax[serve]'")

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 100_000


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("served") / "best.safetensors"
    save(file, small_weights())
    return file


@pytest.fixture(scope="module")
def port(weights: Path) -> Iterator[int]:
    """Of a server, once it answers."""
    port = free_port()
    command = [sys.executable, str(ROOT / "examples" / "serve.py"), str(weights), "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    with subprocess.Popen([*command, "--most-bytes", str(MOST_BYTES)], env=environment) as server:
        try:
            for _ in range(600):
                assert server.poll() is None, "the server has ended"
                try:
                    ask(port, "/openapi.json", None, method="GET")
                    break
                except ConnectionRefusedError:
                    time.sleep(0.1)
            yield port
        finally:
            server.terminate()
    assert server.returncode in (0, -15)


def ask(port: int, path: str, body: bytes | None, method: str = "POST") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def png(image: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", image[..., ::-1])
    assert done
    return bytes(data.tobytes())


def test_two_hundred_at_once_of_which_some_are_broken(port: int, weights: Path) -> None:
    images = [noise(40 + 8 * (seed % 4), 64, seed) for seed in range(10)]
    detector = yolo.Detector.load(weights)
    expected = {confidence: detector(images, confidence=confidence, rect=False) for confidence in (0.3, 0.5)}
    whole = [png(image) for image in images]
    broken = {
        b"": "is empty",
        b"no image at all": "cannot read it as an image",
        whole[0][:-30]: "the end of the image is missing",
        bytes(MOST_BYTES + 1): f"more than {MOST_BYTES} bytes",
    }

    def one(number: int) -> None:
        if number % 5 == 4:
            content, words = list(broken.items())[number // 5 % len(broken)]
            status, answer = ask(port, "/detect", content)
            assert status == (413 if len(content) > MOST_BYTES else 400)
            assert words in answer["detail"]
            return
        confidence, place = (0.3, 0.5)[number % 2], number % len(images)
        status, answer = ask(port, f"/detect?confidence={confidence}", whole[place])
        found = expected[confidence][place]
        assert status == 200
        assert answer["size"] == list(images[place].shape[:2])
        assert len(answer["detections"]) == len(found) > 0
        for row, box, score, class_id in zip(
            answer["detections"], found.boxes_xyxy_px, found.scores, found.class_ids, strict=True
        ):
            assert row["class"] == found.names[class_id]
            assert row["score"] == pytest.approx(score, abs=1e-6)  # the same program, in other batches
            np.testing.assert_allclose(row["box_xyxy_px"], box, atol=1e-3)

    with ThreadPoolExecutor(200) as clients:
        done = list(clients.map(one, range(200)))
    assert len(done) == 200


@pytest.mark.parametrize("confidence", ["0", "1", "much"])
def test_a_confidence_that_is_none(port: int, confidence: str) -> None:
    status, answer = ask(port, f"/detect?confidence={confidence}", png(noise(64, 64)))
    assert status == 422
    assert answer["detail"][0]["loc"] == ["query", "confidence"]


def test_images_of_more_pixels_than_memory_has_are_refused(port: int) -> None:
    done, large = cv2.imencode(".png", np.zeros((8000, 8000), np.uint8))
    assert done
    assert len(large) < MOST_BYTES
    status, answer = ask(port, "/detect", large.tobytes())
    assert status == 400
    assert "cannot read it as an image" in answer["detail"]


def test_where_the_detector_fails_the_next_batch_has_its_turn() -> None:
    serve = runpy.run_path(str(ROOT / "examples" / "serve.py"))

    def detector(images: list[int], **_: Any) -> list[int]:
        if 0 in images:
            raise ValueError("no image")
        return images

    async def answers() -> list[Any]:
        waiting = asyncio.Queue[Any]()
        worker = asyncio.create_task(serve["batches"](detector, waiting))
        found: list[Any] = []
        for batch in ([1, 0], [2, 3]):
            given = [(image, 0.5, asyncio.get_running_loop().create_future()) for image in batch]
            given[0][2].cancel()  # its client has gone
            for each in given:
                waiting.put_nowait(each)
            found += await asyncio.gather(*(answer for _, _, answer in given), return_exceptions=True)
        worker.cancel()
        return found

    gone, failed, gone_too, three = asyncio.run(answers())
    assert isinstance(gone, asyncio.CancelledError)
    assert isinstance(gone_too, asyncio.CancelledError)
    assert failed.status_code == 500
    assert failed.detail == "the detector failed: no image"
    assert three == 3


def test_it_is_short() -> None:
    assert len((ROOT / "examples" / "serve.py").read_text().splitlines()) < 100
