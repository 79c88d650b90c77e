"""`jaxphoton convert SRC DST`: writes a model as a converted checkpoint."""

from __future__ import annotations

import argparse
import sys

from jaxphoton.cli.base import add_quantize_option


def add_parser(subparsers) -> None:
    """Adds the command to an argparse subparsers object."""
    parser = subparsers.add_parser(
        "convert",
        help="convert a checkpoint to a folder that loads faster",
        description="Reads a model (a file, a folder, or a Hugging Face id) and writes settings, tokenizer and weights "
        "to the folder DST, which must not exist or be empty. Its config.json holds checksums of the other files; a "
        "file that is damaged later is named when the folder is loaded.",
    )
    parser.add_argument("src", metavar="SRC", help="safetensors or .pt file, model folder, or Hugging Face id")
    parser.add_argument("dst", metavar="DST", help="folder to write")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="type of the weights")
    parser.add_argument(
        "--float8-experts", action="store_true", help="keep the experts of a float8 checkpoint as they are stored"
    )
    add_quantize_option(parser)
    parser.add_argument(
        "--merge-adapter",
        metavar="PATH",
        help="add an adapter (a folder of PEFT, or a file) to the weights, with what requests cannot choose: pairs of "
        "the vision encoder, say",
    )
    parser.add_argument("--revision", default=None, help="revision of a Hugging Face id")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts; 0 when written, 1 with a message on standard error otherwise."""
    from jaxphoton.config import ConfigError
    from jaxphoton.prompt.tokenizer import TokenizerError
    from jaxphoton.weights.checkpoint import WeightsError

    try:
        print(_convert(args))
    except (ConfigError, TokenizerError, WeightsError, OSError) as error:
        print(f"jaxphoton convert: {error}", file=sys.stderr)
        return 1
    return 0


def _convert(args: argparse.Namespace) -> str:
    import jax

    from jaxphoton.layers.spec import by_path
    from jaxphoton.models.registry import read_family, settings_file
    from jaxphoton.prompt.tokenizer import load_tokenizer
    from jaxphoton.weights import hub, load, orbax

    # What can fail without reading a weight comes first.
    orbax.require_vacant(args.dst)
    source = hub.resolve(args.src, args.revision, args.float8_experts)
    family = read_family(settings_file(source))
    tokenizer = hub.resolve_tokenizer(args.src, source, family)
    load_tokenizer(tokenizer, family.vocab_size)
    # On the host: a conversion needs no accelerator, and the model may not fit one.
    where, dtype = jax.devices("cpu")[0], args.dtype
    family, params = load.load_model(source, dtype, where, args.float8_experts, args.quantize, args.merge_adapter)
    folder = orbax.save(args.dst, params, family, tokenizer)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    plain = family.network.abstract(dtype, family.tensors.stored_form(by_path(params)))
    count = sum(leaf.size for leaf in jax.tree.leaves(plain))
    written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{folder}: {count:,} parameters as {dtype}, {held:,} bytes of weights, {written:,} bytes on disk"
