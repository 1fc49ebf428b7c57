"""Runs an agent of the OpenAI Agents SDK against a gateway; prints one JSON object.

python openai_agents.py URL TOKEN MODEL responses|chat
"""

from __future__ import annotations

import asyncio
import json
import sys

from agents import (
    Agent,
    Model,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel


class Place(BaseModel):
    city: str
    people: int


async def main(url: str, token: str, name: str, api: str) -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key=token, max_retries=0)
    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatCompletionsModel
    model: Model = kind(model=name, openai_client=client)
    cities: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return f"22 degrees in {city}"

    agent = Agent(name="Guide", instructions="Be brief.", model=model, tools=[weather])
    run = await Runner.run(agent, "Hi")
    streamed = Runner.run_streamed(agent, "Hi")
    deltas = [
        event.data.delta
        async for event in streamed.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    geographer = Agent(name="Geographer", model=model, output_type=Place)
    place = await Runner.run(geographer, "Hi")
    found = {
        "run": run.final_output,
        "cities": cities,
        "output_tokens": run.context_wrapper.usage.output_tokens,
        "streamed": streamed.final_output,
        "deltas": "".join(deltas),
        "place": place.final_output.model_dump(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
