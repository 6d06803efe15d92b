import jax
import jax.numpy as jnp
import numpy as np
import pytest

from yolov7_jax.ops.by_device import on_each_device
from yolov7_jax.training.mesh import data_mesh, split

VALUES = np.arange(24, dtype=np.float32).reshape(8, 3)


def compiled(function, mesh):
    def in_use(values):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(values)

    return jax.jit(in_use, in_shardings=split(mesh))


def test_every_device_computes_its_own_images_and_no_others() -> None:
    seen = []
    weights = jnp.asarray([1.0, 2.0, 3.0])

    def product(values):
        seen.append(values.shape)
        return values @ weights, {"largest": jnp.max(values)[None]}

    found, rest = compiled(on_each_device(product), data_mesh())(VALUES)
    assert seen == [(2, 3)]  # 8 images, 4 devices
    np.testing.assert_array_equal(found, VALUES @ [1, 2, 3])
    np.testing.assert_array_equal(rest["largest"], [5, 11, 17, 23])


def test_its_gradient_is_that_of_the_function() -> None:
    weights = jnp.asarray([1.0, 2.0, 3.0])

    def loss(values):
        return (on_each_device(lambda values: jnp.square(values) @ weights)(values) * jnp.arange(8.0)).sum()

    gradient = compiled(jax.grad(loss), data_mesh())(VALUES)
    np.testing.assert_array_equal(gradient, 2 * VALUES * [1, 2, 3] * np.arange(8)[:, None])


@pytest.mark.parametrize("count", [8, 6])
def test_without_a_mesh_or_an_even_share_the_function_is_called_as_it_is(count: int) -> None:
    seen = []

    def same(values):
        seen.append(values.shape)
        return values

    split_over = compiled(on_each_device(same), data_mesh(jax.devices()[:1])) if count == 8 else on_each_device(same)
    np.testing.assert_array_equal(split_over(VALUES[:count]), VALUES[:count])
    with jax.sharding.use_abstract_mesh(data_mesh().abstract_mesh):
        jax.eval_shape(on_each_device(same), VALUES[:6])
    assert seen == [(count, 3), (6, 3)]
    assert "shard_map" not in str(jax.make_jaxpr(split_over)(VALUES[:count]))
