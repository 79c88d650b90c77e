"""`jaxphoton caption`: describes images."""

from __future__ import annotations

from pathlib import Path

from jaxphoton.cli.base import asked, number, plain
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options, text_of
from jaxphoton.requests.skills import SKILLS

EPILOG = f"""\
{BATCH_HELP}
texts:
  --prompt, --prefix, --suffix and the texts of --tasks may have variables: {{name}} (the file name without suffix),
  {{dir}} (its folder), {{caption}} (the caption that came with the image), and the name of any column of a list, table
  or tar. Braces around anything else stay; {{{{name}}}} is the text {{name}}.

examples:
  jaxphoton caption photos/ --out captions.jsonl
  jaxphoton caption a.jpg b.jpg --length short
  jaxphoton caption photos/ --out photos/ --prefix "a photo of sks dog, "
  jaxphoton caption "shards-{{000..099}}.tar" --out "captioned-%05d.tar" --shard 0/8
  jaxphoton caption photos/ --out found.parquet --tasks "caption:short,detect:person"
  jaxphoton caption photos/ --model vikhyatk/moondream2 --temperature 0.5 --seed 1 --captions-per-image 3
"""


def add_parser(subparsers) -> None:
    skill = SKILLS["caption"]
    (length,) = skill.arguments
    parser = subparsers.add_parser(
        "caption",
        help=skill.help,
        description=skill.description,
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to ask")
    group.add_argument("--length", choices=length.choices, default=length.default, help=length.help)
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
    add_batch_options(parser)


def run(args) -> int:
    from jaxphoton.batch.questions import Question, parse_questions
    from jaxphoton.cli.batch import parsed, run_batch

    prompt = text_of(args.prompt, args.prompt_file)
    caption = Question("caption", text=prompt or "", length=args.length)
    asked = parse_questions(args.tasks, {"caption": caption}) if args.tasks is not None else caption
    return run_batch(parsed(args), asked)
