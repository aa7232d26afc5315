"""What the scripts share: where the stacks are, and cases that are all run before one fails the script."""
import os
import sys
import time
import traceback

# real weights; a model that thinks and calls the first tool it is given; a gateway whose model loads slowly
STACK = os.environ["CORTEX_URL"]
LOADING = os.environ["CORTEX_LOADING_URL"]
SCRIPTED = os.environ["CORTEX_SCRIPTED_URL"]
MODEL = "cortex-tiny"
EMBEDDER = "mean"
QUESTION = "What is the capital of France?"
WEATHER_QUESTION = "What is the weather in Paris?"
PARAMETERS = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
WEATHER = {"name": "get_weather", "description": "Get the weather of a city", "parameters": PARAMETERS}

cases = []


def case(function):
    cases.append(function)
    return function


def run():
    only = sys.argv[1:]
    failed = 0
    for each in cases:
        if only and each.__name__ not in only:
            continue
        try:
            start = time.monotonic()
            each()
            print(f"ok {each.__name__} {time.monotonic() - start:.1f}s", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {each.__name__}\n{traceback.format_exc(limit=-4)}", flush=True)
    sys.exit(1 if failed else 0)
