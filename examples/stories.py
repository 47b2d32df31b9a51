"""Write short stories about a village, for training a small language model.

A story follows a small world: who is where, who holds what, how many of a thing there are, which day it is. What a
sentence says is true of that world, so the next word often follows from a sentence far above: a name, a pronoun, a
place, a number, a day. That is what makes the perplexity of a model of these stories worth measuring. Half of the
stories are answers to a request, with questions about the story after it.

The words are in ``story_grammar.json``.
"""

import json
import random
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GRAMMAR_FILE = Path(__file__).resolve().parent / "story_grammar.json"

#: What begins the words of a user and of the model, and what ends both.
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
#: One pairing of a name and a thing in this many is kept for the held-out stories.
HELD_OUT_PAIRINGS = 8
NUMBERS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass
class Person:
    """Someone in a story: a name, a trade, the pronouns, a place, and the things that are carried."""

    name: str
    trade: str
    pronouns: dict[str, str]
    place: str
    things: list[str] = field(default_factory=list)
    count: int = 0  #: of what is counted in this story


def is_held_out(name: str, thing: str) -> bool:
    """Tell whether a pairing of a name and a thing is kept for the held-out stories."""
    return zlib.crc32(f"{name}|{thing}".encode()) % HELD_OUT_PAIRINGS == 0


class StoryWriter:
    """Writes stories; those with ``held_out`` share no pairing of a name with a thing with the others."""

    def __init__(self, seed: int, held_out: bool) -> None:
        """Read the grammar and start the random numbers."""
        self._random = random.Random(f"{seed} {held_out}")
        self._held_out = held_out
        self._words: dict[str, Any] = json.loads(GRAMMAR_FILE.read_text(encoding="utf-8"))

    def write(self, count: int) -> list[str]:
        """Return ``count`` different stories."""
        stories: dict[str, None] = {}
        while len(stories) < count:
            stories[self._story()] = None
        return list(stories)

    def _story(self) -> str:
        self._people = self._cast()
        self._nouns = [person.things[0] for person in self._people]
        self._fruit = self._random.choice(self._words["counted"])
        self._day = self._random.randrange(len(DAYS))
        self._told: list[tuple[str, str]] = []
        self._where: dict[str, str] = {}
        hero = self._people[0]
        opening = self._pick("openings").format(
            day=DAYS[self._day], name=hero.name, trade=hero.trade, place=hero.place, weather=self._pick("weather")
        )
        sentences = [opening, *self._introductions()]
        for _ in range(self._random.randint(3, 7)):
            sentences += self._event()
        sentences.append(self._pick("endings").format(name=hero.name, him=hero.pronouns["object"], day=DAYS[self._day]))
        text = " ".join(sentences)
        if self._random.random() < 0.5:
            return text + END
        things = " and ".join(f"the {thing}" for thing in self._nouns[:2])
        request = self._pick("requests").format(name=hero.name, trade=hero.trade, things=things)
        turns = [(request, text), *self._questions()]
        return "".join(f"{USER}{question}{END}{ASSISTANT}{answer}{END}" for question, answer in turns)

    def _pick(self, key: str) -> str:
        return str(self._random.choice(self._words[key]))

    def _cast(self) -> list[Person]:
        """Return two or three people, each with one thing whose pairing with the name belongs to these stories."""
        people = []
        names = self._random.sample(self._words["names"], self._random.choice((2, 2, 3)))
        places = self._random.sample(self._words["places"], len(names))
        taken: set[str] = set()
        for entry, place in zip(names, places, strict=True):
            own = [
                noun
                for noun in self._words["things"]
                if is_held_out(entry["name"], noun) == self._held_out and noun not in taken
            ]
            noun = self._random.choice(own)
            taken.add(noun)
            pronouns = self._words["pronouns"][entry["gender"]]
            people.append(Person(entry["name"], self._pick("trades"), pronouns, place, [noun]))
        return people

    def _introductions(self) -> list[str]:
        sentences = []
        for number, person in enumerate(self._people):
            thing = f"{self._pick('adjectives')} {person.things[0]}"
            article = "an" if thing[0] in "aeiou" else "a"
            if number == 0:
                pattern, subject = self._pick("owns"), person.pronouns["subject"].capitalize()
            else:
                pattern, subject = self._pick("meets"), person.name
            sentences.append(
                pattern.format(
                    subject=subject,
                    name=person.name,
                    trade=person.trade,
                    place=person.place,
                    thing=f"{article} {thing}",
                    his=person.pronouns["possessive"],
                )
            )
        return sentences

    def _event(self) -> list[str]:
        """Return the sentences of one event, and let the world be as it is after it."""
        kinds = ("move", "give", "count", "leave", "find", "say", "feel", "sleep")
        kind = self._random.choices(kinds, (18, 20, 18, 10, 10, 12, 10, 6))[0]
        sentences: list[str] = getattr(self, f"_{kind}")()
        return sentences

    def _move(self) -> list[str]:
        person = self._random.choice(self._people)
        old = person.place
        person.place = self._random.choice([place for place in self._words["places"] if place != old])
        sentence = self._pick("moves").format(name=person.name, old=old, new=person.place)
        there = [other.name for other in self._people if other is not person and other.place == person.place]
        self._told.append((f"Where did {person.name} go?", f"{person.name} went to the {person.place}."))
        if there:
            return [sentence, f"{' and '.join(there)} {'was' if len(there) == 1 else 'were'} there already."]
        return [sentence]

    def _give(self) -> list[str]:
        givers = [person for person in self._people if person.things]
        if not givers:
            return self._feel()
        giver = self._random.choice(givers)
        taker = self._random.choice([person for person in self._people if person is not giver])
        thing = self._random.choice(giver.things)
        giver.things.remove(thing)
        taker.things.append(thing)
        sentences = []
        if giver.place != taker.place:
            giver.place = taker.place
            sentences.append(self._pick("visits").format(name=giver.name, other=taker.name, place=taker.place))
        pattern = self._pick("gives")
        sentences.append(
            pattern.format(name=giver.name, other=taker.name, thing=thing, he=giver.pronouns["subject"].capitalize())
        )
        sentences.append(f"Now {taker.name} had {_listed([f'the {held}' for held in taker.things])}.")
        self._told.append((f"Who has the {thing}?", f"{taker.name} has the {thing}."))
        return sentences

    def _count(self) -> list[str]:
        person = self._random.choice(self._people)
        one, many = self._fruit
        before = person.count
        he = person.pronouns["subject"]
        if before and self._random.random() < 0.5:
            gone = self._random.randint(1, before)
            person.count = before - gone
            sentence = self._pick("eats").format(name=person.name, number=NUMBERS[gone], things=_many(gone, one, many))
        else:
            new = self._random.randint(1, 6 if before < 8 else 3)
            person.count = min(before + new, len(NUMBERS) - 1)
            new = person.count - before
            more = " more" if before else ""
            sentence = self._pick("picks").format(
                name=person.name, number=NUMBERS[new] + more, things=_many(new, one, many), place=person.place
            )
        total = f"{NUMBERS[person.count]} {_many(person.count, one, many)}"
        self._told = [told for told in self._told if f"did {person.name} have" not in told[0]]
        self._told.append((f"How many {many} did {person.name} have?", f"{person.name} had {total}."))
        return [sentence, f"So now {he} had {total}."]

    def _leave(self) -> list[str]:
        owners = [person for person in self._people if person.things]
        if not owners:
            return self._say()
        person = self._random.choice(owners)
        thing = person.things.pop()
        self._where[thing] = person.place
        self._told.append((f"Where is the {thing}?", f"The {thing} is at the {person.place}."))
        return [self._pick("leaves").format(name=person.name, thing=thing, place=person.place)]

    def _find(self) -> list[str]:
        if not self._where:
            return self._move()
        thing = self._random.choice(sorted(self._where))
        place = self._where.pop(thing)
        person = self._random.choice(self._people)
        person.place = place
        person.things.append(thing)
        self._told = [told for told in self._told if f"the {thing}?" not in told[0]]
        self._told.append((f"Who has the {thing}?", f"{person.name} has the {thing}."))
        return [self._pick("finds").format(name=person.name, thing=thing, place=place, he=person.pronouns["subject"])]

    def _say(self) -> list[str]:
        speaker, hearer = self._random.sample(self._people, 2)
        if self._where and self._random.random() < 0.6:
            thing = self._random.choice(sorted(self._where))
            return [
                f'"Where is the {thing}?" asked {speaker.name}. '
                f'"It is at the {self._where[thing]}," said {hearer.name}.'
            ]
        holders = [person for person in self._people if person.things]
        if holders and self._random.random() < 0.6:
            holder = self._random.choice(holders)
            thing = self._random.choice(holder.things)
            whom = "I have" if holder is hearer else "You have" if holder is speaker else f"{holder.name} has"
            return [f'"Who has the {thing}?" asked {speaker.name}. "{whom} the {thing}," said {hearer.name}.']
        return [f'"{self._pick("greetings").format(name=hearer.name, trade=hearer.trade)}" said {speaker.name}.']

    def _feel(self) -> list[str]:
        person = self._random.choice(self._people)
        feeling = self._random.choice(self._words["feelings"])
        pattern = self._pick("feels")
        return [
            pattern.format(
                name=person.name, he=person.pronouns["subject"], feeling=feeling["how"], because=feeling["because"]
            ).replace("{his}", person.pronouns["possessive"])
        ]

    def _sleep(self) -> list[str]:
        self._day = (self._day + 1) % len(DAYS)
        return [self._pick("mornings").format(day=DAYS[self._day], weather=self._pick("weather"))]

    def _questions(self) -> list[tuple[str, str]]:
        """Return questions about how the story ended, with their answers; later events replace earlier ones."""
        latest: dict[str, str] = {}
        for question, answer in self._told:
            if question.startswith(("Who has", "Where is")):
                thing = question.rstrip("?").split()[-1]
                latest = {old: told for old, told in latest.items() if not old.endswith(f" the {thing}?")}
            latest[question] = answer
        kept = {
            question: answer
            for question, answer in latest.items()
            if not question.startswith("Where did") or self._is_there(question, answer)
        }
        return self._random.sample(sorted(kept.items()), min(len(kept), self._random.randint(1, 3)))

    def _is_there(self, question: str, answer: str) -> bool:
        """Tell whether someone is still where an answer says."""
        return any(
            question == f"Where did {person.name} go?" and answer.endswith(f" {person.place}.")
            for person in self._people
        )


def _many(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
