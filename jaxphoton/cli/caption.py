"""`jaxphoton caption`: describes images."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from pathlib import Path

from jaxphoton.cli.base import CommandError, asked, number, plain
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options, text_of
from jaxphoton.messages import quoted, short
from jaxphoton.models.joycaption.captions import EXTRAS, TYPES
from jaxphoton.requests.skills import LENGTHS, MORE_LENGTHS, SKILLS, is_length


def _wrapped(option: str, names: Iterable[str]) -> str:
    text = f"{option}: {', '.join(names)}"
    return textwrap.fill(text, 118, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


EPILOG = f"""\
{BATCH_HELP}
texts:
  --prompt, --prefix, --suffix and the texts of --tasks may have variables: {{name}} (the file name without suffix),
  {{dir}} (its folder), {{caption}} (the caption that came with the image), and the name of any column of a list, table
  or tar. Braces around anything else stay; {{{{name}}}} is the text {{name}}.

caption types and extra options (of JoyCaption; other models refuse them):
{_wrapped("--caption-type", TYPES)}
{_wrapped("--extra", EXTRAS)}
  --list-caption-types shows the sentences. --prompt asks in other words, and takes the place of all of this.

examples:
  jaxphoton caption photos/ --out captions.jsonl
  jaxphoton caption a.jpg b.jpg --length short
  jaxphoton caption photos/ --out photos/ --prefix "a photo of sks dog, "
  jaxphoton caption "shards-{{000..099}}.tar" --out "captioned-%05d.tar" --shard 0/8
  jaxphoton caption photos/ --out found.parquet --tasks "caption:short,detect:person"
  jaxphoton caption photos/ --model JOYCAPTION --caption-type stable-diffusion --extra no-meta,no-artist --out photos/
  jaxphoton caption photos/ --model vikhyatk/moondream2 --temperature 0.5 --seed 1 --captions-per-image 3
"""


class _Listing(argparse.Action):
    """Shows types and options, and ends."""

    def __call__(self, parser, namespace, values, option_string=None):
        for key, kind in TYPES.items():
            print(f"{key} ({kind.name})\n  {kind.plain}\n  {kind.counted}\n  {kind.sized}")
        print()
        for key, sentence in EXTRAS.items():
            print(f"{key}: {sentence}")
        parser.exit()


def length(text: str) -> str:
    """An argparse type: a length that some model has; which, the model says."""
    if not is_length(text):
        there = ", ".join((*LENGTHS, *MORE_LENGTHS))
        raise argparse.ArgumentTypeError(f"{quoted(text)} is none of {there}, and no number of words")
    return text


def options(text: str) -> list[str]:
    """An argparse type: names with commas between."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{short(text)} is not a list of options such as no-text,lighting")
    return names


def add_parser(subparsers) -> None:
    skill = SKILLS["caption"]
    parser = subparsers.add_parser(
        "caption",
        help=skill.help,
        description=skill.description,
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to ask")
    group.add_argument(
        "--length",
        "--caption-length",
        type=length,
        default="normal",
        metavar="LENGTH",
        help=f"how much to say: {', '.join(LENGTHS)}; of JoyCaption also {', '.join(MORE_LENGTHS)}, or a number of "
        "words (default: normal)",
    )
    group.add_argument("--caption-type", type=asked, metavar="TYPE", help="of JoyCaption, see below: what to write")
    group.add_argument(
        "--extra",
        action="append",
        default=[],
        type=options,
        metavar="OPTION,OPTION",
        help="of JoyCaption, see below: what else to say or to leave out; may be repeated",
    )
    group.add_argument(
        "--name", type=asked, metavar="TEXT", help="of JoyCaption: what to call a person in the image, as it stands"
    )
    group.add_argument(
        "--list-caption-types", action=_Listing, nargs=0, help="show types and options with their sentences, and exit"
    )
    prompt = group.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", type=asked, metavar="TEXT", help="ask for the caption in these words")
    prompt.add_argument("--prompt-file", type=Path, metavar="FILE", help="the same, from a file")
    group.add_argument("--prefix", type=plain, default="", metavar="TEXT", help="put before every caption")
    group.add_argument("--suffix", type=plain, default="", metavar="TEXT", help="put behind every caption")
    group.add_argument(
        "--captions-per-image", type=number(int, 1), default=1, metavar="N", help="needs a --temperature (default: 1)"
    )
    group.add_argument(
        "--tasks",
        type=asked,
        metavar="LIST",
        help='ask several things of one encoding: "caption,query:Is it day?,detect:car"',
    )
    add_batch_options(parser, writes=True)


def run(args) -> int:
    from jaxphoton.batch.questions import Question, parse_questions
    from jaxphoton.cli.batch import parsed, run_batch

    prompt = text_of(args.prompt, args.prompt_file)
    extra = tuple(option for several in args.extra for option in several)
    if prompt and (args.caption_type or extra or args.name):
        raise CommandError("--prompt takes the place of --caption-type, --extra and --name")
    how = {"length": args.length, "type": args.caption_type, "extra": extra, "name": args.name}
    caption = Question("caption", text=prompt or "", **how)
    asked = parse_questions(args.tasks, {"caption": caption}) if args.tasks is not None else caption
    return run_batch(parsed(args), asked)
