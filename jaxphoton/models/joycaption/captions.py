"""What JoyCaption writes when it is asked for a caption: its types, lengths and extra options, as sentences.

Which there are, and how each is asked for, is from JoyCaption's own description of its prompts (github.com/fpgaminer/
joycaption, Apache-2.0). The model knows the short requests in these words; longer ones and the extra options say the
same in words of ours. `--prompt` asks in any other words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from jaxphoton.messages import quoted
from jaxphoton.requests.skills import slug

DEFAULT = "descriptive"
NAME = "name"  # the extra option with the place for one
UNNAMED = "{NAME}"  # stands there if none is given, for whoever fills it in later
MOST_WORDS = 1000  # that can be asked for; the model was trained on 20 to 260


@dataclass(frozen=True, slots=True)
class CaptionType:
    """One type.

    Attributes:
      name: in words.
      plain: the request, whatever the length.
      counted: with a place {word_count}.
      sized: with a place {length}, for an adjective.
    """

    name: str
    plain: str
    counted: str
    sized: str


def _adjective(name: str, before: str, behind: str, words: str, more: str = "") -> CaptionType:
    """A type whose length is an adjective in the request.

    Args:
      words: what says how many, before the end of the request, or a sentence behind all of it.
      more: sentences behind the request.
    """
    rest = f" {more}" if more else ""
    counted = f"{before} {behind}.{rest} {words}" if words.endswith(".") else f"{before} {behind} {words}.{rest}"
    return CaptionType(name, f"{before} {behind}.{rest}", counted, f"{before} {{length}} {behind}.{rest}")


def _sentences(name: str, request: str, words: str, length: str) -> CaptionType:
    """A type whose length is a sentence of its own."""
    return CaptionType(name, request, f"{request} {words}", f"{request} {length}")


_STYLE = (
    "Name the main subject and the medium first. Describe people, objects and scenery in definite words and concrete "
    "details: color, shape, texture, and where things are. Quote text as it stands. Note watermarks, signatures and "
    "compression artifacts. Leave out mood and guesses, and never mention what is not there."
)
_DANBOORU = (
    "Generate only comma-separated Danbooru tags, lowercase with underscores, in this order: artist, copyright, "
    "character and meta tags with their prefixes, then general tags for counts, appearance, clothing, pose, "
    "expression, actions and background. No other text."
)
_E621 = (
    "Start with the artist, copyright, character, species, meta and lore tags, each with the name of its category and "
    "a colon before it, then all general tags."
)
_RULE34 = (
    "Start with the artist, copyright, character and meta tags, each with the name of its category and a colon before "
    "it, then all general tags."
)
_CRITIC = (
    "Analyze this image like an art critic would: its composition, style, symbolism, use of color and light, and the "
    "artistic movement it might belong to."
)
_TAGS = "comma-separated list of {} tags in alphabetical order for this image"
_LIKE_REAL = "stable diffusion prompt that is indistinguishable from a real stable diffusion prompt"

TYPES: Mapping[str, CaptionType] = MappingProxyType(
    {
        "descriptive": _adjective(
            "Descriptive", "Write a", "detailed description for this image", "in {word_count} words or less"
        ),
        "descriptive-casual": _adjective(
            "Descriptive (Casual)",
            "Write a",
            "descriptive caption for this image in a casual tone",
            "within {word_count} words",
        ),
        "straightforward": _adjective(
            "Straightforward",
            "Write a",
            "straightforward caption for this image",
            "within {word_count} words",
            _STYLE,
        ),
        "stable-diffusion": _adjective(
            "Stable Diffusion Prompt", "Output a", _LIKE_REAL, "{word_count} words or less."
        ),
        "midjourney": _adjective(
            "MidJourney", "Write a", "MidJourney prompt for this image", "within {word_count} words"
        ),
        "danbooru": _sentences("Danbooru tag list", _DANBOORU, "{word_count} words or less.", "{length} length."),
        "e621": _adjective(
            "e621 tag list", "Write a", _TAGS.format("e621"), "Keep it under {word_count} words.", _E621
        ),
        "rule34": _adjective(
            "Rule34 tag list", "Write a", _TAGS.format("rule34"), "Keep it under {word_count} words.", _RULE34
        ),
        "booru": _adjective(
            "Booru-like tag list", "Write a", "list of Booru-like tags for this image", "within {word_count} words"
        ),
        "art-critic": _sentences("Art Critic", _CRITIC, "Keep it within {word_count} words.", "Keep it {length}."),
        "product-listing": _adjective(
            "Product Listing",
            "Write a",
            "caption for this image as though it were a product listing",
            "Keep it under {word_count} words.",
        ),
        "social-media": _adjective(
            "Social Media Post",
            "Write a",
            "caption for this image as if it were for a social media post",
            "Limit the caption to {word_count} words.",
        ),
    }
)

# By the name that users give: what stands in the request, or None for none.
LENGTHS: Mapping[str, str | None] = MappingProxyType(
    {
        "any": None,
        "very-short": "very short",
        "short": "short",
        "normal": "medium-length",
        "medium-length": "medium-length",
        "long": "long",
        "very-long": "very long",
    }
)

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        NAME: "If there is a person or character in the image, refer to them as {name}.",
        "no-fixed-traits": "Do NOT mention what people or characters cannot change, such as ethnicity or gender, but "
        "do describe what they can, such as hair style.",
        "lighting": "Include information about lighting.",
        "camera-angle": "Include information about the camera angle.",
        "watermark": "Say whether there is a watermark or not.",
        "jpeg-artifacts": "Say whether there are JPEG artifacts or not.",
        "camera-details": "If it is a photo, include which camera was likely used, with aperture, shutter speed, ISO "
        "and the like.",
        "pg": "Do NOT include anything sexual; keep it PG.",
        "no-resolution": "Do NOT mention the resolution of the image.",
        "aesthetic-quality": "Include the subjective aesthetic quality of the image, from low to very high.",
        "composition": "Include the composition style of the image, such as leading lines, rule of thirds or symmetry.",
        "no-text": "Do NOT mention any text that is in the image.",
        "depth-of-field": "Specify the depth of field, and whether the background is in focus or blurred.",
        "light-sources": "If it applies, mention the likely sources of light, artificial or natural.",
        "no-ambiguity": "Do NOT use ambiguous words.",
        "rating": "Include whether the image is sfw, suggestive or nsfw.",
        "essentials": "Describe ONLY the most important elements of the image.",
        "no-artist": "If it is a work of art, do not include its artist or its title.",
        "orientation": "Include the orientation of the image (portrait, landscape or square), and its aspect ratio if "
        "that is obvious.",
        "vulgar": "Use vulgar language and profanity.",
        "no-euphemisms": "Do NOT use polite euphemisms; be blunt.",
        "ages": "Include the ages of people or characters where that applies.",
        "shot-size": "Mention the size of the shot: from extreme close-up, close-up and medium shot to cowboy shot, "
        "wide shot and extreme wide shot.",
        "no-mood": "Do not mention the mood or feeling of the image.",
        "vantage-height": "Specify the height of the vantage point, such as eye-level, low-angle, bird's-eye, drone or "
        "rooftop.",
        "mention-watermark": "If there is a watermark, you must mention it.",
        "no-meta": "A text-to-image model will read your response, so leave out phrases about the image itself, such "
        "as 'This image shows'.",
    }
)


def request(
    length: str | int = "normal", type: str | None = None, extra: Iterable[str] = (), name: str | None = None
) -> str:
    """What a user of the model would write to get a caption.

    Args:
      length: one of LENGTHS, or a number of words.
      type: one of TYPES, by its key or its name.
      extra: keys of EXTRAS, in the order in which they are said; one that comes again is said once.
      name: for a person in the picture, as it is; it brings the option NAME along, first.

    Raises:
      TypeError, ValueError: one of them is none; the message says what there is.
    """
    kind = _found("type", DEFAULT if type is None else type, _BY_NAME)
    options = [_found("extra", each, _OPTIONS) for each in ([extra] if isinstance(extra, str) else extra)]
    if name is not None:
        if not _text("name", name).strip():
            raise ValueError("name must not be empty")
        options = options if NAME in options else [NAME, *options]
    said = [EXTRAS[each].replace("{name}", UNNAMED if name is None else name) for each in dict.fromkeys(options)]
    return " ".join([_sized(TYPES[kind], length), *said])


def _sized(kind: CaptionType, length: str | int) -> str:
    """The request for a type in a length."""
    if isinstance(length, str) and length in LENGTHS:
        word = LENGTHS[length]
        return kind.plain if word is None else kind.sized.replace("{length}", word)
    if isinstance(length, str) and _WORDS.fullmatch(length):
        length = int(length)
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MOST_WORDS:
        there = f"{', '.join(LENGTHS)}, or a number of words up to {MOST_WORDS}"
        raise ValueError(f"length must be one of {there}, not {quoted(length)}")
    return kind.counted.replace("{word_count}", str(length))


def _found(what: str, given: Any, there: Mapping[str, str]) -> str:
    """The key of a type or an option."""
    key = slug(_text(what, given))
    if key not in there:
        raise ValueError(f"{what} must be one of {', '.join(dict.fromkeys(there.values()))}, not {quoted(given)}")
    return there[key]


def _text(what: str, given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{what} must be a text, not {type(given).__name__}")
    return given


_WORDS = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
# Keys by themselves, and by the names of types.
_BY_NAME = {**{key: key for key in TYPES}, **{slug(kind.name): key for key, kind in TYPES.items()}}
_OPTIONS = {key: key for key in EXTRAS}
