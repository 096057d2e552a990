"""What a model is asked: the tasks of the paper's Fig. 10 and 11 in our words, with examples; texts lie beside.

Instructions stand in the first user message: some chat templates know no system role.
"""

from __future__ import annotations

import base64
import io
import json
from importlib.resources import files
from typing import Any

from PIL import Image

from ...types import Pixels

Message = dict[str, Any]  # role, content: as the chat completions of OpenAI have them
MAX_SIDE = 1024  # pixels: enough to tell left from right, and no server takes more
MAX_SHOWN = 4000  # characters of an answer that a model is shown again
LOOK = (
    "The picture as it is at the beginning is attached: use it to tell objects apart, and list none that is not named."
)


def question(prompt: str, picture: Pixels | None = None) -> list[Message]:
    """The messages that ask for the reading of a prompt. picture: uint8 H W 3, for models that see."""
    messages: list[Message] = []
    for example in examples():
        answer = json.dumps(example["answer"], ensure_ascii=False)
        messages += [_said("user", f"Prompt: {example['prompt']}"), _said("assistant", answer)]
    messages[0]["content"] = f"{_file('task.txt')}\n{messages[0]['content']}"
    if picture is None:
        return [*messages, _said("user", f"Prompt: {prompt}")]
    shown = {"type": "image_url", "image_url": {"url": data_url(picture)}}
    return [*messages, _said("user", [{"type": "text", "text": f"{LOOK}\nPrompt: {prompt}"}, shown])]


def correction(answer: str, problem: str) -> list[Message]:
    """The messages that show a model its mistake. An empty answer is marked: servers refuse empty messages."""
    shown = answer.strip()[:MAX_SHOWN] or "(nothing)"
    return [_said("assistant", shown), _said("user", _file("repair.txt").replace("{problem}", problem))]


def examples() -> list[dict[str, Any]]:
    """Prompts with the answers that are right."""
    return json.loads(_file("examples.json"))


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _said(role: str, content: str | list[dict[str, Any]]) -> Message:
    return {"role": role, "content": content}


def data_url(picture: Pixels) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
