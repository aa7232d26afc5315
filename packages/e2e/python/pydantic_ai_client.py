"""Pydantic AI in three dialects. Run by python-clients.test.ts."""
import asyncio
from typing import Literal

from cases import MODEL, SCRIPTED, STACK, WEATHER_QUESTION, case, run
from pydantic import BaseModel, Field
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    """A person"""

    name: Literal["Ada", "Alan"]
    age: int = Field(ge=0, le=120)


def models(url):
    openai = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    yield OpenAIChatModel(MODEL, provider=openai)
    yield OpenAIResponsesModel(MODEL, provider=openai)
    yield AnthropicModel(MODEL, provider=AnthropicProvider(base_url=url, api_key="none"))


@case
def typed_and_tools():
    async def go():
        for model in models(STACK):
            agent = Agent(model, output_type=Person, model_settings={"temperature": 0, "max_tokens": 100})
            assert isinstance((await agent.run("Name a person.")).output, Person)
        for model in models(SCRIPTED):
            agent = Agent(model)
            asked = []

            @agent.tool_plain
            def get_weather(location: str) -> str:
                """Get the weather of a city."""
                asked.append(location)
                return "sunny"

            async def hear(_, events):
                async for _ in events:
                    pass

            streamed = await agent.run(WEATHER_QUESTION, event_stream_handler=hear)
            assert asked == ["Paris"] and "21 degrees" in streamed.output, (asked, streamed.output)
            assert "21 degrees" in (await agent.run(WEATHER_QUESTION)).output

    asyncio.run(go())


if __name__ == "__main__":
    run()
