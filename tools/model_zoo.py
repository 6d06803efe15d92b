"""Writes docs/model_zoo.md: all networks with their sizes, and what is published of them.

python tools/model_zoo.py            # writes the document, in about 20 seconds
python tools/model_zoo.py --check    # exits 1 where the document is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yolov7_jax as yolo
from yolov7_jax.graph.rewrite import inference_form
from yolov7_jax.graph.zoo import yolor, yolov3, yolov4, yolov5, yolov7, yolov7_p6

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/model_zoo.md"

INTRODUCTION = """\
# The networks

```
python tools/model_zoo.py
```

writes this page from the networks themselves, in about 20 seconds; `yolov7-jax summary --all` prints the same counts on
the console, and `yolov7-jax summary yolov7` those of every layer. In Python:

```python
import yolov7_jax as yolo
from yolov7_jax.graph.rewrite import inference_form

for name in yolo.zoo_names():
    graph = yolo.zoo(name, num_classes=80)
    found = yolo.summarize(inference_form(graph))
    print(name, graph.default_size, found.parameters, found.flops)
```

Parameters are in millions, with 80 classes. "Training" is the form that is trained: batch normalization, the branches
of RepConv, implicit vectors, auxiliary heads. "Inference" is what is left of it once folded (`yolov7-jax reparam`), and
what GFLOPs count: two for each multiplication and addition of convolutions and matrix products, of one square image of
the size given, in pixels.

The columns on the right are published, AP in per cent on COCO val2017. Published GFLOPs also count each bias as a
multiplication and an addition, up to 1 %; counted that way ours are the published ones but for rounding
(`tests/graph/test_published.py`), and where they are not a note says why. No weights come with this package: AP is what
the authors trained, not what was measured here.
"""

P1 = "YOLOv7, table 1"
P2 = "YOLOv7, table 2"
P3 = "YOLOv7, table 3"
P4 = "YOLOv7, table 4"
P5 = "YOLOv7, table 5"
P6 = "YOLOv7, table 6"
P8 = "YOLOv7, table 8"
R61 = "YOLOv5 r6.1"
R50 = "YOLOv5 r5.0"
R31 = "YOLOv5 r3.1"

NOTES: Mapping[str, str] = {
    "normalized": "Published of the network with batch normalization unfolded: two multiply-adds more for each number "
    "that a convolution gives, and the parameters in the column of training but for implicit vectors.",
    "d6": "The paper counts the training network of D6, with its auxiliary head, and of all others the folded one.",
    "tiny320": "The published figure is a quarter of 13.8, which has batch normalization unfolded; ours with biases "
    "is 3.44.",
    "l6": "The published parameters have batch normalization unfolded, the GFLOPs have not.",
    "u5": "The paper has the same network as YOLOR-u5, with AP 50.2.",
    "3l": "Only its sizes and accuracy are published. The head is ours, chosen to meet the sizes.",
    "rep": "Which convolutions are RepConv is shown in a drawing only (figure 6): the positions are our reading, in X. "
    "The base of the table has AP 52.26 and no published size.",
}


class Published(NamedTuple):
    """What is published of a network at an image size. source: paper and table; note: a key of `NOTES`."""

    size: int
    millions: str
    gflops: str
    ap: str
    source: str
    note: str = ""

    def cells(self) -> str:
        """The end of a row of the page."""
        source = self.source + (f" [^{self.note}]" if self.note else "")
        return f"| {self.millions} | {self.gflops} | {self.ap} | {source} |"


PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "yolov7-tiny": (
        Published(416, "6.2", "5.8", "35.2", P1),
        Published(320, "6.2", "3.5", "30.8", P1, "tiny320"),
    ),
    "yolov7-tiny-silu": (Published(640, "6.2", "13.8", "38.7", P2, "normalized"),),
    "yolov7": (Published(640, "36.9", "104.7", "51.2", P1),),
    "yolov7x": (Published(640, "71.3", "189.9", "52.9", P1),),
    "yolov7x-light": (Published(640, "47.0", "125.5", "51.7", P3),),
    "yolov7x-wide": (Published(640, "73.4", "195.5", "52.4", P3, "normalized"),),
    "yolov7x-deep": (Published(640, "69.3", "187.6", "52.7", P3, "normalized"),),
    **{
        f"yolov7x-rep-{letter}": (Published(640, "", "", ap, P4, "rep"),)
        for letter, ap in (("a", "52.18"), ("b", "52.30"), ("c", "52.33"), ("d", "52.17"), ("e", "52.23"))
    },
    "yolov7-w6": (Published(1280, "70.4", "360.0", "54.6", P2),),
    "yolov7-e6": (Published(1280, "97.2", "515.2", "55.9", P1),),
    "yolov7-d6": (Published(1280, "154.7", "806.8", "56.3", P1, "d6"),),
    "yolov7-e6e": (Published(1280, "151.7", "843.2", "56.8", P1),),
    "yolov7-e6-no-aux": (Published(1280, "", "", "55.6", P6),),
    "yolov7-e6e-no-aux": (Published(1280, "", "", "56.3", P8),),
    "yolov7-e6e-aux-sum": (Published(1280, "", "", "56.5", P8),),
    "yolor-csp": (Published(640, "52.9", "120.4", "50.8", P1),),
    "yolor-csp-x": (Published(640, "96.9", "226.8", "52.7", P1),),
    "yolor-p6": (Published(1280, "37.2", "325.6", "53.5", P2),),
    "yolor-w6": (Published(1280, "79.8", "453.2", "54.8", P2),),
    "yolor-e6": (Published(1280, "115.8", "683.2", "55.7", P1),),
    "yolor-d6": (Published(1280, "151.7", "935.6", "56.1", P1),),
    "yolor-w6-repcsp": (Published(1280, "", "", "54.67", P5),),
    "yolor-w6-rcsp": (Published(1280, "", "", "54.36", P5),),
    "yolor-w6-reprcsp": (Published(1280, "", "", "54.85", P5),),
    "yolor-csp-reprcsp": (Published(640, "", "", "50.91", P5),),
    "yolov4-csp": (Published(640, "52.9", "120.4", "50.3", P1),),
    "yolov4": (Published(640, "64.4", "142.8", "49.7", P1, "normalized"),),
    "yolov4-tiny": (Published(416, "6.1", "6.9", "24.9", P1),),
    "yolov4-tiny-3l": (Published(320, "8.7", "5.2", "30.8", P1, "3l"),),
    "yolov5n": (Published(640, "1.9", "4.5", "28.0", R61),),
    "yolov5s": (Published(640, "7.2", "16.5", "37.4", R61),),
    "yolov5m": (Published(640, "21.2", "49.0", "45.4", R61),),
    "yolov5l": (Published(640, "46.5", "109.1", "49.0", R61, "u5"),),
    "yolov5x": (Published(640, "86.7", "205.7", "50.7", R61),),
    "yolov5n6": (Published(1280, "3.2", "18.4", "36.0", R61),),
    "yolov5s6": (Published(1280, "12.6", "67.2", "44.8", R61),),
    "yolov5m6": (Published(1280, "35.7", "200.0", "51.3", R61),),
    "yolov5l6": (Published(1280, "76.8", "445.6", "53.7", R61, "l6"),),
    "yolov5x6": (Published(1280, "140.7", "839.2", "55.0", R61),),
    "yolov5s-v5": (Published(640, "7.3", "17.0", "", R50),),
    "yolov5m-v5": (Published(640, "21.4", "51.3", "", R50),),
    "yolov5l-v5": (Published(640, "47.0", "115.4", "", R50),),
    "yolov5x-v5": (Published(640, "87.7", "218.8", "", R50),),
    "yolov5s-v3": (Published(640, "7.5", "", "", R31),),
    "yolov5m-v3": (Published(640, "21.8", "", "", R31),),
    "yolov5l-v3": (Published(640, "47.8", "", "", R31),),
    "yolov5x-v3": (Published(640, "89.0", "", "", R31, "normalized"),),
}
"""What the papers and releases say, in their own figures."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "YOLOv7, 640 pixels": tuple(yolov7.NETWORKS),
    "YOLOv7, 1280 pixels": tuple(yolov7_p6.NETWORKS),
    "YOLOR, and other cross-stage partial networks": tuple(yolor.NETWORKS),
    "YOLOv5": tuple(yolov5.NETWORKS),
    "YOLOv4": tuple(yolov4.NETWORKS),
    "YOLOv3": tuple(yolov3.NETWORKS),
}

HEADINGS = (
    "| network | strides | size | M, training | M, inference | GFLOPs | published: M | GFLOPs | AP | source |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def rows(name: str) -> Iterator[str]:
    """The rows of a network: one at the size of its family, and one at each other size published."""
    graph = yolo.zoo(name)
    folded = inference_form(graph)
    millions = yolo.summarize(graph).parameters / 1e6
    published = PUBLISHED.get(name, ())
    if graph.default_size not in {row.size for row in published}:
        published = (Published(graph.default_size, "", "", "", ""), *published)
    for row in published:
        inference = yolo.summarize(folded, image_size=(row.size, row.size))
        cells = (
            name,
            ", ".join(map(str, graph.strides)),
            str(row.size),
            f"{millions:.2f}",
            f"{inference.parameters / 1e6:.2f}",
            f"{inference.flops / 1e9:.2f}",
        )
        yield f"| {' | '.join(cells)} {row.cells()}"


def document() -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    for title, names in SECTIONS.items():
        lines += [f"## {title}", "", *HEADINGS, *(row for name in names for row in rows(name)), ""]
    lines += [f"[^{key}]: {text}" for key, text in NOTES.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the document, or compares it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the document is up to date")
    parsed = parser.parse_args()
    text = document()
    if not parsed.check:
        DOCUMENT.write_text(text, encoding="utf-8")
    elif not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != text:
        print(f"{DOCUMENT.name} is not up to date: run python tools/model_zoo.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
