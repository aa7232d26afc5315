"""LiteLLM in three of its dialects. Run by python-clients.test.ts."""
import litellm
from cases import EMBEDDER, MODEL, QUESTION, SCRIPTED, STACK, WEATHER, WEATHER_QUESTION, case, run

tool = {"type": "function", "function": WEATHER}
hello = [{"role": "user", "content": QUESTION}]
openai = {"api_base": f"{STACK}/v1", "api_key": "none"}


def dialect(prefix, path):
    def chat():
        settings = {"model": f"{prefix}/{MODEL}", "api_key": "none", "max_tokens": 60}
        real = {**settings, "api_base": f"{STACK}{path}"}
        whole = litellm.completion(messages=hello, **real)
        assert whole.choices[0].message.content and whole.usage.total_tokens > 0, whole
        parts = list(litellm.completion(messages=hello, stream=True, **real))
        assert "".join(part.choices[0].delta.content or "" for part in parts), parts
        scripted = {**settings, "api_base": f"{SCRIPTED}{path}", "tools": [tool]}
        ask = [{"role": "user", "content": WEATHER_QUESTION}]
        message = litellm.completion(messages=ask, **scripted).choices[0].message
        (call,) = message.tool_calls
        assert call.function.name == "get_weather", message
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        answer = litellm.completion(messages=[*ask, message, result], **scripted)
        assert "21 degrees" in answer.choices[0].message.content, answer

    chat.__name__ = prefix
    case(chat)


for each in (("openai", "/v1"), ("anthropic", ""), ("ollama_chat", "")):
    dialect(*each)


@case
def responses_and_embeddings():
    assert litellm.responses(model=f"openai/{MODEL}", input=QUESTION, **openai).output
    assert len(litellm.embedding(f"openai/{EMBEDDER}", input=["a"], **openai).data) == 1


@case
def errors():
    for model, messages, kind in [
        ("nope", hello, litellm.NotFoundError),
        (MODEL, hello * 2000, litellm.ContextWindowExceededError),
    ]:
        for prefix, base in (("openai", f"{STACK}/v1"), ("anthropic", STACK)):
            try:
                litellm.completion(f"{prefix}/{model}", messages, api_base=base, api_key="none")
                raise AssertionError("no error")
            except kind:
                pass


if __name__ == "__main__":
    run()
