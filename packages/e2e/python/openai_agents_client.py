"""The OpenAI Agents SDK over chat completions and Responses. Run by python-clients.test.ts."""
import asyncio
from typing import Literal

import agents
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from cases import MODEL, SCRIPTED, STACK, WEATHER_QUESTION, case, run
from openai import AsyncOpenAI
from pydantic import BaseModel, Field


class Person(BaseModel):
    """A person"""

    name: Literal["Ada", "Alan"]
    age: int = Field(ge=0, le=120)


@case
def typed_and_tools():
    agents.set_tracing_disabled(True)
    brief = agents.ModelSettings(temperature=0, max_tokens=100)

    @agents.function_tool
    def get_weather(location: str) -> str:
        """Get the weather of a city."""
        return "sunny"

    async def go():
        for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
            scripted = kind(MODEL, AsyncOpenAI(base_url=f"{SCRIPTED}/v1", api_key="none"))
            agent = agents.Agent("weather", instructions="Be brief.", tools=[get_weather], model=scripted)
            result = agents.Runner.run_streamed(agent, WEATHER_QUESTION)
            async for _ in result.stream_events():
                pass
            assert "21 degrees" in result.final_output
            assert "21 degrees" in (await agents.Runner.run(agent, WEATHER_QUESTION)).final_output
            real = kind(MODEL, AsyncOpenAI(base_url=f"{STACK}/v1", api_key="none"))
            typed = agents.Agent("person", output_type=Person, model=real, model_settings=brief)
            assert isinstance((await agents.Runner.run(typed, "Name a person.")).final_output, Person)

    asyncio.run(go())


if __name__ == "__main__":
    run()
