"""A program: calls of LiteLLM, whose arguments come as JSON on standard input; prints what came of each.

In a process of its own: on import it changes logging, and it warns on its own account.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the web for a list of prices

import litellm

litellm.suppress_debug_info = True  # which goes to standard output


def result(arguments: dict) -> dict:
    try:
        answer: Any = litellm.completion(**arguments)
        if arguments.get("stream"):
            return {"pieces": [chunk.choices[0].delta.content or "" for chunk in answer]}
        message = answer.choices[0].message
        thought = getattr(message, "reasoning_content", None)
        return {"content": message.content, "reasoning": thought, "tokens": answer.usage.completion_tokens}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error)}


json.dump([result(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
