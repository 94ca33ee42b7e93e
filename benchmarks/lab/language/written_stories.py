"""Small stories in the words that a small storyteller knows, written by a grammar: a narrow task, as rows to learn.

Written for this project, so that no public data set of such texts is needed. The choices of a story are drawn evenly
and apart from each other, but what has been said comes back: who found what, and where.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

GIRLS, BOYS = ("Lily", "Mia", "Sue", "Anna", "Amy"), ("Tim", "Tom", "Ben", "Max", "Sam")
PLACES = ("park", "garden", "house", "forest", "river", "big tree")
THINGS = ("ball", "box", "flower", "stone", "hat", "toy car", "cake", "book")
LOOKS = ("red", "big", "small", "blue", "shiny", "soft")
ANIMALS = ("dog", "cat", "bird", "frog", "rabbit", "duck")
MOODS = {
    "sad": "gave it a big hug",
    "hungry": "gave it some bread",
    "lost": "took it back to its home",
    "scared": "said that all was good",
}
LESSONS = (
    "It is good to share.",
    "It is good to help a friend.",
    "A kind word can make a big change.",
    "Playing together is more fun.",
)


def story(draw: random.Random) -> str:
    """One story, of about 90 words."""
    girl = draw.random() < 0.5
    name, she, her, child = (
        (draw.choice(GIRLS), "She", "her", "girl") if girl else (draw.choice(BOYS), "He", "his", "boy")
    )
    place, thing, look, animal = map(draw.choice, (PLACES, THINGS, LOOKS, ANIMALS))
    mood = draw.choice(tuple(MOODS))
    return (
        f"Once upon a time, there was a little {child} named {name}. {she} loved to play near the {place}. "
        f"One day, {name} found a {look} {thing} near the {place}. {she} was very happy and showed the {thing} to "
        f"{her} mom. Then {name} saw a {animal}. The {animal} was {mood}. {name} wanted to help the {animal}. "
        f"{she} {MOODS[mood]}. The {animal} was not {mood} anymore. The {animal} and {name} played with the {look} "
        f"{thing} all day. From that day on, {name} and the {animal} were best friends. {draw.choice(LESSONS)}"
    )


def write_stories(path: Path, count: int = 3_000, seed: int = 0) -> None:
    """Write stories, all of them different, as lines of JSON with the column text."""
    draw = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[story(draw)] = None
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
