"""`jaxphoton query`, `jaxphoton detect` and so on: a command for each skill, made from its entry in `requests.skills`.

`jaxphoton caption` can do more: see `cli.caption`.
"""

from __future__ import annotations

import argparse

from jaxphoton.cli.base import asked
from jaxphoton.cli.batch_options import BATCH_HELP, add_batch_options
from jaxphoton.requests.skill import Argument, Skill

# What the help says of a skill's results, and besides.
RESULTS = {
    "detect": '  "objects" is a list of {x_min, y_min, x_max, y_max}, as fractions of the width and height.\n',
    "point": '  "points" is a list of {x, y}, as fractions of the width and height.\n',
    "segment": """\
  "bbox" is {x_min, y_min, x_max, y_max} as fractions of the width and height, "path" an SVG path in it, as
  fractions of the box. "parse_error" says why there is no box or no whole path.
""",
}
NOTES = {"segment": "Moondream 3 can do this; Moondream 2 and the small model inside the package cannot.\n\n"}
EXAMPLES = {
    "query": """\
  jaxphoton query cat.jpg --question "What colour is the cat?"
  jaxphoton query photos/ --question "Is there a watermark? Answer yes or no." --max-tokens 3 --out marks.jsonl
  jaxphoton query questions.jsonl --question "{question}" --out answers.jsonl
""",
    "detect": """\
  jaxphoton detect street.png --object car
  jaxphoton detect photos/ --object "red ball" --max-objects 5 --out balls.json
  jaxphoton detect photos/ --object car --out labels/ --form yolo
""",
    "point": """\
  jaxphoton point street.png --object wheel
  jaxphoton point photos/ --object face --out faces.jsonl
""",
    "segment": """\
  jaxphoton segment street.png --object car --model moondream/moondream3-preview
  jaxphoton segment photos/ --object "the dog on the left" --model moondream/moondream3-preview --out dogs.jsonl
""",
}


class SkillCommand:
    """The command of one skill."""

    def __init__(self, skill: Skill):
        self._skill = skill

    def add_parser(self, subparsers) -> None:
        skill = self._skill
        parser = subparsers.add_parser(
            skill.name, help=skill.help, description=skill.description, epilog=_epilog(skill)
        )
        group = parser.add_argument_group("what to ask")
        for argument in skill.arguments:
            _add(group, argument)
        add_batch_options(parser, objects=skill.tokens_per_object > 0, writes=skill.writes)

    def run(self, args: argparse.Namespace) -> int:
        from jaxphoton.batch.questions import Question
        from jaxphoton.cli.batch import parsed, run_batch

        text = getattr(args, self._skill.asked) if self._skill.asked else ""
        question = Question(self._skill.name, text, reasoning=getattr(args, "reasoning", None))
        return run_batch(parsed(args), question)


def _add(group: argparse._ArgumentGroup, argument: Argument) -> None:
    option = f"--{argument.name.replace('_', '-')}"
    if argument.kind == "text":
        group.add_argument(option, type=asked, required=True, metavar="TEXT", help=argument.help)
    elif argument.kind == "flag":
        group.add_argument(option, action=argparse.BooleanOptionalAction, help=argument.help)


def _epilog(skill: Skill) -> str:
    variables = f"""\
  The {skill.asked} may have variables: {{name}}, {{dir}}, {{caption}}, and the name of any column of a list, table \
or tar.
  Braces around anything else stay; {{{{name}}}} is the text {{name}}.
"""
    example = f"  jaxphoton {skill.name} photos/ --out {skill.name}.jsonl\n"
    return "".join(
        (
            f"{BATCH_HELP}\n",
            RESULTS.get(skill.name, ""),
            variables if skill.asked else "",
            f"\n{NOTES.get(skill.name, '')}examples:\n",
            EXAMPLES.get(skill.name, example),
        )
    )
