from tests.experiment.small_run import MODEL
from yolov7_jax.cli.main import main
from yolov7_jax.datasets import open_source
from yolov7_jax.experiment import demonstration


def test_the_demonstration_in_small(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demonstration, "TRAIN_IMAGES", 8)
    monkeypatch.setattr(demonstration, "VAL_IMAGES", 4)
    folder = tmp_path / "demo"
    (tmp_path / "model.yaml").write_text(MODEL)
    settings = ["train.epochs=2", "train.batch_size=8", f"model.name={tmp_path / 'model.yaml'}", "train.size=64"]
    assert main(["demo", *settings, "--output", str(folder)]) == 0
    assert "on the held-out images; open" in capsys.readouterr().out
    page = (folder / "index.html").read_text()
    for name in ("predictions.png", "curves.png", "batch-1.png", "precision_recall.png", "confusion.png"):
        assert name in page
    for part in ("drawing the images", "compiling the training step", "training", "evaluation"):
        assert f"<dt>{part}</dt><dd>" in page
    assert len(open_source(folder / "scenes" / "data.yaml", "train")) == 8
