"""The openai package; every answer is held against its own models, strictly. Run by python-clients.test.ts."""
import math
from typing import Literal

import openai
from cases import EMBEDDER, LOADING, MODEL, QUESTION, SCRIPTED, STACK, WEATHER, WEATHER_QUESTION, case, run
from pydantic import BaseModel

settings = {"base_url": f"{STACK}/v1", "api_key": "none", "max_retries": 0}
client = openai.OpenAI(**settings, _strict_response_validation=True)
# its own models know neither null as a chunk's finish_reason nor base64 vectors, both of which the vendor sends
lenient = openai.OpenAI(**settings)
thinker = client.with_options(base_url=f"{SCRIPTED}/v1")
hello = [{"role": "user", "content": QUESTION}]
tool = {"type": "function", "function": WEATHER}
response_tool = {"type": "function", "strict": False, **WEATHER}


class City(BaseModel):
    city: Literal["Paris", "Rome"]
    big: bool


@case
def models():
    listed = client.models.list().data
    assert MODEL in [model.id for model in listed], listed
    assert client.models.retrieve(MODEL).id == MODEL


@case
def chat_whole_and_raw():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=hello, temperature=0)
    assert raw.headers["x-request-id"] == raw.request_id, raw.headers
    whole = raw.parse()
    assert "Paris" in whole.choices[0].message.content
    assert whole.usage.total_tokens > 0
    many = client.chat.completions.create(
        model=MODEL, messages=hello, n=2, seed=1, logprobs=True, top_logprobs=2, max_completion_tokens=4
    )
    assert len(many.choices) == 2 and many.choices[0].finish_reason == "length"
    assert len(many.choices[0].logprobs.content[0].top_logprobs) == 2


@case
def chat_streamed():
    with client.chat.completions.stream(
        model=MODEL, messages=hello, temperature=0, stream_options={"include_usage": True}
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert "Paris" in text and final.choices[0].message.content == text
    assert final.usage.completion_tokens > 0


@case
def chat_parse():
    parsed = client.chat.completions.parse(model=MODEL, messages=hello, response_format=City, temperature=0)
    assert isinstance(parsed.choices[0].message.parsed, City), parsed


@case
def chat_tools():
    for each in (client, thinker):
        ask = [{"role": "user", "content": WEATHER_QUESTION}]
        settings = {"model": MODEL, "tools": [tool], "temperature": 0, "max_tokens": 150}
        with each.chat.completions.stream(messages=ask, **settings) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
        (call,) = message.tool_calls
        assert call.function.name == "get_weather" and "Paris" in call.function.arguments
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
        answer = each.chat.completions.create(messages=[*ask, message.to_dict(), result], **settings)
        assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content


@case
def completions_and_embeddings():
    chunks = list(lenient.completions.create(model=MODEL, prompt="The", max_tokens=4, stream=True))
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [None, "length"], chunks
    done = client.completions.create(model=MODEL, prompt=["The", "A"], max_tokens=4, logprobs=1)
    assert len(done.choices) == 2
    packed = lenient.embeddings.create(model=EMBEDDER, input=["the cat sat", "a dog ran"])
    plain = client.embeddings.create(model=EMBEDDER, input="the cat sat", encoding_format="float")
    assert math.dist(packed.data[0].embedding, plain.data[0].embedding) < 1e-5
    assert packed.usage.prompt_tokens > 0


@case
def responses_chained():
    first = client.responses.create(model=MODEL, input=QUESTION, temperature=0, instructions="Be brief.")
    assert "Paris" in first.output_text and first.usage.input_tokens_details.cached_tokens >= 0
    with client.responses.stream(
        model=MODEL, input="And of Italy?", previous_response_id=first.id, max_output_tokens=40
    ) as stream:
        numbers = [event.sequence_number for event in stream]
        second = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    assert second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    assert len(list(client.responses.input_items.list(second.id))) > 0
    assert client.responses.input_tokens.count(model=MODEL, input=QUESTION).input_tokens > 0
    client.responses.delete(first.id)


@case
def responses_parse():
    parsed = client.responses.parse(model=MODEL, input=QUESTION, text_format=City, temperature=0)
    assert isinstance(parsed.output_parsed, City), parsed
    with client.responses.stream(model=MODEL, input=QUESTION, text_format=City, temperature=0) as stream:
        assert isinstance(stream.get_final_response().output_parsed, City)


@case
def responses_tools():
    for each in (client, thinker):
        settings = {"model": MODEL, "tools": [response_tool], "temperature": 0, "max_output_tokens": 150}
        with each.responses.stream(input=WEATHER_QUESTION, **settings) as stream:
            for _ in stream:
                pass
            first = stream.get_final_response()
        call = next(item for item in first.output if item.type == "function_call")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        second = each.responses.create(input=[result], previous_response_id=first.id, **settings)
        assert second.output_text, second
        history = [{"role": "user", "content": WEATHER_QUESTION}, *first.output, result]
        again = each.responses.create(input=history, store=False, **settings)
        # the same prompt, whichever way the history came
        assert again.output_text and again.usage.input_tokens == second.usage.input_tokens


@case
def thinking():
    answer = thinker.chat.completions.create(model=MODEL, messages=hello)
    assert "step" in answer.choices[0].message.reasoning_content
    seen = thinker.responses.create(
        model=MODEL, input=QUESTION, reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"], store=False,
    )
    reasoning = next(item for item in seen.output if item.type == "reasoning")
    assert reasoning.encrypted_content
    thinker.responses.create(model=MODEL, input=[*seen.output, {"role": "user", "content": "On."}])


@case
def abort():
    ask = [{"role": "user", "content": "Tell me a long story."}]
    stream = client.chat.completions.create(model=MODEL, messages=ask, stream=True, max_tokens=1500)
    next(iter(stream))
    stream.close()
    with client.responses.create(model=MODEL, input="Tell me a story.", stream=True) as events:
        next(iter(events))
    assert client.chat.completions.create(model=MODEL, messages=hello, max_tokens=1).choices


@case
def retries():
    slow = client.with_options(base_url=f"{LOADING}/v1", max_retries=5)
    raw = slow.chat.completions.with_raw_response.create(model="slow-openai", messages=hello, max_tokens=8)
    assert raw.retries_taken >= 1 and raw.parse().choices, raw.retries_taken
    try:
        slow.with_options(api_key="spent").chat.completions.create(model="slow-openai", messages=hello)
        raise AssertionError("no error")
    except openai.RateLimitError as error:
        # nothing that a retry would change
        assert error.code == "insufficient_quota" and error.response.headers["x-should-retry"] == "false"


@case
def errors():
    for call, kind, code in [
        (lambda: client.chat.completions.create(model="nope", messages=hello), openai.NotFoundError, "model_not_found"),
        (lambda: client.chat.completions.create(model=MODEL, messages=[]), openai.BadRequestError, None),
        (lambda: client.responses.create(model=MODEL, input="x", previous_response_id="resp_no"),
         openai.BadRequestError, "previous_response_not_found"),
        (lambda: client.embeddings.create(model=MODEL, input=[]), openai.BadRequestError, None),
    ]:
        try:
            call()
            raise AssertionError("no error")
        except kind as error:
            assert error.request_id and error.type == "invalid_request_error", error
            assert code is None or error.code == code, error


if __name__ == "__main__":
    run()
