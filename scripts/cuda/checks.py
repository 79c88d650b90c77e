"""What the evidence must say. Every fault names its offenders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scripts.cuda.evidence import Evidence

MB = 10**6
DEEP = 24
SHARE = 1.05  # times what a device should have of the weights that a mesh shares out


@dataclass(frozen=True, slots=True)
class Limits:
    """What one kind of program is held to.

    Attributes:
      one_graph: at the top level there is one command buffer and nothing else.
      per_layer, around: kernels that always run: at most so many a text layer, and so many in embedding, head and
        sampling. None: any number.
      temporary: bytes.
      operations: at most so many times the needed ones, for any routing of tokens to experts.
      reads: bytes of weights that are read, over those of the weights once.
      share: bytes of the weights that are read, over those that they have in bfloat16; of DEEP layers, since of few the
        vocabulary is half.
      sums: all-reduces of a text layer, and of what is around them: not one more or less.
      gathers: all-gathers; other collectives there must not be.
      sent: bytes of the largest of them.
    """

    one_graph: bool = False
    per_layer: int | None = None
    around: int = 0
    temporary: int | None = None
    operations: float | None = None
    reads: float | None = None
    share: float | None = None
    sums: tuple[int, int] | None = None
    gathers: int = 0
    sent: int = 0


# By a program's name, else by its first word; little above what there is (`make cuda-check` prints it), so that one
# kernel more in every layer is too many. XLA computes products of one row by two or three kernels of its own, and jax
# 0.12 cuts the control of one row by three copies, and copies two arrays of the state (132 bytes) twice each.
LIMITS = {
    "step": Limits(one_graph=True, per_layer=10, around=30, temporary=8 * MB, reads=1.02),
    "step 1 rows": Limits(one_graph=True, per_layer=14, around=30, temporary=8 * MB, reads=1.02),
    "fused-step": Limits(one_graph=True, per_layer=5, around=30, temporary=8 * MB, reads=1.02),
    "fused-step 1 rows": Limits(one_graph=True, per_layer=5, around=32, temporary=8 * MB, reads=1.02),
    # With adapters: six kernels a layer more, and what XLA takes for more products of one row.
    "adapters-step": Limits(one_graph=True, per_layer=16, around=30, temporary=8 * MB, reads=1.02),
    "adapters-step 1 rows": Limits(one_graph=True, per_layer=19, around=30, temporary=8 * MB, reads=1.02),
    # Weights in few bits: their products are as many kernels as in bfloat16.
    "int8-step": Limits(one_graph=True, per_layer=10, around=30, temporary=8 * MB, reads=1.02, share=0.52),
    "int8-step 1 rows": Limits(one_graph=True, per_layer=14, around=30, temporary=8 * MB, reads=1.02, share=0.52),
    "int4-step": Limits(one_graph=True, per_layer=10, around=30, temporary=8 * MB, reads=1.02, share=0.28),
    "int4-step 1 rows": Limits(one_graph=True, per_layer=14, around=30, temporary=8 * MB, reads=1.02, share=0.28),
    # Nothing is fused with that kernel: x in its order and the sums of the pairs are kernels of their own.
    "int8-adapters-step": Limits(one_graph=True, per_layer=25, around=30, temporary=8 * MB, reads=1.02, share=0.52),
    "int8-adapters-step 1 rows": Limits(one_graph=True, temporary=8 * MB, reads=1.02, share=0.52),
    "int4-adapters-step": Limits(one_graph=True, per_layer=25, around=30, temporary=8 * MB, reads=1.02, share=0.28),
    "int4-adapters-step 1 rows": Limits(one_graph=True, temporary=8 * MB, reads=1.02, share=0.28),
    # A norm and an attention by kernels; the products by theirs, whose results XLA takes on.
    "fused-int8-step": Limits(one_graph=True, temporary=8 * MB, reads=1.02, share=0.52),
    "fused-int4-step": Limits(one_graph=True, temporary=8 * MB, reads=1.02, share=0.28),
    # Moondream 3's dense layers alone; four of these are in what follows, whose limits are of the others.
    "fused-tau-step": Limits(one_graph=True, per_layer=6, around=30, temporary=8 * MB, reads=1.02),
    "fused-tau-step 1 rows": Limits(one_graph=True, per_layer=6, around=33, temporary=8 * MB, reads=1.02),
    "fused-experts-step": Limits(one_graph=True, per_layer=11, around=10, temporary=8 * MB),
    "fused-experts-step 1 rows": Limits(one_graph=True, per_layer=13, around=8, temporary=8 * MB),
    "forward": Limits(one_graph=True, per_layer=10, around=18, temporary=16 * MB, reads=1.02),
    "experts-step": Limits(one_graph=True, per_layer=15, around=30, temporary=8 * MB),
    "int4-experts-step": Limits(one_graph=True, per_layer=15, around=30, temporary=8 * MB),
    "experts-adapters-step": Limits(one_graph=True, per_layer=18, around=30, temporary=8 * MB),
    "experts-step 1 rows": Limits(one_graph=True, per_layer=19, around=30, temporary=8 * MB),
    "sample": Limits(one_graph=True, temporary=16 * MB),
    "prefill": Limits(temporary=64 * MB),
    "prefix": Limits(temporary=64 * MB),
    "int8-prefill": Limits(temporary=64 * MB),
    "int4-prefill": Limits(temporary=64 * MB),
    "int4-prefix": Limits(temporary=64 * MB),
    "experts-prefill": Limits(temporary=100 * MB),
    "experts-prefix": Limits(temporary=240 * MB, operations=1.35),  # of one image 57 MB, of four 228
    "experts-adapters-prefix": Limits(temporary=76 * MB, operations=1.35),  # of one image, six layers
    "encode": Limits(temporary=400 * MB),
    # The Llama block: two norms and products more; of 128,256 ids 32 rows of logits are 16 MB. What is between the
    # products of an MLP is 28,672 numbers a position: of four images of 985 positions 226 MB.
    "joycaption-step": Limits(one_graph=True, per_layer=14, around=20, temporary=17 * MB, reads=1.02),
    "joycaption-step 1 rows": Limits(one_graph=True, per_layer=18, around=20, temporary=1 * MB, reads=1.02),
    "fused-joycaption-step": Limits(one_graph=True, per_layer=12, around=20, temporary=17 * MB, reads=1.02),
    "fused-joycaption-step 1 rows": Limits(one_graph=True, per_layer=14, around=20, temporary=1 * MB, reads=1.02),
    "joycaption-adapters-step": Limits(one_graph=True, per_layer=23, around=20, temporary=17 * MB, reads=1.02),
    "joycaption-adapters-step 1 rows": Limits(one_graph=True, per_layer=28, around=20, temporary=1 * MB, reads=1.02),
    "int4-joycaption-step": Limits(one_graph=True, temporary=17 * MB, reads=1.02, share=0.28),
    "joycaption-prefill": Limits(temporary=64 * MB),
    "joycaption-prefix": Limits(temporary=440 * MB),
    "joycaption-encode": Limits(temporary=224 * MB),
    "mesh-joycaption-step": Limits(
        one_graph=True, per_layer=17, around=24, temporary=17 * MB, reads=1.02, sums=(2, 1), gathers=1, sent=7 * MB
    ),
    "smolvlm-step": Limits(one_graph=True, per_layer=14, around=20, temporary=8 * MB, reads=1.02),
    "smolvlm-prefix": Limits(temporary=120 * MB),
    "smolvlm-encode": Limits(temporary=800 * MB),
    "xla-rows": Limits(),  # what there would be without kernels, for comparison
    "xla-groups": Limits(),
    # On a mesh: a sum for the embedding and for every layer, one more where attention scales what it computes from all
    # heads, and the logits from everywhere (with what one device has of them).
    "mesh-step": Limits(
        one_graph=True, per_layer=12, around=34, temporary=8 * MB, reads=1.02, sums=(1, 1), gathers=1, sent=4 * MB
    ),
    "mesh-experts-step": Limits(
        one_graph=True, per_layer=21, around=34, temporary=8 * MB, sums=(2, 1), gathers=1, sent=4 * MB
    ),
    "mesh-prefill": Limits(temporary=64 * MB, sums=(1, 1), gathers=1, sent=8 * MB),
    "mesh-experts-prefill": Limits(temporary=100 * MB, sums=(2, 1), gathers=1, sent=8 * MB),
    # A prefix leaves keys and values alone: of the last layer nobody sums the output.
    "mesh-prefix": Limits(temporary=64 * MB, sums=(1, 0), sent=8 * MB),
    "mesh-experts-prefix": Limits(temporary=240 * MB, sums=(2, 0), sent=8 * MB),
    # Every GPU has a whole encoder, and takes a share of the crops.
    "mesh-encode": Limits(temporary=400 * MB, sums=(0, 0), gathers=1, sent=20 * MB),
    # Kernels of kernels_pallas: less than a copy of what they read.
    "paged_attention": Limits(temporary=8 * MB),
    "step_attention": Limits(per_layer=0, around=2, temporary=8 * MB),
    "prefix_attention": Limits(temporary=1 * MB),
    "masked_sample": Limits(temporary=32 * MB),
    "moe_decode": Limits(temporary=4 * MB),
    "moe_route": Limits(per_layer=0, around=2, temporary=1 * MB),
    "moe_prefill": Limits(temporary=160 * MB),  # 1.5 numbers of the model's width for each choice of 2,920 tokens
    "residual_norm": Limits(per_layer=0, around=1, temporary=0),
    "input_product": Limits(per_layer=0, around=1, temporary=0),
    "output_product": Limits(per_layer=0, around=1, temporary=0),
    "tau_product": Limits(per_layer=0, around=1, temporary=0),
    "quant_matmul": Limits(per_layer=0, around=3, temporary=16 * MB),  # x in its order, and few parts: never a matrix
}


def faults(evidence: Evidence, limits: Limits | None = None) -> list[str]:
    """What is wrong with a program; empty if nothing is. `limits` are those of its kind unless given."""
    if evidence.error:
        return [f"does not compile: {evidence.error}"]
    name = evidence.program
    limits = limits or LIMITS.get(name) or LIMITS[name.split()[0].removesuffix(":")]
    found = []
    if limits.one_graph and (evidence.stray or evidence.top != {"kCommandBuffer": 1}):
        found.append(_list(f"not one command buffer but {_counts(evidence)}; outside of it", evidence.stray))
    if evidence.pool_copies:
        found.append(_list("values as large as a layer of the key/value pool", evidence.pool_copies))
    if evidence.weight_copies:
        found.append(_list("copies of weights", evidence.weight_copies))
    if evidence.aliased < evidence.pool:
        found.append(f"of {evidence.pool} bytes of keys and values only {evidence.aliased} are updated in place")
    if limits.per_layer is not None and evidence.kernels > (most := kernel_limit(evidence, limits)):
        found.append(_list(f"{evidence.kernels} kernels, at most {most} are allowed", evidence.busiest))
    if limits.reads is not None and evidence.weight_reads > limits.reads:
        found.append(_list(f"{evidence.weight_reads:.2f} times the bytes of the weights are read", evidence.read_again))
    if limits.share is not None and evidence.layers >= DEEP and evidence.weight_share > limits.share:
        found.append(f"weights of {evidence.weight_share:.3f} times their bytes in bfloat16, at most {limits.share}")
    if spilling := [f"{usage['kernel']}: {usage['spilled']} bytes" for usage in evidence.usage if usage["spilled"]]:
        found.append(_list("registers are spilled to memory", spilling))
    if limits.temporary is not None and evidence.temporary > limits.temporary:
        text = f"{evidence.temporary / 1e6:.1f} MB of temporaries, at most {limits.temporary / 1e6:.1f} are allowed"
        found.append(_list(text, evidence.largest))
    if limits.operations is not None and evidence.operations > limits.operations * evidence.needed:
        text = f"{evidence.operations / 1e9:.0f} Gop, at most {limits.operations:.2f} x {evidence.needed / 1e9:.0f}"
        found.append(f"{text} are allowed")
    return found + _on_mesh(evidence, limits)


def _on_mesh(evidence: Evidence, limits: Limits) -> list[str]:
    if limits.sums is None:
        return []
    a_layer, around = limits.sums
    wanted = {"all-gather": limits.gathers, "all-reduce": a_layer * evidence.layers + around}
    found = []
    if evidence.collectives != (wanted := {kind: count for kind, count in wanted.items() if count}):
        found.append(_list(f"collectives {dict(evidence.collectives)}, should be {wanted}", evidence.sent))
    if evidence.most_sent > limits.sent:
        found.append(_list(f"a collective of {evidence.most_sent / 1e6:.1f} MB", evidence.sent))
    if evidence.held > SHARE * evidence.split / evidence.devices:
        text = f"a device has {evidence.held} of {evidence.split} bytes of weights that {evidence.devices} share"
        found.append(text)
    return found


def kernel_limit(evidence: Evidence, limits: Limits) -> int:
    return limits.around + (limits.per_layer or 0) * evidence.layers


def kernels_per_layer(evidence: Evidence, others: Iterable[Evidence]) -> float | None:
    """Kernels that a text layer adds: the difference to the same program on the same chip with other layers."""
    for other in others:
        same = (other.program, other.chip) == (evidence.program, evidence.chip)
        if same and not other.error and other.layers != evidence.layers:
            return (evidence.kernels - other.kernels) / (evidence.layers - other.layers)
    return None


def _counts(evidence: Evidence) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in evidence.top.items()) or "no thunk"


def _list(text: str, offenders: Iterable[str]) -> str:
    return "\n      ".join([f"{text}:", *offenders])
