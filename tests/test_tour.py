"""The notebook of the tour runs from top to bottom on what the project ships, and finds what it says it finds."""

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install 'yolov7-jax[notebook]'")
nbclient = pytest.importorskip("nbclient", reason="pip install 'yolov7-jax[notebook]'")
pytest.importorskip("ipykernel", reason="pip install 'yolov7-jax[notebook]'")

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "docs" / "tour.ipynb"
MOST_BYTES = 400_000
LONGEST_S = 900
"""Of a cell: the training, where the machine is busy."""

FACTS = """
assert run.finished and run.best_score > 0.35, run
assert len(sure) and len(sure) <= len(of_pillow)
assert len(tiled) > len(whole)
assert tracked.frames == 72 and tracked.objects and tracked.video.stat().st_size
assert len(jax.tree.leaves(folded)) < len(jax.tree.leaves(weights.variables)) / 2
assert difference < 1e-3
source, exported_found = detector(held_out, rect=False), artefact(held_out)
assert sum(map(len, source)) > 30
for ours, theirs in zip(source, exported_found, strict=True):
    assert ours.labels == theirs.labels
    np.testing.assert_allclose(theirs.boxes_xyxy_px, ours.boxes_xyxy_px, atol=0.05)
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=1e-4)
"""
"""What must hold after the last cell, of the notebook's own variables."""


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_runs_and_what_the_notebook_says_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(FACTS))
    for variable, place in (("IPYTHONDIR", "ipython"), ("JUPYTER_RUNTIME_DIR", "runtime")):
        monkeypatch.setenv(variable, str(tmp_path / place))  # nothing of the user's
    (tmp_path / "work").mkdir()
    client = nbclient.NotebookClient(
        notebook,
        timeout=LONGEST_S,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "work")}},
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""})
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert "Warning" not in "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["runs"]


def test_the_outputs_that_it_shows_are_those_of_one_run_and_small() -> None:
    cells = code_cells(nbformat.read(TOUR, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.get("name", output.output_type) for output in outputs} == {"stdout", "execute_result"}
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) >= 6
    assert TOUR.stat().st_size < MOST_BYTES
