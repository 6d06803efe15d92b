import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from yolov7_jax.convert.load import load, load_with_report
from yolov7_jax.convert.torch_file import read_torch_file
from yolov7_jax.convert.torch_names import to_torch_state
from yolov7_jax.errors import WeightsError
from yolov7_jax.graph.zoo import zoo
from yolov7_jax.reparameterize import difference, reparam

pytestmark = pytest.mark.shared


def test_real_checkpoint_has_a_place_for_every_tensor(shared: Path) -> None:
    weights, report = load_with_report(shared / "weights/yolov5n.pt")
    facts = json.loads((shared / "goldens/forward/yolov5n.json").read_text())
    assert report.complete
    assert len(report.matched) + len(report.buffers) == len(read_torch_file(shared / "weights/yolov5n.pt").state)
    assert {*report.matched, *report.buffers} >= {name for name, _ in facts["state"]}
    assert weights.graph == zoo("yolov5n")
    assert weights.names[0] == "person"
    assert len(weights.names) == 80


def test_values_arrive_unchanged(shared: Path) -> None:
    path = shared / "weights/yolov7-tiny_random_7_classes.pt"
    weights = load(path)
    assert weights.graph == zoo("yolov7-tiny", num_classes=7)
    ours = to_torch_state(weights.graph, weights.variables)
    for name, stored in read_torch_file(path).state.items():
        if not name.endswith("num_batches_tracked"):
            assert np.array_equal(ours[name], stored.astype(np.float32)), name


def test_real_weights_fold_to_the_same_outputs(shared: Path) -> None:
    weights = load(shared / "weights/yolov5n.pt")
    graph, variables = reparam(weights.graph, weights.variables)
    # float32 rounding of the folded weights, in float64 arithmetic.
    assert difference(weights.graph, weights.variables, graph, variables) < 1e-6


def test_wrong_model_is_refused_with_the_file_and_the_names(shared: Path) -> None:
    with pytest.raises(WeightsError, match=r"yolov5n.pt: the weights do not fit the network: .* mismatched: "):
        load(shared / "weights/yolov5n.pt", model="yolov5s")


def test_neither_torch_nor_its_code_is_needed(shared: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['models'] = None\n"
        "from yolov7_jax.convert.load import load\n"
        f"print(load({str(shared / 'weights/yolov5n.pt')!r}).names[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bicycle"
