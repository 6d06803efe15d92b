"""tools/bench_gpu.py on the CPU: it says what it lacks, measures a small case, and tells operations apart."""

import json
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

from bench_gpu import Case, kind_of_operation, reason, row  # noqa: E402


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / "bench_gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_without_a_gpu_it_says_so() -> None:
    done = tool()
    assert done.returncode == 1
    assert "--device cpu" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_small_case(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    small = ["--device", "cpu", "--model", "yolov4-tiny", "--size", "64", "--batch", "1", "--blocks", "1"]
    done = tool(*small, "--calls", "1", "--product", "64", "--no-torch", "--only", "infer:float32", "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert not found["left_out"]
    figures = found["cases"]["yolov4-tiny:infer:float32:1"]
    assert set(figures["ms"]) == {"ours", "ours, with decoding and NMS"}
    assert abs(sum(figures["profile"].values()) - 1) < 0.01
    assert {"convolution", "decoding and NMS"} <= set(figures["profile"])


def test_kinds_of_operations() -> None:
    layer = 'custom-call(), custom_call_target="__cudnn$convForward", metadata={op_name="jit(f)/node 3/3/conv/conv"}'
    assert kind_of_operation("custom-call.1", layer, "NMS") == "convolution"
    assert (
        kind_of_operation("fusion.2", 'fusion(), metadata={op_name="jit(f)/node 3/3/bn/mul"}', "NMS") == "elementwise"
    )
    assert kind_of_operation("fusion.3", 'fusion(), metadata={op_name="jit(f)/sort"}', "NMS") == "NMS"
    assert kind_of_operation("copy.4", "copy()", "NMS") == "copies"


def test_what_was_not_measured_is_said() -> None:
    assert reason(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")) == "does not fit"
    text = row(Case("yolov7", "train", "bfloat16", 64), {"skipped": {"ours": "does not fit"}}, {"bfloat16": 1.0})
    assert "ours: does not fit" in text
