import importlib.util
from types import SimpleNamespace

import jax
import pytest

from yolov7_jax.errors import InputError, InstallationError
from yolov7_jax.training import topology
from yolov7_jax.training.mesh import data_mesh
from yolov7_jax.training.topology import cache_off, named_devices, planned_devices


def test_devices_at_hand() -> None:
    assert planned_devices("local") == planned_devices("cpu") == jax.devices()
    assert named_devices(data_mesh(), "local") == f"{jax.device_count()} × cpu"


@pytest.mark.parametrize(
    ("on", "sentence"),
    [
        ("v5e", r"--on v5e: expected local, cpu, or a chip \(v4, v5e, v5p, v6e\) and how many .* such as v5e:2x2"),
        ("v9:2x2", "--on v9:2x2: expected local, cpu, or a chip"),
        ("v5e:2x2x1", "v5e is wired along 2 axes; expected such as v5e:2x2"),
        ("v5p:2x2", "v5p is wired along 3 axes; expected such as v5p:1x2x2"),
        ("v5e:0x2", "v5e is wired along 2 axes"),
        ("v5e:2x-2", "expected local, cpu"),
    ],
)
def test_topologies_that_are_none(on: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        planned_devices(on)


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InstallationError, match=r"install it: pip install 'yolov7-jax\[tpu\]'"):
        planned_devices("v5e:2x2")


def test_what_libtpu_refuses_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, object]()

    def refuse(**given: object) -> None:
        asked.update(given)
        raise RuntimeError("INVALID_ARGUMENT: too many\nsecond line")

    for name in topology._OFFLINE:
        monkeypatch.setenv(name, "as it was")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(topology.topologies, "get_topology_desc", refuse)
    with pytest.raises(InputError, match=r"--on v5e:3x2: libtpu cannot .*too many\); choose another topology$"):
        planned_devices("v5e:3x2")
    assert asked["chips_per_host_bounds"] == [1, 2, 1]  # what divides the topology


def test_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = [SimpleNamespace(coords=[0, 0, 0]), SimpleNamespace(coords=[0, 0, 0])]
    for name in topology._OFFLINE:
        monkeypatch.setenv(name, "as it was")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(topology.topologies, "get_topology_desc", lambda **_: SimpleNamespace(devices=cores))
    with pytest.raises(InputError, match="--on v4:1x1x1: libtpu has two devices a chip there"):
        planned_devices("v4:1x1x1")


def test_the_compilation_cache_is_off_meanwhile() -> None:
    name = "jax_enable_compilation_cache"
    before = jax.config.values[name]
    with cache_off():
        assert jax.config.values[name] is False
    assert jax.config.values[name] == before
