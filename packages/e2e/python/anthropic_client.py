"""The anthropic package; every answer is held against its own models, strictly. Run by python-clients.test.ts."""
from typing import Literal

import anthropic
from cases import LOADING, MODEL, PARAMETERS, QUESTION, SCRIPTED, STACK, WEATHER_QUESTION, case, run
from pydantic import BaseModel

client = anthropic.Anthropic(
    base_url=STACK, api_key="none", max_retries=0, _strict_response_validation=True
)
thinker = client.with_options(base_url=SCRIPTED)
hello = [{"role": "user", "content": QUESTION}]
tool = {"name": "get_weather", "description": "Get the weather of a city", "input_schema": PARAMETERS}


class City(BaseModel):
    city: Literal["Paris", "Rome"]
    big: bool


@case
def models():
    listed = list(client.models.list(limit=1))
    assert MODEL in [model.id for model in listed], listed
    assert client.models.retrieve(MODEL).id == MODEL


@case
def message_whole_and_raw():
    raw = client.messages.with_raw_response.create(model=MODEL, max_tokens=60, messages=hello)
    assert raw.headers["request-id"] == raw.request_id, raw.headers
    message = raw.parse()
    assert message.content[0].type == "text" and message.stop_reason == "end_turn", message
    counted = client.messages.count_tokens(model=MODEL, messages=hello)
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)
    stopped = client.messages.create(
        model=MODEL, max_tokens=60, messages=hello, system="Be brief.", stop_sequences=["a", "e"]
    )
    assert (stopped.stop_reason, stopped.stop_sequence in ("a", "e")) == ("stop_sequence", True), stopped


@case
def message_streamed():
    with client.messages.stream(model=MODEL, max_tokens=60, messages=hello) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text and final.stop_reason == "end_turn"
    assert final.usage.output_tokens > 0 and final.usage.input_tokens > 0
    for event in client.messages.create(model=MODEL, max_tokens=60, messages=hello, stream=True):
        assert event.type


@case
def parse():
    parsed = client.messages.parse(model=MODEL, max_tokens=100, messages=hello, output_format=City)
    assert isinstance(parsed.parsed_output, City), parsed
    with client.messages.stream(
        model=MODEL, max_tokens=100, messages=hello, output_format=City
    ) as stream:
        assert isinstance(stream.get_final_message().parsed_output, City)


@case
def tools():
    for each in (client, thinker):
        settings = {"model": MODEL, "max_tokens": 200, "tools": [tool]}
        ask = [{"role": "user", "content": WEATHER_QUESTION}]
        choice = {"type": "any", "disable_parallel_tool_use": True}
        with each.messages.stream(messages=ask, tool_choice=choice, **settings) as stream:
            first = stream.get_final_message()
        assert first.stop_reason == "tool_use", first
        call = next(block for block in first.content if block.type == "tool_use")
        assert call.name == "get_weather" and isinstance(call.input["location"], str)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 degrees"}
        turns = [*ask, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        answer = each.messages.create(messages=turns, **settings)
        assert answer.content, answer


@case
def tool_runner():
    asked = []

    @anthropic.beta_tool
    def get_weather(location: str) -> str:
        """Get the weather of a city.

        Args:
            location: the city
        """
        asked.append(location)
        return "sunny"

    for each in (client, thinker):
        runner = each.beta.messages.tool_runner(
            model=MODEL, max_tokens=200, tools=[get_weather], max_iterations=3,
            messages=[{"role": "user", "content": WEATHER_QUESTION}],
        )
        assert runner.until_done().content
    assert asked == ["Paris", "Paris"], asked


@case
def thinking():
    settings = {"model": MODEL, "max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    with thinker.messages.stream(messages=hello, **settings) as stream:
        kinds = [event.type for event in stream]
        first = stream.get_final_message()
    assert "thinking" in kinds and "signature" in kinds, kinds
    assert first.content[0].type == "thinking" and first.content[0].signature, first
    turns = [*hello, {"role": "assistant", "content": first.content}, {"role": "user", "content": "And?"}]
    assert thinker.messages.create(messages=turns, **settings).content
    adaptive = {**settings, "thinking": {"type": "adaptive"}}
    assert thinker.messages.create(messages=hello, **adaptive).content[0].type == "thinking"


@case
def abort():
    ask = [{"role": "user", "content": "Tell me a long story."}]
    with client.messages.stream(model=MODEL, max_tokens=1500, messages=ask) as stream:
        next(iter(stream))
    assert client.messages.create(model=MODEL, max_tokens=1, messages=hello).stop_reason == "max_tokens"


@case
def retries():
    slow = client.with_options(base_url=LOADING, max_retries=5)
    ask = {"model": "slow-anthropic", "max_tokens": 8, "messages": hello}
    raw = slow.messages.with_raw_response.create(**ask)
    assert raw.retries_taken >= 1 and raw.parse().content, raw.retries_taken
    try:
        slow.with_options(api_key="spent").messages.create(**ask)
        raise AssertionError("no error")
    except anthropic.RateLimitError as error:
        assert error.body["error"]["type"] == "rate_limit_error", error.body
        assert error.response.headers["x-should-retry"] == "false"


@case
def errors():
    ask = {"model": MODEL, "max_tokens": 10, "messages": hello}
    for wrong, kind, named in [
        ({"model": "nope"}, anthropic.NotFoundError, "not_found_error"),
        ({"messages": []}, anthropic.BadRequestError, "invalid_request_error"),
        ({"messages": hello * 2000}, anthropic.BadRequestError, "invalid_request_error"),
    ]:
        try:
            client.messages.create(**{**ask, **wrong})
            raise AssertionError("no error")
        except kind as error:
            assert error.request_id and error.body["error"]["type"] == named, error.body


if __name__ == "__main__":
    run()
