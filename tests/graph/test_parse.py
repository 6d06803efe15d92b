from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yolov7_jax.errors import GraphError, InputError
from yolov7_jax.graph.parse import parse
from yolov7_jax.graph.spec import IMAGE

MODEL = """\
nc: 4
depth_multiple: 0.5
width_multiple: 0.25
anchors:
  - [10,13, 16,30]
  - [30,61, 62,45]
backbone:
  [[-1, 1, Conv, [32, 3, 2]],
   [-1, 3, Conv, [64, 3, 1, None, 1, nn.LeakyReLU(0.1)]],
   [-1, 4, C3, [64, False]],
   [[-1, 1], 1, Concat, [1]],
  ]
head:
  [[-1, 1, MP, []],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[2, 4], 1, Detect, [nc, anchors]],
  ]
"""


def model_file(folder: Path, text: str = MODEL) -> Path:
    file = folder / "model.yaml"
    file.write_text(text)
    return file


def test_rows_mean_what_the_facts_say(tmp_path: Path) -> None:
    graph = parse(model_file(tmp_path))
    conv, stacked, c3, concat, *_, detect = graph.nodes
    assert conv.src == (IMAGE,)
    assert conv.options == {
        "channels": 8,  # 32 · 0.25
        "kernel": 3,
        "stride": 2,
        "padding": None,
        "groups": 1,
        "activation": "SiLU",
    }
    assert stacked.repeat == 2  # round(3 · 0.5), the even of 1.5's neighbors
    assert stacked.options["activation"] == "LeakyReLU(0.1)"
    assert (c3.repeat, c3.options["repeats"], c3.options["shortcut"]) == (1, 2, False)
    assert concat.src == ("2", "1")
    assert detect.src == ("2", "4")
    assert graph.strides == (2, 4)
    assert graph.anchors == (((10, 13), (16, 30)), ((30, 61), (62, 45)))
    assert graph.num_classes == 4
    assert graph.single_class_score == "product"


def test_class_count_can_be_replaced(tmp_path: Path) -> None:
    assert parse(model_file(tmp_path), num_classes=9).num_classes == 9


def test_default_activation_of_the_file_reaches_every_layer(tmp_path: Path) -> None:
    graph = parse(model_file(tmp_path, "activation: nn.ReLU()\n" + MODEL))
    activations = [node.options.get("activation") for node in graph]
    assert activations[:3] == ["ReLU", "LeakyReLU(0.1)", "ReLU"]


def test_anchors_listed_from_large_to_small_are_turned_over(tmp_path: Path) -> None:
    swapped = MODEL.replace("  - [10,13, 16,30]\n  - [30,61, 62,45]\n", "  - [30,61, 62,45]\n  - [10,13, 16,30]\n")
    assert swapped != MODEL
    assert parse(model_file(tmp_path, swapped)) == parse(model_file(tmp_path))


def test_a_number_of_anchors_stands_in_for_sizes(tmp_path: Path) -> None:
    text = MODEL.replace("anchors:\n  - [10,13, 16,30]\n  - [30,61, 62,45]\n", "anchors: 3\n")
    assert parse(model_file(tmp_path, text)).anchors == (((4, 4), (8, 8), (16, 16)), ((8, 8), (16, 16), (32, 32)))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("[-1, 1, MP, []]", "[-1, 1, MPP, []]", r"model.yaml, line 14: layer 4: layer kind 'MPP' is not known"),
        ("[[-1, 1], 1, Concat", "[[-1, 7], 1, Concat", r"line 11: layer 3: 'from' names layer 7, which does not stand"),
        ("[-1, 4, C3, [64, False]]", "[-1, 4, C3, [64, 3.5]]", r"line 10: layer 2: argument 'shortcut' of C3 must be"),
        (
            "[-1, 3, Conv",
            "[-9, 3, Conv",
            r"line 9: layer 1: 'from' names layer -8, which does not stand before layer 1",
        ),
        ("[32, 3, 2]", "[32, 3, 2, 1, 1, True, 9]", r"line 8: layer 0: Conv takes at most 6 arguments"),
        ("[-1, 1, MP, []]", "[-1, 1, SP, [4]]", r"line 14: layer 4 \(SP\): .* must be odd, got 4"),
        ("[32, 3, 2]", "[]", r"line 8: layer 0: Conv needs channels"),
        ("[32, 3, 2]", "[32, 3, 2, None, 5]", r"line 8: layer 0 \(Conv\): 5 groups do not divide"),
        ("nn.LeakyReLU(0.1)", "nn.Softmax()", r"line 9: layer 1: activation 'nn.Softmax\(\)' is not known"),
        ("[[-1, 1], 1, Concat", "[[-1, -4], 1, Concat", r"line 11: layer 3 \(Concat\): its inputs have strides"),
        ("[[2, 4], 1, Detect", "[[2], 1, Detect", r"detect layer has 1 levels; expected as many lists of anchors"),
        ("nc: 4", "nc: four", r"nc must be a whole number from 1, got 'four'"),
        ("depth_multiple: 0.5", "depth_multiple: no", r"depth_multiple must be a number above 0"),
        ("[10,13, 16,30]", "[10,13, 16]", r"anchors must be a list of w, h pairs"),
        ("head:", "neck:", r"the key 'head' is missing"),
        ("[-1, 1, MP, []]", "[-1, 1, MP]", r"line 14: layer 4: expected \[from, number, module, \[arguments\]\]"),
        ("[-1, 3, Conv", "[-1, 0, Conv", r"line 9: layer 1: the number of repeats must be a whole number from 1"),
    ],
)
def test_a_broken_file_is_refused_with_the_line(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in MODEL
    with pytest.raises(GraphError, match=sentence):
        parse(model_file(tmp_path, MODEL.replace(old, new)))


def test_what_is_no_yaml_is_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model.yaml, line \d+: .*valid YAML"):
        parse(model_file(tmp_path, MODEL.replace("[32, 3, 2]],", "[32, 3, 2]]")))
    with pytest.raises(InputError, match=r"absent.yaml: cannot be read"):
        parse(tmp_path / "absent.yaml")
    with pytest.raises(GraphError, match="not a model description"):
        parse(model_file(tmp_path, "just text"))


def test_texts_are_never_evaluated(tmp_path: Path) -> None:
    text = MODEL.replace("[32, 3, 2]", f"[__import__('pathlib').Path('{tmp_path}/run').touch()]")
    with pytest.raises(InputError):
        parse(model_file(tmp_path, text))
    with pytest.raises(GraphError, match="argument 'channels'"):
        parse(model_file(tmp_path, MODEL.replace("[32, 3, 2]", '["open(1)", 3, 2]')))
    assert not (tmp_path / "run").exists()


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    key=st.sampled_from(["nc", "anchors", "backbone", "head", "width_multiple", "activation", "ch"]), value=JSON_LIKE
)
def test_any_dict_parses_or_is_refused(key: str, value: Any) -> None:
    model: dict[str, Any] = {
        "nc": 2,
        "anchors": [[4, 4]],
        "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
        "head": [[[0], 1, "Detect", ["nc", "anchors"]]],
    }
    parse(model)
    sentence = ""
    try:
        parse({**model, key: value})
    except GraphError as error:
        sentence = str(error)
    assert "\n" not in sentence
