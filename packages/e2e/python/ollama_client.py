"""The ollama package: what it reads goes through its own models. Run by python-clients.test.ts."""
from typing import Literal

import ollama
from cases import EMBEDDER, MODEL, QUESTION, SCRIPTED, STACK, WEATHER, WEATHER_QUESTION, case, run
from pydantic import BaseModel

client = ollama.Client(host=STACK)
thinker = ollama.Client(host=SCRIPTED)
hello = [{"role": "user", "content": QUESTION}]
exact = {"temperature": 0, "num_predict": 60}


class City(BaseModel):
    city: Literal["Paris", "Rome"]


@case
def models():
    assert f"{MODEL}:latest" in [each.model for each in client.list().models]
    assert "completion" in client.show(MODEL).capabilities
    assert f"{MODEL}:latest" in [each.model for each in client.ps().models]


@case
def chat():
    whole = client.chat(MODEL, hello, options=exact)
    assert "Paris" in whole.message.content and whole.done_reason == "stop"
    parts = list(client.chat(MODEL, hello, options=exact, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert parts[-1].done and parts[-1].eval_count == whole.eval_count > 0


@case
def tools_and_thinking():
    tool = {"type": "function", "function": WEATHER}
    ask = [{"role": "user", "content": WEATHER_QUESTION}]
    for each, think in ((client, None), (thinker, True)):
        first = each.chat(MODEL, ask, tools=[tool], think=think, options=exact)
        (call,) = first.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("get_weather", {"location": "Paris"})
        result = {"role": "tool", "tool_name": "get_weather", "content": "sunny"}
        answer = each.chat(MODEL, [*ask, first.message, result], tools=[tool], think=think, options=exact)
        assert answer.message.content, answer
        assert think is None or "step 1" in answer.message.thinking


@case
def structured():
    answer = client.chat(MODEL, hello, format=City.model_json_schema(), options=exact)
    City.model_validate_json(answer.message.content)
    assert client.generate(MODEL, QUESTION, format="json", options=exact).response


@case
def generate_and_embed():
    parts = list(client.generate(MODEL, QUESTION, options=exact, stream=True))
    assert "Paris" in "".join(part.response for part in parts) and parts[-1].done
    embedded = client.embed(EMBEDDER, ["the cat sat", "a dog ran"])
    assert len(embedded.embeddings) == 2 and embedded.prompt_eval_count > 0


@case
def abort_and_errors():
    story = [{"role": "user", "content": "Tell me a long story."}]
    stream = client.chat(MODEL, story, stream=True, options={"num_predict": 1500})
    next(stream)
    stream.close()
    for call, status in [
        (lambda: client.chat("nobody", hello), 404),
        (lambda: list(client.chat("nobody", hello, stream=True)), 404),
        (lambda: client.chat(MODEL, [{"role": "nobody"}]), 400),
    ]:
        try:
            call()
            raise AssertionError("no error")
        except ollama.ResponseError as error:
            assert error.status_code == status and error.error, error


if __name__ == "__main__":
    run()
