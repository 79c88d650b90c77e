"""Libraries that wrap OpenAI's client, against a real server: LangChain and LiteLLM."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("langchain_openai", reason="extra `clients` is not installed: LangChain is NOT tested")

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr

from jaxphoton.requests.answer import Result
from jaxphoton.requests.errors import EngineError, QueueFull
from tests.server.serving import EXAMPLES, QUESTION

MESSAGE = {"role": "assistant", "content": "A cat."}
HELLO = [{"role": "user", "content": "Hello"}]
CALLS = Path(__file__).with_name("litellm_calls.py")


class Found(BaseModel):
    colour: Literal["red", "yellow"]
    count: Literal[1, 2]


@pytest.fixture(scope="module")
def wanted(shapes) -> str:
    return shapes.query(EXAMPLES / "scene_01.png", QUESTION, settings={"temperature": 0.0})["answer"]


@pytest.fixture
def chat(address):
    return chat_at(f"{address}/v1", "shapes")


def chat_at(address: str, model: str = "fake") -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=address, api_key=SecretStr("any"), temperature=0, max_retries=0)


def lite(*calls: dict[str, Any]) -> list[dict[str, Any]]:
    """What comes of calls of LiteLLM."""
    if find_spec("litellm") is None:
        pytest.skip("extra `clients` is not installed: LiteLLM is NOT tested")
    command = [sys.executable, "-W", "ignore", str(CALLS)]
    done = subprocess.run(command, input=json.dumps(calls), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_langchain_asks_and_streams(chat, about, wanted):
    answer = chat.invoke(about)
    assert answer.content == wanted and answer.response_metadata["finish_reason"] == "stop"
    assert "".join(chunk.content for chunk in chat.stream(about)) == wanted
    assert asyncio.run(chat.ainvoke(about)).content == wanted


def test_langchain_counts_the_tokens_of_a_stream(chat, about):
    count = chat.invoke(about).usage_metadata
    *_, last = [chunk.usage_metadata for chunk in chat.stream(about, stream_usage=True) if chunk.usage_metadata]
    assert {name: last[name] for name in ("input_tokens", "output_tokens")} == {
        name: count[name] for name in ("input_tokens", "output_tokens")
    }


def test_langchain_reads_an_answer_of_a_form(chat, about):
    assert isinstance(chat.with_structured_output(Found).invoke(about), Found)


def test_langchain_is_told_what_is_wrong(chat, answering):
    with pytest.raises(openai.BadRequestError, match="calls no functions"):
        chat.bind_tools([Found]).invoke("Hello")
    with pytest.raises(openai.BadRequestError, match="empty|neither"):
        chat.invoke(" ")
    address, _ = answering(QueueFull(""))
    with pytest.raises(openai.RateLimitError):
        chat_at(address).invoke("Hello")
    address, _ = answering({"chunk": "A "}, EngineError("the device is gone"))
    with pytest.raises(openai.APIError, match="the device is gone"):
        list(chat_at(address).stream("Hello"))


def test_litellm(address, answering, about, wanted):
    """Which sends a parameter that there is not, and tries again by itself."""
    there: dict[str, Any] = {"model": "openai/shapes", "api_base": f"{address}/v1", "api_key": "any", "messages": about}
    thinking, _ = answering(Result(message={**MESSAGE, "reasoning": "Whiskers."}))
    full, backend = answering(QueueFull(""))
    broken, _ = answering({"chunk": "A "}, EngineError("the device is gone"))
    fake: dict[str, Any] = {"model": "openai/fake", "api_key": "any", "messages": HELLO}
    whole, stream, wrong, unknown, thought, busy, gone = lite(
        {**there, "temperature": 0, "top_k": 3},
        {**there, "temperature": 0, "stream": True},
        {**there, "max_tokens": 0},
        {**there, "model": "openai/other"},
        {**fake, "api_base": thinking},
        {**fake, "api_base": full},
        {**fake, "api_base": broken, "stream": True},
    )
    assert whole["content"] == wanted and whole["tokens"] > 0
    assert "".join(stream["pieces"]) == wanted
    assert wrong["error"] == "BadRequestError" and "1 or more" in wrong["message"]
    assert unknown["error"] == "NotFoundError"
    assert thought["content"] == MESSAGE["content"] and thought["reasoning"] == "Whiskers."
    assert busy["error"] == "RateLimitError" and len(backend.asked) == 3
    assert "the device is gone" in gone["message"]
