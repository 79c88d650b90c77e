"""Products of a module are counted where they run, and those of kernels from their operands."""

from __future__ import annotations

from scripts.cuda.operations import operations

FUSED = """HloModule jit_checked
%first (parameter_0: bf16[4,8], parameter_1: bf16[16,8]) -> bf16[4,16] {
  %parameter_0 = bf16[4,8]{1,0} parameter(0)
  %parameter_1 = bf16[16,8]{1,0} parameter(1)
  ROOT %dot.1 = bf16[4,16]{1,0} dot(%parameter_0, %parameter_1), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

%unused (parameter_2: bf16[4,8], parameter_3: bf16[16,8]) -> bf16[4,16] {
  %parameter_2 = bf16[4,8]{1,0} parameter(0)
  %parameter_3 = bf16[16,8]{1,0} parameter(1)
  ROOT %dot.2 = bf16[4,16]{1,0} dot(%parameter_2, %parameter_3), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

ENTRY %main (x: bf16[4,8], w: bf16[16,8]) -> bf16[4,16] {
  %x = bf16[4,8]{1,0} parameter(0)
  %w = bf16[16,8]{1,0} parameter(1)
  %one = bf16[4,16]{1,0} fusion(%x, %w), kind=kCustom, calls=%first, backend_config={"kind":"__triton"}
  %two = bf16[4,16]{1,0} fusion(%x, %w), kind=kCustom, calls=%first
"""
KERNEL = (
    '  %call.1 = bf16[40,8]{1,0} custom-call(%a, %b, %c, %d), custom_call_target="__gpu$xla.gpu.triton", '
    "operand_layout_constraints={s32[40]{0}, s32[5]{0}, bf16[20,8]{1,0}, bf16[4,16,8]{2,1,0}}, "
    'api_version=API_VERSION_TYPED_FFI, metadata={op_name="jit(checked)/mlp/moe_prefill_up/pallas_call"}, '
    "backend_config={dot(nothing)}\n"
)


def test_a_product_counts_as_often_as_it_is_called():
    assert operations(FUSED + "}") == 2 * (2 * 4 * 16 * 8)


def test_grouped_products_count_for_the_worst_routing():
    # 40 choices of 4 experts: three with one choice, one with 37, so 3 x 32 + 64 are computed.
    assert operations(FUSED + KERNEL + "}") == operations(FUSED + "}") + 2 * 160 * 16 * 8
    assert operations(FUSED + KERNEL.replace("moe_prefill_up", "another") + "}") == operations(FUSED + "}")
