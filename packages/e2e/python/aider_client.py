"""aider, as docs/clients.md starts it, with the scripted model's edits. Run by python-clients.test.ts."""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cases import MODEL, SCRIPTED, STACK, case, run


def aider(env, model, edit_format, url):
    folder = Path(tempfile.mkdtemp())
    (folder / "hello.py").write_text('print("hello")\n')
    away = {"HOME": str(folder), "TERM": "dumb"}
    settled = {name: value.replace("URL", url) for name, value in env.items()}
    args = ["--message", "Say goodbye.", "--yes", "--no-git", "--edit-format", edit_format]
    quiet = ["--no-pretty", "--no-analytics", "--no-check-update", "--no-show-model-warnings", "--no-show-release-notes"]
    done = subprocess.run(
        [sys.executable, "-m", "aider", "--model", f"{model}/{MODEL}", *args, *quiet, "hello.py"],
        cwd=folder, env={**os.environ, **away, **settled}, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, (folder / "hello.py").read_text()


openai = {"OPENAI_API_BASE": "URL/v1", "OPENAI_API_KEY": "none"}
anthropic = {"ANTHROPIC_API_BASE": "URL", "ANTHROPIC_API_KEY": "none"}


@case
def edits():
    for env, model, edit_format in ((openai, "openai", "whole"), (anthropic, "anthropic", "diff")):
        said, text = aider(env, model, edit_format, SCRIPTED)
        assert text == 'print("goodbye")\n', (model, said)


@case
def too_long_for_the_context():
    for env, model in ((openai, "openai"), (anthropic, "anthropic")):
        said, _ = aider(env, model, "diff", STACK)
        assert "token limit" in said, said


if __name__ == "__main__":
    run()
