"""What kernels take of a multiprocessor, and how often weights are read; the texts are cut from real dumps."""

from __future__ import annotations

import pytest

from jaxphoton.engine.gpus import CHIPS
from scripts.cuda.occupancy import blocks_at_once, usages
from scripts.cuda.reads import weight_reads

HLO = """\
HloModule jit_checked

%fused_gather (param_0: bf16[512,64], param_1: s32[8]) -> bf16[8,64] {
  %param_0.1 = bf16[512,64]{1,0} parameter(0)
  ROOT %gather.1 = bf16[8,64]{1,0} gather(%param_0.1, %param_1.1), offset_dims={1}
}

%fused_line (param_0: bf16[512,64], param_1: s32[], param_2: bf16[96,64]) -> bf16[1,64] {
  %param_0.7 = bf16[512,64]{1,0} parameter(0)
  %param_2.7 = bf16[96,64]{1,0} parameter(2)
  %line.1 = bf16[1,64]{1,0} dynamic-slice(%param_0.7, %param_1.7, %zero.1), dynamic_slice_sizes={1,64}, metadata={}
}

%branch (arg: (bf16[64,96], bf16[8,64])) -> (bf16[8,96]) {
  %arg.1 = (bf16[64,96]{1,0}, bf16[8,64]{1,0}) parameter(0)
}

ENTRY %main (wte: bf16[512,64], in_w: bf16[96,64], out_w: bf16[64,96], bias: bf16[96]) -> bf16[8,96] {
  %wte.1 = bf16[512,64]{1,0} parameter(0), metadata={op_name="wte"}
  %in_w.1 = bf16[96,64]{1,0} parameter(1)
  %out_w.1 = bf16[64,96]{1,0} parameter(2)
  %bias.1 = bf16[96]{0} parameter(3)
  %x.1 = bf16[8,64]{1,0} fusion(%wte.1, %ids.1), kind=kLoop, calls=%fused_gather, metadata={}
  %y.1 = bf16[1,64]{1,0} fusion(%wte.1, %at.1, %in_w.1), kind=kLoop, calls=%fused_line, metadata={}
  %bitcast.4 = bf16[96,64]{1,0} bitcast(%in_w.1)
  %pallas_call.1 = bf16[8,96]{1,0} custom-call(%x.1, %in_w.1, %bias.1), custom_call_target="__gpu$xla.gpu.triton", \
metadata={op_name="jit(checked)/layer_0/input_product/pallas_call" stack_frame_id=9}
  %conditional.1 = (bf16[8,96]{1,0}) conditional(%p, %tuple.2, %tuple.3), branch_computations={%branch, %branch}
  ROOT %fusion.9 = bf16[8,96]{1,0} fusion(%bitcast.4, %pallas_call.1), kind=kLoop, calls=%other, metadata={}
}
"""
LISTING = """\
000: kCommandBuffer [source | sink]
    001: kCustomKernel [source        | next=002 (1)] loop_gather grid: [1, 1, 1] threads: [24, 1, 1]  shared_memory: 0 bytes
    002: kCustomKernel [prev=001 (1)  | next=003 (1)] input_product grid: [56, 8, 1] threads: [128, 1, 1]  shared_memory: 36864 bytes
    003: kCustomKernel [prev=002 (1)  | next=004 (1)] input_product grid: [56, 8, 1] threads: [128, 1, 1]  shared_memory: 36864 bytes
    004: kCustomKernel [prev=003 (1)  | sink        ] input_product__1 grid: [132, 1, 1] threads: [64, 1, 1]  shared_memory: 0 bytes
"""  # noqa: E501
PTX = """\
.version 8.8
.target sm_90a
.address_size 64
.visible .entry {name}(
	.param .u64 out
)
.reqntid 128, 1, 1
{{
	.reg .b32 	%r<3>;
	.reg .b64 	%rd<3>;
	ld.param.b64 	%rd1, [out];
	cvta.to.global.u64 	%rd2, %rd1;
	mov.u32 	%r1, %tid.x;
	st.global.b32 	[%rd2], %r1;
	ret;
}}
"""


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks"),
    [
        (128, 64, 61440, 3),  # 228 KiB by 61 KiB
        (128, 88, 1024, 5),  # 23 warps by registers, 20 of which are spread evenly
        (1024, 32, 0, 2),  # threads
        (32, 16, 0, 32),  # blocks
        (128, 255, 0, 2),
        (1024, 255, 0, 0),
    ],
)
def test_blocks_of_a_multiprocessor_of_an_h200(threads, registers, shared, blocks):
    assert blocks_at_once(CHIPS["h200"], threads, registers, shared) == blocks


def test_smaller_chips_hold_less():
    assert [blocks_at_once(CHIPS[name], 32, 16, 0) for name in ("a100", "l40s")] == [32, 24]
    assert [blocks_at_once(CHIPS[name], 128, 64, 61440) for name in ("a100", "l40s")] == [2, 1]


def test_only_what_always_runs_and_is_no_gather_reads_weights():
    found = weight_reads(HLO, {"bf16[512,64]", "bf16[96,64]", "bf16[64,96]", "s8[96,64]"})
    assert found == [("wte.1", "bf16[512,64]", 0), ("in_w.1", "bf16[96,64]", 3), ("out_w.1", "bf16[64,96]", 0)]


def test_our_kernels_are_told_with_their_launches(plugin, tmp_path):
    for number, name in enumerate(("input_product", "input_product__1", "loop_gather")):
        (tmp_path / f"module.{number}.ptx").write_text(PTX.format(name=name))
    chip, ptxas = CHIPS["h200"], plugin / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
    one, other = usages(chip, ptxas, tmp_path, LISTING, HLO)
    assert (one.kernel, one.launches, one.blocks, one.threads, one.shared) == ("input_product", 2, 448, 128, 36864)
    assert 0 < one.registers < 33 and one.spilled == 0
    assert one.occupancy == 6 * 4 / 64 and one.waves == pytest.approx(448 / (6 * 132))
    assert (other.kernel, other.launches, other.occupancy) == ("input_product__1", 1, 1.0)
