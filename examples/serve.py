"""Serves a detector over HTTP: the bytes of an image in, JSON out; images that come together share a batch.

    pip install 'yolov7-jax[serve,onnx]'
    python serve.py best.onnx --port 8000
    curl --data-binary @bus.jpg 'http://localhost:8000/detect?confidence=0.4'

Weights, the folder of a run and every artefact of `yolov7-jax export` will do.
"""

import argparse
import asyncio
import os
from contextlib import asynccontextmanager
from typing import Annotated, Any

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(50_000_000))  # before it is imported: no image fills the memory

import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request

import yolov7_jax as yolo
from yolov7_jax.errors import DataError
from yolov7_jax.image import decode_image

SIZES = (1, 2, 4, 8)  # of batches: few, as each is compiled once
MOST_WAITING, WAIT_S = 1000, 0.005  # images; and for how long one waits for others


def look_at(detector: yolo.Detector, images: list[np.ndarray], confidence: float) -> list[yolo.ImageDetections]:
    size = next(size for size in SIZES if size >= len(images))
    return detector(images, confidence=confidence, batch_size=size, rect=False)


async def batches(detector: yolo.Detector, waiting: asyncio.Queue[Any]) -> None:
    """Looks at a batch of the images that wait, while the next ones come in."""
    while True:
        batch = [await waiting.get()]
        await asyncio.sleep(WAIT_S)
        while len(batch) < SIZES[-1] and not waiting.empty():
            batch.append(waiting.get_nowait())
        images, confidences, answers = zip(*batch, strict=True)
        try:  # at the least confidence: what lies below their own is left out of the answers
            found: Any = await asyncio.to_thread(look_at, detector, list(images), min(confidences))
        except Exception as error:  # is the answer to those who wait; the next ones have their turn
            found = [HTTPException(500, f"the detector failed: {error}")] * len(batch)
        for answer, each in zip(answers, found, strict=True):
            if not answer.done():  # as it is where a client has gone
                (answer.set_exception if isinstance(each, Exception) else answer.set_result)(each)


async def body(request: Request, most: int) -> bytes:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise HTTPException(413, f"the body has more than {most} bytes; send a smaller image")
    return bytes(content)


def application(detector: yolo.Detector, most_bytes: int) -> FastAPI:
    waiting = asyncio.Queue[Any](MOST_WAITING)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        for size in SIZES:
            look_at(detector, [np.zeros((64, 64, 3), np.uint8)] * size, 0.5)
        worker = asyncio.create_task(batches(detector, waiting))
        yield
        worker.cancel()

    app = FastAPI(title="yolov7_jax", lifespan=lifespan)

    @app.post("/detect")
    async def detect(request: Request, confidence: Annotated[float, Query(gt=0, lt=1)] = 0.25) -> dict[str, Any]:
        answer = asyncio.get_running_loop().create_future()
        try:
            image = await asyncio.to_thread(decode_image, await body(request, most_bytes), name="the body")
            waiting.put_nowait((image, confidence, answer))
        except DataError as error:
            raise HTTPException(400, str(error)) from error
        except asyncio.QueueFull:
            raise HTTPException(503, "too many images are waiting; ask again in a moment") from None
        found = await answer
        rows = zip(found.class_ids, found.scores.tolist(), found.boxes_xyxy_px.tolist(), strict=True)
        kept = [{"class": found.names[i], "score": score, "box_xyxy_px": box} for i, score, box in rows]
        return {"size": image.shape[:2], "detections": [row for row in kept if row["score"] > confidence]}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--most-bytes", type=int, default=20_000_000, help="of a body")
    given = parser.parse_args()
    uvicorn.run(application(yolo.Detector.load(given.weights), given.most_bytes), port=given.port)
