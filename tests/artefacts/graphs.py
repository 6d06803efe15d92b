"""Small networks that have every layer kind between them."""

from yolov7_jax.graph.builder import Builder
from yolov7_jax.graph.rewrite import with_width
from yolov7_jax.graph.spec import IMAGE
from yolov7_jax.graph.zoo import zoo

ANCHORS = (((10, 13), (33, 23)),)


CHAINS = {
    "csp": ("BottleneckCSP", "C3", "C3Ghost", "BottleneckCSPA", "BottleneckCSPB", "BottleneckCSPC"),
    "res": ("Res", "ResX", "ResCSPA", "ResCSPB", "ResCSPC", "ResXCSPA", "ResXCSPB", "ResXCSPC"),
    "rep": (
        "RepConv",
        "RepBottleneck",
        "RepBottleneckCSPA",
        "RepBottleneckCSPB",
        "RepBottleneckCSPC",
        "RepRes",
        "RepResX",
    ),
    "rep csp": ("RepResCSPA", "RepResCSPB", "RepResCSPC", "RepResXCSPA", "RepResXCSPB", "RepResXCSPC"),
    "others": ("Conv", "DWConv", "GhostConv", "GhostBottleneck", "Bottleneck", "SPP", "SPPF", "SPPCSPC", "C3TR"),
}
"""Kinds that keep the size of their input."""


def chain(kinds):
    b = Builder(activation="SiLU")
    x = b.add("Conv", IMAGE, 64, 3, 4)
    for kind in kinds:
        x = b.add(kind, x, 64)
    b.add("IAuxDetect", [x, b.add("Conv", x, 32)])
    return b.build(anchors=ANCHORS, num_classes=3)


def shapes_graph():
    """Kinds that change the size, and all that have no weights."""
    b = Builder(activation="Mish")
    fine = b.add("Focus", IMAGE, 16, 3)
    x = b.add("Concat", [b.add("Contract", b.add("ReOrg", IMAGE)), b.add("Stem", IMAGE, 16), b.add("DownC", fine, 16)])
    x = b.add("Conv", b.add("SP", x), 32)
    y = b.add("Chuncat", [b.add("Foldcut", x), b.add("Chunk", x)])
    x = b.add("Shortcut", [x, y])
    up = b.add(
        "Concat",
        [b.add("nn.Upsample", b.add("MP", x), None, 2, "nearest"), b.add("Expand", b.add("MP", b.add("MP", x)), 4)],
    )
    x = b.add("nn.MaxPool2d", b.add("nn.ZeroPad2d", b.add("Conv", up, 16), (0, 1, 0, 1)), 2, 1)
    b.add("AuxDetect", [b.add("Conv", x, 32, 3, 2), b.add("Conv", x, 16, 3, 2)])
    return b.build(anchors=ANCHORS, num_classes=3)


GRAPHS = {
    **{name: lambda kinds=kinds: chain(kinds) for name, kinds in CHAINS.items()},
    "shapes": shapes_graph,
    # Every layer kind that a network of the zoo has stands in one of these or above; narrow, to be quick.
    **{
        name: lambda name=name: with_width(zoo(name, num_classes=3), 0.125)
        for name in ("yolov5n", "yolov5s-v3", "yolov4-tiny", "yolov3-tiny", "yolov7-tiny")
    },
}
