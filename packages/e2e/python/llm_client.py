"""The command line tool llm, as docs/clients.md sets it up. Run by python-clients.test.ts."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import MODEL, QUESTION, STACK, WEATHER_QUESTION, case, run

folder = Path(tempfile.mkdtemp())


def llm(*args):
    command = [sys.executable, "-m", "llm", *args]
    env = {**os.environ, "LLM_USER_PATH": str(folder)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@case
def chat():
    lines = [
        f"- model_id: {MODEL}",
        f"  model_name: {MODEL}",
        f"  api_base: {STACK}/v1",
        "  api_key_name: cortex",
        "  supports_tools: true",
        "  supports_schema: true",
    ]
    (folder / "extra-openai-models.yaml").write_text("\n".join(lines) + "\n")
    llm("keys", "set", "cortex", "--value", "none")
    for more in ((), ("--no-stream",)):
        assert "Paris" in llm("-m", MODEL, "-o", "temperature", "0", *more, QUESTION)


@case
def schema():
    city = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    answer = json.loads(llm("-m", MODEL, "--schema", json.dumps(city), QUESTION))
    assert answer["city"] in ("Paris", "Rome")


@case
def tools():
    function = "def get_weather(location: str) -> str:\n    'Get the weather of a city'\n    return 'sunny in ' + location\n"
    said = llm("-m", MODEL, "-o", "temperature", "0", "--td", "--functions", function, WEATHER_QUESTION)
    assert "get_weather({'location': 'Paris'})" in said and "sunny in Paris" in said, said


if __name__ == "__main__":
    run()
