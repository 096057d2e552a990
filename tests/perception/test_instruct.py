"""Instruct models: the checked answer, a server that misbehaves, and a tiny model of a real class that raves."""

import base64
import io
import json
import logging
import pickle
import subprocess
import sys
import time
import traceback
from email.utils import formatdate
from unittest.mock import Mock

import numpy as np
import pytest
from fake_llm import FakeServer, fails, says, sends
from PIL import Image

from throughmask.errors import DeviceError, InvalidValueError, SampleError, ThroughMaskWarning
from throughmask.perception.instruct.answer import SCHEMA, AnswerError, reading_of
from throughmask.perception.instruct.asking import read_with
from throughmask.perception.instruct.connection import MAX_BYTES, ServerError, endpoint
from throughmask.perception.instruct.local import LocalInstruct
from throughmask.perception.instruct.prompts import MAX_SIDE, correction, examples, question
from throughmask.perception.instruct.server import InstructServer
from throughmask.perception.language import MAX_WORDS, Named
from throughmask.perception.parse import parse_scene

KEY = "sk-Very/Secret+0123456789"
PROMPT = "A big red ball slowly rolls to the left, and a dog jumps in from the right."


def thing(words, kind="", name="", **changes):
    name = name or words
    said = {"words": words, "kind": kind or name, "name": name, "phrase": name, "prompt": f"{name} moves"}
    return {**said, "enters": False, **changes}


BALL = thing("A big red ball", "ball", "red ball", phrase="big red ball", prompt="The big red ball rolls to the left.")
DOG = thing("a dog", "dog", "dog", prompt="The dog jumps in from the right.", enters=True)
GOOD = {"motion_prompt": "The ball slowly rolls to the left, and the dog jumps in.", "objects": [BALL, DOG]}


def answer(*objects, motion="They move."):
    return json.dumps({"motion_prompt": motion, "objects": objects})


def names(reading):
    return [one.name for one in reading.objects]


class TestAnswer:
    def test_it_becomes_a_reading(self):
        reading = reading_of(json.dumps(GOOD), PROMPT)
        assert reading.prompt == PROMPT
        assert reading.motion_prompt == GOOD["motion_prompt"]
        assert reading.objects == (
            Named("red ball", "big red ball", "The big red ball rolls to the left."),
            Named("dog", "dog", "The dog jumps in from the right.", enters=True),
        )
        assert reading.notes == ()

    @pytest.mark.parametrize(
        "frame",
        [
            "```json\n{}\n```",
            "Sure! Here is the JSON:\n\n{}\n\nAnything else?",
            '<think>A set {{1, 2}}; maybe {{"objects": []}}?</think>\n{}',
            "{{not this}} {}",
        ],
    )
    def test_it_is_found_between_other_words(self, frame):
        assert names(reading_of(frame.format(json.dumps(GOOD, indent=1)), PROMPT)) == ["red ball", "dog"]

    def test_objects_come_in_the_order_of_the_prompt(self):
        prompt = "A red ball hits a block, then a blue ball flies over it."
        said = [thing("ball", "ball", "blue ball"), thing("a block", "block"), thing("A red ball", "ball", "red ball")]
        assert names(reading_of(answer(*said), prompt)) == ["red ball", "block", "blue ball"]

    def test_members_of_a_group_keep_their_order_and_are_explained(self):
        said = [thing("Two dogs", "dog", "right dog"), thing("two  Dogs,", "dog", "left dog"), thing("ball")]
        reading = reading_of(answer(*said, motion="Two dogs chase a ball."), "Two dogs chase a ball.")
        assert names(reading) == ["right dog", "left dog", "ball"]
        assert "'left dog' is what 'two Dogs' names" in reading.notes
        assert "the motion prompt does not tell apart: right dog, left dog" in reading.notes

    def test_names_are_plain(self):
        said = [thing("“A Big Ball”", "The ball.", "A Big Ball!", phrase="big\n ball\x1b[2J")]
        [ball] = reading_of(answer(*said), 'Then "a big  ball" rolls.').objects
        assert ball.name == "big ball"
        assert ball.phrase == "big ball [2J"

    @pytest.mark.parametrize(
        ("motion", "bare"),
        [
            ("A big, red ball and a dog run.", "A ball and a dog run."),
            ("The red Ball rolls.", "The Ball rolls."),
            ("Big and red balls roll; the dog is red.", "Big and red balls roll; the dog is red."),
            ("Red ball rolls to a bigger ball.", "Ball rolls to a bigger ball."),
        ],
    )
    def test_the_motion_prompt_loses_attributes(self, motion, bare):
        assert reading_of(answer(BALL, DOG, motion=motion), PROMPT).motion_prompt == bare

    def test_articles_follow(self):
        said = [thing("a tiny orange", "orange", "tiny orange"), thing("an old car", "car", "old car")]
        reading = reading_of(answer(*said, motion="A tiny orange hits an old car."), "a tiny orange hits an old car")
        assert reading.motion_prompt == "An orange hits a car."

    def test_attributes_stay_where_two_share_a_kind(self):
        prompt = "A red kite and a blue kite climb."
        said = [thing("A red kite", "kite", "red kite"), thing("a blue kite", "kite", "blue kite")]
        text = answer(*said, motion="The red kite and the blue kite climb.")
        assert reading_of(text, prompt).motion_prompt == "The red kite and the blue kite climb."
        assert reading_of(text, prompt).notes == ()
        stripped = reading_of(text, prompt, strip_attributes=True)
        assert stripped.motion_prompt == "The kite and the kite climb."
        assert names(stripped) == ["red kite", "blue kite"]

    def test_scripts_without_spaces(self):
        assert names(reading_of(answer(thing("猫"), thing("犬")), "犬が猫を追う")) == ["犬", "猫"]

    def test_no_object(self):
        assert reading_of(answer(), "Nothing moves.").notes == ("no object is named",)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "an empty answer"),
            ("I cannot help with that.", "I cannot help"),
            ('{"objects": [', "not one whole JSON object"),
            (json.dumps(GOOD)[:-5], "not one whole JSON object"),
            ('{"objects": "none"}', "not one whole JSON object"),
            ('{"a":' * 5000, "not one whole JSON object"),
            ("x" * 200_000, r"far too long \(200000 characters\)"),
            ('{"objects": []}', '"motion_prompt" is missing'),
            (answer("ball"), "object 1: it is no JSON object"),
            (answer(BALL, {**DOG, "enters": "no"}), 'object 2: "enters" is neither'),
            (answer({**BALL, "prompt": " \t"}), 'object 1: "prompt" is missing'),
            (answer({**BALL, "phrase": 3}), 'object 1: "phrase" is missing'),
            (answer({**BALL, "name": "ball " * 20}), "longer than 80"),
            (answer({**BALL, "prompt": "ball " * 500}), "longer than 2000"),
            (answer(BALL, thing("a cat")), "object 2: 'cat' is not named in the prompt"),
            (answer(thing("og jumps")), "not named"),
            (answer(DOG, DOG), "2 objects are named 'dog': tell them apart by position"),
            (answer(*[DOG] * 256), "256 objects, and at most 255"),
        ],
    )
    def test_what_cannot_be_used_is_said_and_shown(self, text, problem):
        with pytest.raises(AnswerError, match=problem) as caught:
            reading_of(text, PROMPT)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 900
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)

    def test_the_schema_is_what_strict_servers_take(self):
        each = SCHEMA["properties"]["objects"]["items"]
        for part in (SCHEMA, each):
            assert part["required"] == list(part["properties"])
            assert part["additionalProperties"] is False
        assert list(BALL) == list(each["properties"])


class TestPrompts:
    @pytest.mark.parametrize("example", examples(), ids=lambda example: example["prompt"][:20])
    def test_every_example_is_right(self, example):
        reading = reading_of(json.dumps(example["answer"]), example["prompt"])
        assert names(reading) == [one["name"] for one in example["answer"]["objects"]]
        assert reading.motion_prompt == example["answer"]["motion_prompt"]
        assert not any("apart" in note for note in reading.notes)

    def test_roles_alternate_and_the_task_comes_first(self):
        messages = question(PROMPT)
        assert [message["role"] for message in messages] == ["user", "assistant"] * len(examples()) + ["user"]
        assert messages[0]["content"].startswith("You prepare the animation")
        assert messages[-1]["content"] == f"Prompt: {PROMPT}"

    def test_a_picture_is_shown_small(self):
        picture = np.full((300, 3 * MAX_SIDE, 3), (200, 30, 30), np.uint8)
        text, shown = question(PROMPT, picture)[-1]["content"]
        assert text["text"].endswith(PROMPT)
        head, _, data = shown["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.size == (MAX_SIDE, 100)
            assert np.abs(np.asarray(image)[50, 50].astype(int) - (200, 30, 30)).max() < 8

    def test_the_correction_is_short_and_never_empty(self):
        shown, asked = correction("{x}" * 9000, "it is {bad}")
        assert len(shown["content"]) <= 4000
        assert "it is {bad}" in asked["content"]
        assert correction(" \n", "")[0]["content"]


class TestAsking:
    def test_one_repair_shows_the_mistake(self):
        heard = []
        answers = iter([answer(DOG, DOG), json.dumps(GOOD)])
        reading = read_with(lambda messages: heard.append(messages) or next(answers), PROMPT)
        assert names(reading) == ["red ball", "dog"]
        assert len(heard) == 2
        assert heard[1][:-2] == heard[0]
        assert heard[1][-2] == {"role": "assistant", "content": answer(DOG, DOG)}
        assert "2 objects are named 'dog'" in heard[1][-1]["content"]

    def test_only_one(self):
        answers = iter(["no", "still no"])
        with pytest.raises(AnswerError, match="still no"):
            read_with(lambda messages: next(answers), PROMPT)

    @pytest.mark.parametrize("prompt", ["", " \n", "go " * (MAX_WORDS + 1), "犬" * 50_000])
    def test_a_prompt_that_cannot_be_read_is_not_asked_about(self, prompt):
        with pytest.raises(InvalidValueError, match=r"prompt is (empty|too long)"):
            read_with(lambda messages: pytest.fail("asked"), prompt)


WELL = says(json.dumps(GOOD))


@pytest.fixture
def fake():
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture
def ask(fake, monkeypatch, caplog):
    """Read PROMPT from a server with these replies; the key stays secret whatever happens. Gives reading and pauses."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    def ask(*replies, language=None, **options):
        fake.replies = list(replies)
        pauses = []
        language = language or InstructServer(fake.url, "tiny", timeout=5, sleep=pauses.append, **options)
        try:
            return language.read(PROMPT), pauses
        finally:
            error = sys.exc_info()[1]
            told = [traceback.format_exc(), repr(error), repr(vars(error)) if error else ""]
            assert not secret_in(*told, caplog.text, repr(language), repr(vars(language)))

    return ask


def secret_in(*texts):
    return [text for text in texts if KEY in text or KEY[3:14] in text]


class TestServer:
    def test_it_reads(self, ask, fake):
        reading, pauses = ask(WELL)
        assert names(reading) == ["red ball", "dog"]
        assert pauses == []
        [(path, headers, body)] = fake.heard
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert headers["User-Agent"].startswith("through-the-mask/")
        assert body["model"] == "tiny"
        assert body["temperature"] == 0
        assert body["response_format"]["json_schema"]["schema"] == SCHEMA
        assert body["messages"] == question(PROMPT)

    def test_it_parses_a_picture(self, fake):
        fake.replies = [WELL]
        masks = np.zeros((32, 48), np.uint8)
        masks[4:9, 4:9] = 1
        picture = np.zeros((32, 48, 3), np.uint8)
        language = InstructServer(fake.url, "tiny", picture=picture)
        parsed = parse_scene(picture, PROMPT, language, masks=masks)
        assert [(one.id, one.name) for one in parsed.scene.objects] == [(1, "red ball"), (2, "dog")]
        assert parsed.entering == ("dog",)
        assert fake.heard[0][2]["messages"][-1]["content"][1]["type"] == "image_url"

    def test_without_a_key_none_is_sent(self, fake, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        fake.replies = [WELL]
        InstructServer(fake.url, "tiny").read(PROMPT)
        assert "Authorization" not in fake.heard[0][1]

    def test_attributes_can_be_stripped(self, ask):
        text = answer(BALL, thing("a dog", "ball", "dog"), motion="The red ball meets a ball.")
        assert ask(says(text))[0].motion_prompt.startswith("The red ball")
        assert ask(says(text), strip_attributes=True)[0].motion_prompt.startswith("The ball")

    def test_busy_then_well(self, ask):
        assert ask(fails(429, Retry_After="7"), WELL)[1] == [7.0]
        assert ask(fails(429, Retry_After="0.25"), fails(503, Retry_After="soon"), WELL, pause=2)[1] == [0.25, 4]

    def test_a_date_to_wait_for(self, ask):
        [pause] = ask(fails(503, Retry_After=formatdate(time.time() + 30, usegmt=True)), WELL)[1]
        assert 25 < pause <= 30
        assert ask(fails(503, Retry_After=formatdate(0, usegmt=True)), WELL)[1] == [0.0]

    def test_failing_then_well(self, ask):
        assert ask(fails(500), fails(502, "no JSON"), sends(599, "<html>"), WELL, pause=0.5)[1] == [0.5, 1, 2]

    def test_always_failing(self, ask, fake):
        with pytest.raises(ServerError, match=r"fails \(HTTP 500\) \(seen: it went wrong\)"):
            ask(fails(500), tries=3)
        assert len(fake.heard) == 3

    def test_a_pause_too_long_is_not_waited_for(self, ask, fake):
        with pytest.raises(ServerError, match="wants 3600 seconds"):
            ask(fails(429, Retry_After="3600"))
        assert len(fake.heard) == 1

    def test_a_broken_connection_is_tried_again(self, ask):
        def drop(handler, body):
            handler.close_connection = True

        assert ask(drop, WELL)[1] == [1.0]
        with pytest.raises(ServerError, match="breaks the connection"):
            ask(drop)

    def test_slow(self, ask, fake):
        fake.replies = [lambda handler, body: fake.stop.wait(30)]
        with pytest.raises(ServerError, match=r"did not answer within 0.1 seconds"):
            ask(*fake.replies, language=InstructServer(fake.url, "tiny", timeout=0.1))
        assert len(fake.heard) == 1

    def test_drop_by_drop(self, ask, fake):
        def drip(handler, body):
            handler.send_response(200)
            handler.end_headers()
            while not fake.stop.wait(0.02):
                handler.wfile.write(b" ")

        with pytest.raises(ServerError, match="did not answer within"):
            ask(drip, language=InstructServer(fake.url, "tiny", timeout=0.2))

    def test_nobody_listens(self, ask, fake):
        fake.server.server_close()
        with pytest.raises(ServerError, match=r"127\.0\.0\.1.* cannot be reached"):
            ask(WELL)

    @pytest.mark.parametrize("bad", ["The ball rolls.", '{"motion_prompt": "x", "objects": [{}]}', answer(DOG, DOG)])
    def test_a_bad_answer_is_repaired_once(self, ask, fake, bad):
        assert names(ask(says(bad), WELL)[0]) == ["red ball", "dog"]
        assert fake.heard[1][2]["messages"][-2] == {"role": "assistant", "content": bad}
        with pytest.raises(AnswerError, match="cannot be used"):
            ask(says(bad))
        assert len(fake.heard) == 4

    def test_refusal(self, ask):
        with pytest.raises(AnswerError, match="seen: I will not help"):
            ask(says(None, refusal="I will not help."))
        with pytest.raises(AnswerError, match="seen: As a model I"):
            ask(says("As a model I cannot."))

    def test_content_in_parts(self, ask):
        text = json.dumps(GOOD)
        parts = [{"type": "text", "text": text[:40]}, {"type": "text", "text": text[40:]}]
        assert names(ask(says(parts))[0]) == ["red ball", "dog"]

    def test_formats_that_it_does_not_take(self, ask, fake):
        def picky(handler, body):
            kind = body.get("response_format", {}).get("type")
            reply = WELL if kind is None else fails(400, f"This response_format type is unavailable: {kind}")
            reply(handler, body)

        language = InstructServer(fake.url, "tiny")
        assert names(ask(picky, language=language)[0]) == ["red ball", "dog"]
        kinds = [body.get("response_format", {}).get("type") for _, _, body in fake.heard]
        assert kinds == ["json_schema", "json_object", None]
        ask(picky, language=language)
        assert len(fake.heard) == 4  # it remembers

    def test_a_format_that_silences_it(self, ask, fake):
        assert names(ask(says(""), WELL)[0]) == ["red ball", "dog"]
        assert fake.heard[1][2]["response_format"] == {"type": "json_object"}

    def test_options_that_it_does_not_take(self, ask, fake):
        def modern(handler, body):
            bad = next((name for name in ("max_tokens", "temperature") if name in body), None)
            (fails(400, f"Unsupported parameter: '{bad}'") if bad else WELL)(handler, body)

        ask(modern)
        assert "response_format" in fake.heard[-1][2]
        assert len(fake.heard) == 3

    def test_a_request_that_it_never_takes(self, ask, fake):
        language = InstructServer(fake.url, "tiny")
        with pytest.raises(ServerError, match=r"does not take the request \(HTTP 400\) \(seen: too many images\)"):
            ask(fails(400, "too many images"), language=language)
        assert len(fake.heard) == 3
        ask(WELL, language=language)
        assert fake.heard[-1][2]["response_format"]["type"] == "json_schema"  # nothing was learnt from it

    def test_wrong_key(self, ask, fake):
        with pytest.raises(ServerError, match=r"rejects the key; put .* variable OPENAI_API_KEY"):
            ask(fails(401, f"Incorrect API key provided: {KEY}"))
        assert len(fake.heard) == 1

    def test_no_key(self, fake, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        fake.replies = [fails(401)]
        with pytest.raises(ServerError, match="wants a key"):
            InstructServer(fake.url, "tiny").read(PROMPT)

    @pytest.mark.parametrize("status", [400, 403, 404, 418, 429, 500])
    def test_a_server_that_repeats_the_key(self, ask, status):
        with pytest.raises(ServerError, match=r"\[key\]"):
            ask(fails(status, f"you sent {KEY}"))
        with pytest.raises(ServerError, match=r"\[key\]"):
            ask(sends(status, f"<html>Bearer {KEY}"))

    def test_a_model_that_repeats_the_key(self, ask):
        with pytest.raises(AnswerError, match=r"\[key\]"):
            ask(says(f"Your key is {KEY}"))

    def test_a_key_is_not_taken_along(self, ask, fake):
        other = FakeServer()
        other.replies = [WELL]
        try:
            with pytest.raises(ServerError, match="redirects"):
                ask(sends(307, "", Location=f"{other.url}/chat/completions"))
            with pytest.raises(ServerError, match="redirects"):
                ask(sends(302, "", Location=f"{other.url}/chat/completions"))
            assert other.heard == []
        finally:
            other.close()

    @pytest.mark.parametrize(
        "text", ["", "hello", "[]", '{"choices": []}', '{"choices": [{"message": null}]}', "<html>"]
    )
    def test_no_chat_completion(self, ask, text):
        with pytest.raises(ServerError, match="something else than a chat completion"):
            ask(sends(200, text))

    def test_an_error_that_calls_itself_a_success(self, ask):
        with pytest.raises(ServerError, match="seen: out of credits"):
            ask(fails(200, "out of credits"))

    def test_no_such_model(self, ask):
        with pytest.raises(ServerError, match="no model 'tiny'"):
            ask(fails(404, "model 'tiny' not found"))

    def test_an_answer_far_too_long(self, ask):
        with pytest.raises(AnswerError, match="far too long"):
            ask(says("ball " * 100_000))
        with pytest.raises(ServerError, match="without end"):
            ask(says("x" * (MAX_BYTES + 1)))

    def test_only_thoughts(self, ask, fake):
        with pytest.raises(AnswerError, match="thought until it was cut off"):
            ask(says("", finish="length"))
        assert len(fake.heard) == 1

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("http://localhost:8000", "http://localhost:8000/v1/chat/completions"),
            ("http://localhost:11434/v1/", "http://localhost:11434/v1/chat/completions"),
            (" https://h.example/api/openai ", "https://h.example/api/openai/chat/completions"),
            ("https://h.example/v1/chat/completions", "https://h.example/v1/chat/completions"),
            ("http://[::1]:80/v1", "http://[::1]:80/v1/chat/completions"),
        ],
    )
    def test_addresses(self, given, expected):
        assert endpoint(given) == expected

    @pytest.mark.parametrize(
        "url",
        ["", "localhost:8000", "file:///etc/passwd", "http://", "http://h:99999", "http://h/a b", "http://[::1", "x://h",
         f"http://me:{KEY}@h/v1", f"https://h/v1?key={KEY}", f"https://h/v1#{KEY}", f"ftp://me:{KEY}@h"],
    )  # fmt: skip
    def test_addresses_that_cannot_be(self, url):
        with pytest.raises(InvalidValueError, match="address of a language model's server") as caught:
            InstructServer(url, "tiny")
        assert not secret_in(str(caught.value))

    @pytest.mark.parametrize(
        ("value", "options"),
        [
            (KEY, {"key_from": KEY}),
            (KEY, {"key_from": "MY_KEY"}),
            (f"{KEY}\nmore", {}),
            (f"{KEY}é", {}),
            (KEY, {"model": " "}),
            (KEY, {"timeout": 0}),
            (KEY, {"tries": 0}),
        ],
    )
    def test_what_cannot_be_is_said_at_once(self, value, options, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", value)
        monkeypatch.delenv("MY_KEY", raising=False)
        with pytest.raises(InvalidValueError) as caught:
            InstructServer("http://localhost", **{"model": "tiny", **options})
        assert not secret_in(str(caught.value))

    def test_a_key_of_another_name(self, ask, fake, monkeypatch):
        monkeypatch.setenv("MY_KEY", "another-secret")
        ask(WELL, key_from="MY_KEY")
        assert fake.heard[0][1]["Authorization"] == "Bearer another-secret"

    def test_a_placeholder_is_no_secret(self, ask, monkeypatch):
        monkeypatch.setenv("MY_KEY", "dog")
        assert names(ask(WELL, key_from="MY_KEY")[0]) == ["red ball", "dog"]

    def test_a_key_that_travels_in_the_open(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with pytest.warns(ThroughMaskWarning, match=r"goes to h\.example unencrypted") as caught:
            InstructServer("http://h.example/v1", "tiny")
        assert not secret_in(str(caught[0].message))
        InstructServer("https://h.example/v1", "tiny")


TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random LLaMA and a tokenizer that has a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(["</s>", *letters])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", chat_template=TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8192,
        eos_token_id=0,
    )
    folder = tmp_path_factory.mktemp("instruct")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class TestLocal:
    def test_nonsense_ends_in_the_clear_error(self, tiny, monkeypatch):
        language = LocalInstruct(str(tiny), max_new_tokens=24)
        asked = []
        original = language.ask
        monkeypatch.setattr(language, "ask", lambda messages: asked.append(messages) or original(messages))
        with pytest.raises(AnswerError, match=r"the language model's answer cannot be used: it is not one whole JSON"):
            language.read(PROMPT)
        assert [len(messages) for messages in asked] == [len(question(PROMPT)), len(question(PROMPT)) + 2]

    def test_decoding_is_greedy_and_bounded(self, tiny):
        messages = [{"role": "user", "content": "go"}]
        first, again, longer = (LocalInstruct(str(tiny), max_new_tokens=n).ask(messages) for n in (8, 8, 16))
        assert first == again
        assert len(first.encode()) <= len(longer.encode())
        assert longer.startswith(first.rstrip("\ufffd"))

    def test_it_sees_the_whole_conversation(self, tiny, monkeypatch):
        language = LocalInstruct(str(tiny), max_new_tokens=1)
        tokenizer, model = language._load()
        seen = []
        generate = model.generate
        monkeypatch.setattr(model, "generate", lambda **inputs: seen.append(inputs["input_ids"]) or generate(**inputs))
        language._answer(tokenizer, model, [{"role": "user", "content": "roll"}])
        assert tokenizer.decode(seen[0][0]) == "<user>roll</s><assistant>"

    def test_a_question_too_long_for_it(self, tiny):
        with pytest.raises(InvalidValueError, match="too long for the language model"):
            LocalInstruct(str(tiny)).ask([{"role": "user", "content": "x" * 9000}])

    def test_no_such_model(self, tiny, tmp_path):
        with pytest.raises(SampleError, match="is no transformers model"):
            LocalInstruct(str(tmp_path)).read(PROMPT)
        with pytest.raises(InvalidValueError, match="there is no such model"):
            LocalInstruct("nowhere").read(PROMPT)
        for file in tiny.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-400])
        with pytest.raises(SampleError, match="cannot be loaded"):
            LocalInstruct(str(tmp_path)).read(PROMPT)

    def test_it_leaves_when_it_shall(self, tiny, monkeypatch):
        monkeypatch.setattr(LocalInstruct, "_answer", lambda *_: json.dumps(GOOD))
        for stay in (True, False):
            language = LocalInstruct(str(tiny), stay=stay)
            assert names(language.read(PROMPT)) == ["red ball", "dog"]
            assert (language._loaded is not None) == stay

    def test_a_base_model(self, tiny, tmp_path):
        for file in tiny.iterdir():
            if file.name != "chat_template.jinja":
                (tmp_path / file.name).write_bytes(file.read_bytes())
        with pytest.raises(InvalidValueError, match="has no chat template"):
            LocalInstruct(str(tmp_path)).read(PROMPT)

    def test_a_device_that_is_full(self, tiny, monkeypatch):
        import torch

        for error in (
            torch.OutOfMemoryError("CUDA out of memory"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            MemoryError(),
        ):
            language = LocalInstruct(str(tiny))
            monkeypatch.setattr(language, "_answer", Mock(side_effect=error))
            with pytest.raises(DeviceError, match="the language model does not fit the device's memory"):
                language.read(PROMPT)
            assert language._loaded is None

    def test_nothing_heavy_is_loaded_before_it_is_asked(self):
        code = (
            "import sys; from throughmask.perception.instruct import local, server; local.LocalInstruct('x'); "
            "print(*{'torch', 'transformers'} & {*sys.modules})"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []
