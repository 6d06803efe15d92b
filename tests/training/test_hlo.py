"""What is read from programs: by hand from short ones, and from one that XLA compiled for several CPU devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from yolov7_jax.training.hlo import Collective, HloArray, collectives, convolutions, padded_arrays, parse_hlo
from yolov7_jax.training.mesh import DATA, data_mesh

PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=4

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%inner_body (c: (s32[], bf16[8,4])) -> (s32[], bf16[8,4]) {
  %c = (s32[], bf16[8,4]{1,0:T(8,128)(2,1)}) parameter(0)
  %t = bf16[8,4]{1,0:T(8,128)(2,1)} get-tuple-element(%c), index=1
  %i = s32[] get-tuple-element(%c), index=0
  %twice = bf16[8,4]{1,0:T(8,128)(2,1)} all-reduce(%t), replica_groups={{0,1,2,3}}, to_apply=%sum
  ROOT %back = (s32[], bf16[8,4]{1,0:T(8,128)(2,1)}) tuple(%i, %twice)
}

%inner_condition (d: (s32[], bf16[8,4])) -> pred[] {
  %d = (s32[], bf16[8,4]{1,0}) parameter(0)
  %five = s32[]{:T(128)} constant(5)
  %n = s32[] get-tuple-element(%d), index=0
  ROOT %less = pred[]{:T(512)} compare(%n, %five), direction=LT
}

%outer_body (e: (s32[], bf16[8,4], s32[])) -> (s32[], bf16[8,4], s32[]) {
  %e = (s32[], bf16[8,4]{1,0}, s32[]) parameter(0)
  %e0 = s32[] get-tuple-element(%e), index=0
  %e1 = bf16[8,4]{1,0} get-tuple-element(%e), index=1
  %e2 = s32[] get-tuple-element(%e), index=2
  %start = (s32[], bf16[8,4]{1,0}) tuple(%e0, %e1)
  %loop.1 = (s32[], bf16[8,4]{1,0}) while(%start), condition=%inner_condition, body=%inner_body
  %out = bf16[8,4]{1,0} get-tuple-element(%loop.1), index=1
  ROOT %next = (s32[], bf16[8,4]{1,0}, s32[]) tuple(%e0, %out, /*index=2*/%e2)
}

%outer_condition (f: (s32[], bf16[8,4], s32[])) -> pred[] {
  %f = (s32[], bf16[8,4]{1,0}, s32[]) parameter(0)
  %at = s32[] get-tuple-element(%f), index=0
  %end = s32[] get-tuple-element(%f), index=2
  ROOT %on = pred[] compare(%at, %end), direction=LT
}

%fused (p: bf16[2,8,8,3], q: f32[3,3,3,5]) -> f32[2,8,8,5] {
  %p = bf16[2,8,8,3]{3,2,1,0} parameter(0)
  %q = f32[3,3,3,5]{3,2,1,0} parameter(1)
  %wasted = f32[2,8,8,5]{3,2,1,0:T(8,128)} broadcast(%q), dimensions={}
  ROOT %conv.1 = f32[2,8,8,5]{3,2,1,0} convolution(%p, %q), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}

ENTRY %main.9 (a: bf16[2,8,8,3], b: f32[3,3,3,5], g: f32[6], h: bf16[8,4], z: s32[]) -> f32[24] {
  %a = bf16[2,8,8,3]{3,2,1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="batch.image"}
  %b = f32[3,3,3,5]{3,2,1,0} parameter(1)
  %g = f32[6]{0:T(128)} parameter(2)
  %h = bf16[8,4]{1,0} parameter(3)
  %z = s32[] parameter(4)
  %three = s32[] constant(3)
  %conv = f32[2,8,8,5]{3,2,1,0} fusion(%a, %b), kind=kOutput, calls=%fused
  %conv2 = bf16[2,8,8,3]{3,2,1,0} convolution(%a, %a), window={size=8x8}, dim_labels=fb01_io01->01bf
  %pair = (f32[6]{0:T(128)}, bf16[8,4]{1,0}) all-reduce-start(%g, %h), to_apply=%sum, metadata={op_name="step/sums"}
  %pair.done = (f32[6]{0:T(128)}, bf16[8,4]{1,0}) all-reduce-done(%pair)
  %gathering = (f32[6]{0}, f32[24]{0}) all-gather-start(%g), dimensions={0}, replica_groups=[1,4]<=[4]
  %whole = f32[24]{0} all-gather-done(%gathering)
  %known = (s32[], bf16[8,4]{1,0}, s32[]) tuple(%z, %h, %three)
  %loop.2 = (s32[], bf16[8,4]{1,0}, s32[]) while(%known), condition=%outer_condition, body=%outer_body
  %unknown = (s32[], bf16[8,4]{1,0}, s32[]) tuple(%z, %h, %z)
  ROOT %copy = f32[24]{0} copy(%whole)
}
"""
F32 = HloArray("f32", (6,), "0:T(128)")
BF16 = HloArray("bf16", (8, 4), "1,0")


def test_collectives_have_sizes_and_loops() -> None:
    both, gathering, looped = collectives(parse_hlo(PROGRAM))
    assert both == Collective("all-reduce", (F32, BF16), False, 1, "step/sums")
    assert both.bytes == 6 * 4 + 8 * 4 * 2
    assert both.dtypes == "bf16, f32"
    assert (gathering.kind, [str(array) for array in gathering.arrays], gathering.trips) == (
        "all-gather",
        ["f32[24]"],
        1,
    )
    assert (looped.kind, looped.in_loop, looped.trips) == ("all-reduce", True, 15)  # five times in each of three


def test_loops_whose_end_depends_on_data_are_of_unknown_length() -> None:
    text = PROGRAM.replace("while(%known)", "while(%unknown)")
    *_, looped = collectives(parse_hlo(text))
    assert looped.in_loop
    assert looped.trips is None
    said = text.replace("body=%outer_body", 'body=%outer_body, backend_config={"known_trip_count":{"n":"7"}}')
    assert collectives(parse_hlo(said))[-1].trips == 35


def test_convolutions_count_inside_fusions_by_their_wider_operand() -> None:
    assert convolutions(parse_hlo(PROGRAM)) == {"f32": 1, "bf16": 1}


@pytest.mark.parametrize(
    ("array", "padded"),
    [
        (HloArray("f32", (16, 25200, 85), "2,1,0:T(8,128)"), 16 * 25200 * 128 * 4),
        (HloArray("f32", (16, 25200, 85), "1,0,2:T(8,128)"), 85 * 16 * 25216 * 4),  # 25200 = 197 tiles of 128
        (HloArray("bf16", (16, 640, 320, 6), "0,3,2,1:T(8,128)(2,1)"), 640 * 320 * 8 * 128 * 2),
        (HloArray("f32", (85,), "0:T(128)"), 128 * 4),
        (HloArray("f32", (), ":T(128)"), 4),  # not worth a word
        (HloArray("pred", (3, 5), "1,0"), 15),
        (HloArray("s32", (5, 2), "0,1:T(2,128)S(1)"), 2 * 128 * 4),
    ],
)
def test_tiles_are_filled_up(array: HloArray, padded: int) -> None:
    assert array.padded_bytes == padded


def test_arrays_inside_fusions_take_no_memory() -> None:
    image, in_loop, sums = padded_arrays(parse_hlo(PROGRAM), least=1)
    assert (str(image.array), image.count, image.origin) == ("bf16[2,8,8,3]", 1, "batch.image")
    assert [str(found.array) for found in (in_loop, sums)] == ["bf16[8,4]", "f32[6]"]
    assert padded_arrays(parse_hlo(PROGRAM)) == []  # 32 KB are not worth a word


def test_a_program_of_xla() -> None:
    """Each device has its images; the sum of squares of a convolution has to be sent, and weights are gathered."""
    mesh = data_mesh()
    devices = mesh.size
    rows, cut = NamedSharding(mesh, PartitionSpec(DATA)), NamedSharding(mesh, PartitionSpec(None, DATA))

    def step(images: jax.Array, kernel: jax.Array, weights: jax.Array) -> jax.Array:
        def turn(carried: jax.Array, _: None) -> tuple[jax.Array, None]:
            maps = jax.lax.conv_general_dilated(
                images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            return carried + jnp.sum(jnp.square(maps + carried)), None

        total, _ = jax.lax.scan(turn, jnp.zeros(()), None, length=3)
        return total + jax.lax.with_sharding_constraint(jnp.sin(weights), NamedSharding(mesh, PartitionSpec())).sum()

    shapes = [
        ((2 * devices, 8, 8, 3), rows),
        ((3, 3, 3, 4), NamedSharding(mesh, PartitionSpec())),
        ((5, 4 * devices), cut),
    ]
    arguments = [jax.ShapeDtypeStruct(shape, np.float32, sharding=place) for shape, place in shapes]
    program = parse_hlo(jax.jit(step).lower(*arguments).compile().as_text() or "")
    found = collectives(program)
    assert sorted({one.kind for one in found}) == ["all-gather", "all-reduce"]
    assert [(str(one.arrays[0]), one.trips) for one in found if one.kind == "all-gather"] == [
        (f"f32[5,{4 * devices}]", 1)
    ]
    assert [(one.bytes, one.trips) for one in found if one.in_loop] == [(4, 3)]
    assert convolutions(program) == {"f32": 1}
    assert padded_arrays(program) == []
