"""XLA's listings are read as they are written; the texts are cut from real dumps."""

from __future__ import annotations

from scripts.cuda import buffers, thunks

STEP = """\
000: kCommandBuffer [source | sink]
    001: kCustomKernel [source        | next=002 (1) ] loop_gather_fusion grid: [1, 1, 1] threads: [16, 1, 1]
    002: kCustomKernel [prev=001 (1)  | next=157 (1) ] gemm_fusion_dot_2 grid: [16, 1, 1] threads: [64, 1, 1]
    003: kCustomKernel [prev=001 (1)  | next=157 (1) ] gemm_fusion_dot_3 grid: [16, 1, 1] threads: [64, 1, 1]
    157: kConditional  [prev=048 (1)  | next=158 (1) ]
      false_branch:
        049: kCustomKernel [source       | next=050 (1)] input_reduce_fusion_166 grid: [128, 1, 1]
        154: kConditional  [prev=054 (1) | next=155 (1)]
          false_branch:
            055: kCustomKernel [source       | sink] input_reduce_fusion_30 grid: [128, 1, 1]
      true_branch:
        156: kCopy [source | sink] kCopy
    158: kCustomKernel [prev=157 (1)  | sink ] loop_add_fusion grid: [1, 1, 1] threads: [16, 1, 1]

"""
LOOP = """\
000: kCommandBuffer [source | next=003 (1) ]
    001: kCustomKernel [source | sink] loop_gather_fusion grid: [1, 1, 1]
003: kWhile [prev=000 (1) | sink]
  condition:
    004: kCustomKernel [source | sink] wrapped_compare grid: [1, 1, 1]
  body:
    005: kCommandBuffer [source | sink]
        006: kCopy [source | sink] copy.1
"""
ASSIGNMENT = """\
BufferAssignment:
allocation 0: size 541196288, parameter 25, shape |bf16[2,4129,16,32,64]| at ShapeIndex {}, maybe-live-out:
 value: <16941 k.1 @0> (size=541196288,offset=0): bf16[2,4129,16,32,64]{4,3,2,1,0}
 value: <16975 input_scatter_fusion.8 @0> (size=541196288,offset=0): bf16[2,4129,16,32,64]{4,3,2,1,0}
allocation 7: size 67108864, page 0, constant:
 value: <3 constant.1 @0> (size=67108864,offset=0): f32[16777216]{0}
allocation 34: size 160, maybe-live-out:
 value: <17080 tuple.9{} @0> (size=541196288,offset=0): (bf16[2,4129,16,32,64]{4,3,2,1,0}, s32[8]{0})
 value: <17081 fusion.7{0} (phi) @0> (size=160,offset=0): s32[8,5]{1,0}
allocation 672: size 5374024, page 0, preallocated-temp:
 value: <12 copy.19 @0> (size=1638400,offset=1638400): f32[8,51200]{1,0}

Used values:
<12 copy.19 @0>
"""
HLO = """\
  %copy.19 = f32[8,51200]{1,0} copy(%get-tuple-element.106), metadata={scheduling_name="copy.19"}
  ROOT %fusion.7 = (s32[8,5]{1,0}, s32[8]{0}) fusion(%copy.19), kind=kLoop, calls=%fused
"""


def test_one_graph_and_what_runs_in_it():
    listing = thunks.parse(STEP)
    assert thunks.top_level(listing) == {"kCommandBuffer": 1}
    assert thunks.kernels(listing) == (4, 3)
    assert thunks.names(listing, 1) == ("2 x gemm_fusion_dot",)


def test_a_loop_stands_beside_the_graph():
    listing = thunks.parse(LOOP)
    assert thunks.top_level(listing) == {"kCommandBuffer": 1, "kWhile": 1}
    assert thunks.kernels(listing) == (3, 0)
    assert str(listing[-1]) == "kWhile / kCommandBuffer / kCopy copy.1"


def test_values_outside_of_arguments_and_the_lines_that_make_them():
    values = buffers.parse(ASSIGNMENT, HLO)
    assert [(value.name, value.dimensions) for value in values] == [("copy.19", (8, 51200)), ("fusion.7", (8, 5))]
    assert str(values[0]) == ("f32[8,51200]{1,0} (1.6 MB): %copy.19 = f32[8,51200]{1,0} copy(%get-tuple-element.106)")
