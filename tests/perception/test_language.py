"""Rules for English: names in order, local prompts, who enters, what was not used."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentences import HARD, HELD_OUT, LAST, LATER, SENTENCES

from throughmask.errors import InvalidValueError
from throughmask.perception.english import lexicon
from throughmask.perception.language import MAX_WORDS, EnglishRules, read_prompt

ROWS = SENTENCES + HELD_OUT + LATER + LAST


def problems(sentence, expected):
    """What is not as expected in the reading of a sentence; see sentences.py for how that is written."""
    objects = read_prompt(sentence).objects
    rows = [row.partition(":") for row in expected.split(";") if row.strip()]
    names = [name.strip().rstrip("*") for name, _, _ in rows]
    if [thing.name for thing in objects] != names:
        return [f"names: {[thing.name for thing in objects]}"]
    found = []
    for thing, (name, _, words) in zip(objects, rows, strict=True):
        said = re.findall(r"[\w'-]+", thing.prompt.lower())
        found += [] if thing.enters == name.strip().endswith("*") else [f"{name} enters: {thing.enters}"]
        for word in words.lower().split():
            told = any(one.startswith(word.lstrip("-")) for one in said)
            found += [f"{word} in {thing.prompt!r}"] if told == word.startswith("-") else []
    return found


@pytest.mark.parametrize(("sentence", "expected"), ROWS)
def test_it_reads(sentence, expected):
    assert problems(sentence, expected) == []


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [pytest.param(a, b, marks=pytest.mark.xfail(strict=True, reason=why), id=a) for a, b, why in HARD],
)
def test_it_cannot_read(sentence, expected):
    assert problems(sentence, expected) == []


def test_the_tables_are_large_and_each_sentence_stands_in_one():
    sentences = [row[0] for row in (*ROWS, *HARD)]
    assert len(set(sentences)) == len(sentences)
    assert len(SENTENCES) >= 120
    assert len(HELD_OUT) >= 40
    assert len(HARD) < 0.15 * len(sentences)


@pytest.mark.parametrize(
    ("prompt", "motion", "stripped"),
    [
        (
            "A big red ball slowly rolls to the left, and a blue ball jumps over a green block.",
            "The red ball slowly rolls to the left, and the blue ball jumps over a block.",
            "The ball slowly rolls to the left, and the ball jumps over a block.",
        ),
        ("A red ball hits a blue block.", "The ball hits the block.", "The ball hits the block."),
        (
            "While the left cat sleeps on a sofa, the right cat plays with a ball that rolls away.",
            "While the left cat sleeps, the right cat plays with the ball, and the ball rolls away.",
            "While the cat sleeps, the cat plays with the ball, and the ball rolls away.",
        ),
        (
            "The camera pans left as the dog runs. It stops.",
            "The dog runs. The dog stops.",
            "The dog runs. The dog stops.",
        ),
        ("Nothing moves.", "Nothing moves.", "Nothing moves."),
    ],
)
def test_the_motion_prompt_keeps_an_attribute_only_where_two_objects_share_a_name(prompt, motion, stripped):
    assert read_prompt(prompt).motion_prompt == motion
    assert read_prompt(prompt, strip_attributes=True).motion_prompt == stripped
    assert EnglishRules(strip_attributes=True).read(prompt) == read_prompt(prompt, strip_attributes=True)


@pytest.mark.parametrize(
    ("prompt", "first", "second"),
    [
        (
            "the red ball rolls to the right and bumps into the blue block",
            "the red ball rolls to the right and bumps into the blue block",
            "the blue block is hit by the red ball",
        ),
        (
            "The block is pushed to the left by the ball.",
            "the block is pushed to the left by the ball",
            "the ball pushes the block to the left",
        ),
        (
            "A boy kicks two balls. They fly away.",
            "the boy kicks the left ball and the right ball",
            "the left ball is kicked by the boy and flies away",
        ),
        (
            "A man knocks over the vase while waving his hat.",
            "the man knocks over the vase while waving the hat",
            "the vase is knocked over by the man",
        ),
        ("The cat does not push the vase.", "the cat does not push the vase", "the vase, as the cat does not push it"),
        (
            "A cross slides behind a box, and the ball and the box stay still.",
            "the cross slides behind the box",
            "the box stays still",
        ),
        (
            "The bird watches the frog. The frog does not move but the bird sings.",
            "the bird watches the frog and sings",
            "the frog does not move",
        ),
    ],
)
def test_a_local_prompt_is_a_sentence_about_its_object(prompt, first, second):
    assert [thing.prompt for thing in read_prompt(prompt).objects[:2]] == [first, second]


def test_the_phrase_tells_all_that_is_said_of_a_look():
    ball, woman = read_prompt("A big shiny red ball hits a woman in a green dress.").objects
    assert (ball.name, ball.phrase) == ("red ball", "big shiny red ball")
    assert (woman.name, woman.phrase) == ("woman", "woman in a green dress")


@pytest.mark.parametrize(
    ("prompt", "unused"),
    [
        ("The ball rolls left, in the style of Monet.", ("in the style of Monet",)),
        ("The ball rolls left in slow motion.", ("in slow motion",)),
        ("The camera zooms in. A dog barks, 4k, highly detailed.", ("The camera zooms in", "4k", "highly detailed")),
        ("A dog barks \U0001f415 loudly", ("\U0001f415",)),
        ("Clouds drift by while a plane lands.", ("Clouds drift by",)),
        ("The dog barks.", ()),
    ],
)
def test_what_could_not_be_used_is_told(prompt, unused):
    reading = read_prompt(prompt)
    assert sorted(reading.unused) == sorted(unused)
    assert len(reading.objects) == 1


@pytest.mark.parametrize("prompt", ["Zoom in.", "!!!", "\U0001f389", "She smiles.", "in the park", "of of of", "4k"])
def test_a_prompt_that_names_nothing_says_so(prompt):
    reading = read_prompt(prompt)
    assert reading.objects == ()
    assert "no object is named" in reading.notes


def test_guesses_are_told():
    assert "which is which is a guess" in read_prompt("Two dogs run.").notes[0]
    assert "which is which is a guess" in read_prompt("A ball rolls and another ball stops.").notes[0]
    assert "4 objects are all named 'ball'" in read_prompt("A ball falls. " * 4).notes[0]
    assert read_prompt("The left dog runs and the right dog sits.").notes == ()


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ("", "prompt is empty .*the red ball rolls"),
        (" \n\t", "prompt is empty"),
        (None, "prompt is empty"),
        ("dog " * (MAX_WORDS + 1), "too long .*at most"),
        (" ".join(f"the k{n}x ball rolls." for n in range(300)), "too many objects .*300.*at most 255"),
    ],
)
def test_a_prompt_that_is_refused(prompt, match):
    with pytest.raises(InvalidValueError, match=match):
        read_prompt(prompt)


def test_the_forms_of_a_verb_lead_back_to_it():
    for lemma in sorted(lexicon.VERBS - {"be"}):
        for form in ("third", "ing"):
            word = lexicon.inflect(lemma, form)
            assert (
                (lemma, form) in lexicon.verb_forms(word)
                or word in ("leaves", "leaving")
                or not lexicon.verb_forms(word)
            )
    forms = [
        lexicon.inflect(lemma, form) for lemma in ("roll", "hop", "glide", "fly") for form in ("third", "ing", "part")
    ]
    assert " ".join(forms) == "rolls rolling rolled hops hopping hopped glides gliding glided flies flying flown"


@pytest.mark.parametrize("word", ["dogs", "boxes", "cities", "leaves", "men", "buses", "wolves", "horses", "glasses"])
def test_a_plural_has_a_singular_that_is_none(word):
    one = lexicon.singular(word)
    assert lexicon.is_plural(word)
    assert one != word
    assert not lexicon.is_plural(one)
    assert lexicon.singular(one) == one


VOCABULARY = sorted({word for row in ROWS for word in re.findall(r"[\w'-]+|[.,;:!?]", row[0].lower())})


def check_sound(prompt):
    """Every object has a prompt about it, and a name made of the prompt's words."""
    reading = read_prompt(prompt)
    words = {
        part for word in re.findall(r"[^\W_]+(?:['-][^\W_]+)*", prompt.lower()) for part in (word, *word.split("'"))
    }
    known = words | {lexicon.singular(word) for word in words} | {"left", "middle", "right", "and"}
    for thing in reading.objects:
        assert set(thing.name.lower().replace("'s", "").split()) <= known
        assert thing.prompt.startswith(f"the {thing.name}")
        assert thing.phrase
    assert all(span in prompt for span in reading.unused)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=30).map(" ".join))
def test_a_salad_of_words_is_no_crash(prompt):
    check_sound(prompt)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(min_size=1, max_size=60).filter(str.strip))
def test_any_text_is_no_crash(prompt):
    check_sound(prompt)


@pytest.mark.parametrize(
    "part",
    [
        "which jumps ",
        "the ball , ",
        "the ball of ",
        "with the ball rolling ",
        "a b c d ",
        "the dog that chases the cat ",
    ],
)
def test_repetition_is_no_crash(part):
    check_sound(part * (400 // len(part.split())))
