"""Collectives of a module are found wherever they are, with the bytes of their results."""

from __future__ import annotations

from scripts.cuda.collectives import collectives

HLO = """HloModule jit_checked
%inside (parameter_0: f32[8,4]) -> f32[8,4] {
  %parameter_0 = f32[8,4]{1,0} parameter(0)
  ROOT %all-reduce.1 = f32[8,4]{1,0} all-reduce(%parameter_0), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

ENTRY %main (x: f32[8,4], y: bf16[16]) -> f32[8,8] {
  %x = f32[8,4]{1,0} parameter(0)
  %sum = (bf16[16]{0}, f32[]) all-reduce-start(%y, %z), channel_id=1, to_apply=%add
  %ended = (bf16[16]{0}, f32[]) all-reduce-done(%sum)
  %begun = (f32[8,4]{1,0}, f32[8,8]{1,0}) all-gather-start(%x), dimensions={1}
  ROOT %done = f32[8,8]{1,0} all-gather-done(%begun), metadata={op_name="jit(checked)/all-gather(x)"}
}
"""


def test_each_collective_counts_once():
    assert [(one.kind, one.name, one.bytes, one.arrays) for one in collectives(HLO)] == [
        ("all-gather", "begun", 384, 2),
        ("all-reduce", "all-reduce.1", 128, 1),
        ("all-reduce", "sum", 36, 2),
    ]
    assert collectives("ENTRY %main (x: f32[8]) -> f32[8] {\n") == []
