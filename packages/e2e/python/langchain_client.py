"""LangChain: its OpenAI client in both dialects, and its Anthropic one. Run by python-clients.test.ts."""
from typing import Literal

from cases import EMBEDDER, MODEL, QUESTION, SCRIPTED, STACK, WEATHER, WEATHER_QUESTION, case, run
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

tool = {"type": "function", "function": WEATHER}


class Person(BaseModel):
    """A person"""

    name: Literal["Ada", "Alan"]
    age: int = Field(ge=0, le=120)


def models(url):
    settings = {"model": MODEL, "api_key": "none", "temperature": 0, "max_tokens": 150, "max_retries": 0}
    yield ChatOpenAI(base_url=f"{url}/v1", **settings)
    yield ChatOpenAI(base_url=f"{url}/v1", use_responses_api=True, **settings)
    yield ChatAnthropic(base_url=url, **settings)


@case
def chat():
    for model in models(STACK):
        whole = model.invoke(QUESTION)
        assert whole.text and whole.usage_metadata["output_tokens"] > 0, whole
        pieces = list(model.stream(QUESTION))
        assert len(pieces) > 1 and sum(pieces[1:], pieces[0]).text


@case
def tools():
    for url in (STACK, SCRIPTED):
        for model in models(url):
            bound = model.bind_tools([tool], tool_choice="get_weather")
            ask = HumanMessage(WEATHER_QUESTION)
            pieces = list(bound.stream([ask]))
            first = sum(pieces[1:], pieces[0])
            (call,) = first.tool_calls
            assert call["name"] == "get_weather" and "location" in call["args"], first
            result = ToolMessage(tool_call_id=call["id"], content="sunny")
            assert model.bind_tools([tool]).invoke([ask, first, result]).text


@case
def structured():
    for model in models(STACK):
        for method in ("json_schema", "function_calling"):
            person = model.with_structured_output(Person, method=method).invoke("Name a person and an age.")
            assert isinstance(person, Person), person


@case
def embeddings():
    # unless told not to, it cuts the text into tokens of a vocabulary of OpenAI's, and sends those
    settings = {"api_key": "none", "base_url": f"{STACK}/v1", "check_embedding_ctx_length": False}
    vectors = OpenAIEmbeddings(model=EMBEDDER, **settings).embed_documents(["the cat sat", "a dog ran"])
    assert len(vectors) == 2 and abs(sum(value * value for value in vectors[0]) - 1) < 1e-3


if __name__ == "__main__":
    run()
