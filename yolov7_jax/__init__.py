"""YOLOv7 and its family in JAX/Flax: networks, conversion of PyTorch weights, inference and evaluation.

import yolov7_jax as yolo

detector = yolo.Detector.load("yolov5n.pt")
for found in detector(["street.jpg"], confidence=0.25):
    print(found.class_ids, found.scores, found.boxes_xyxy_px)
"""

import lazy_loader

# Nothing is imported before it is used: worker processes read images without JAX, and `--help` is quick.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
