"""Product reviews made from a seeded grammar, each with the stars its author would give.

A review is a few sentences. Every opinion in it carries a score between -2 and 2; the stars follow from the
weighted mean of the scores: what comes after "but" and a closing verdict count for more, hearsay counts for
nothing, and "not bad" is only a little praise. Some reviewers are one star off, as reviewers are.

The words are in ``review_grammar.json``, by language.
"""

import json
import random
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAMMAR_FILE = Path(__file__).resolve().parent / "review_grammar.json"

STARS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")

#: Mean scores at which one more star is given.
STAR_BOUNDARIES = (-1.2, -0.4, 0.4, 1.2)
#: Reviews whose mean score is nearer to a boundary than this are thrown away: their stars would be arbitrary.
LEAST_MARGIN = 0.18
#: What "not" makes of an adjective's grade: "not good" is bad, "not bad" is a little good.
NEGATED_SCORES = {2: -0.6, 1: -1.0, -1: 0.6, -2: -0.3}
DEGREE_SCORES = {"strong": 1.5, "weak": 0.7}
WISHED_BUT_ABSENT = {2: -0.7, 1: -0.8, 0: -0.5, -1: 0.5, -2: 0.5}
CONTRAST_WEIGHT = 2.0
CONCEDED_WEIGHT = 0.7
VERDICT_WEIGHT = 1.5
#: Part of the reviews whose stars are one off.
DISAGREEMENT = 0.02
#: One pairing of subject and adjective in this many is kept for the held-out reviews.
HELD_OUT_PAIRINGS = 6
EMOJI = ("👍", "👎", "🙂", "😡", "🎁", "📦")


@dataclass(frozen=True)
class Review:
    """A review's text, its language code, and its label: 0 for one star to 4 for five stars."""

    text: str
    language: str
    label: int


@dataclass(frozen=True)
class Opinion:
    """Words, the score they express (-2 to 2), and how much it counts."""

    words: str
    score: float
    weight: float = 1.0


@dataclass(frozen=True)
class Pairing:
    """A subject and an adjective, with the verbs that may link them."""

    subject: str
    adjective: str
    verbs: list[str]
    negated_verbs: list[str]


def is_held_out(subject: str, adjective: str) -> bool:
    """Tell whether a pairing of subject and adjective is kept for the held-out reviews."""
    return zlib.crc32(f"{subject}|{adjective}".encode()) % HELD_OUT_PAIRINGS == 0


def label_of(score: float) -> int:
    """Return the label, 0 to 4, for a mean score between -2 and 2."""
    return sum(score > boundary for boundary in STAR_BOUNDARIES)


class ReviewWriter:
    """Writes reviews; those with ``held_out`` share no pairing of subject and adjective with the others."""

    def __init__(self, seed: int, held_out: bool) -> None:
        """Read the grammar and start the random numbers."""
        self._random = random.Random(f"{seed} {held_out}")
        self._grammar: dict[str, Any] = json.loads(GRAMMAR_FILE.read_text(encoding="utf-8"))
        self._pairings = {
            (language, int(grade)): [
                Pairing(subject, adjective, predicate["verbs"], predicate["negated"])
                for predicate in words["predicates"]
                for subject in predicate["subjects"]
                for adjective in adjectives
                if is_held_out(subject, adjective) == held_out
            ]
            for language, words in self._grammar.items()
            for grade, adjectives in words["adjectives"].items()
        }

    def write(self, count: int) -> list[Review]:
        """Return ``count`` different reviews, shuffled, with equally many of each label if it can be."""
        quotas = [count // len(STARS) + (label < count % len(STARS)) for label in range(len(STARS))]
        reviews: dict[str, Review] = {}
        while len(reviews) < count:
            review = self._review()
            if review and quotas[review.label] and review.text not in reviews:
                quotas[review.label] -= 1
                reviews[review.text] = review
        shuffled = list(reviews.values())
        self._random.shuffle(shuffled)
        return shuffled

    def _review(self) -> Review | None:
        """Return a review, or nothing where its stars would be arbitrary."""
        languages = list(self._grammar)
        shares = [self._grammar[language]["share"] for language in languages]
        language = self._random.choices(languages, shares)[0]
        words = self._grammar[language] | {"language": language}
        mood = self._random.uniform(-2.4, 2.4)
        sentences, opinions = self._sentences(words, mood)
        score = sum(o.score * o.weight for o in opinions) / sum(o.weight for o in opinions)
        if min(abs(score - boundary) for boundary in STAR_BOUNDARIES) < LEAST_MARGIN:
            return None
        label = label_of(score)
        if self._random.random() < DISAGREEMENT:
            label = min(4, max(0, label + self._random.choice((-1, 1))))
        return Review(self._roughen(" ".join(sentences), score), language, label)

    def _sentences(self, words: dict[str, Any], mood: float) -> tuple[list[str], list[Opinion]]:
        """Return the sentences of one review and the opinions in them."""
        many = self._random.random() < 0.015
        sentences: list[str] = []
        opinions: list[Opinion] = []
        for _ in range(self._random.randint(8, 20) if many else self._random.choice((1, 1, 2, 2, 3))):
            if self._random.random() < 0.3:
                sentences.append(self._filler(words))
            if self._random.random() < 0.12:
                sentences.append(self._random.choice(words["hearsay"]).format(adjective=self._adjective(words)[0]))
            sentence, found = self._opinionated_sentence(words, mood)
            sentences.append(sentence)
            opinions += found
        if self._random.random() < 0.3:
            grade = self._grade(mood)
            sentences.append(self._random.choice(words["verdicts"][str(grade)]))
            opinions.append(Opinion(sentences[-1], grade, VERDICT_WEIGHT))
        return sentences, opinions

    def _opinionated_sentence(self, words: dict[str, Any], mood: float) -> tuple[str, list[Opinion]]:
        kind = self._random.choices(("plain", "contrast", "join", "question"), (45, 25, 22, 8))[0]
        if kind == "question":
            adjective, grade = self._adjective(words)
            sentence = self._random.choice(words["questions"]).format(adjective=adjective)
            return sentence, [Opinion(sentence, WISHED_BUT_ABSENT[grade])]
        if kind == "contrast":
            conceded = self._opinion(words, -mood, CONCEDED_WEIGHT)
            main = self._opinion(words, mood, CONTRAST_WEIGHT)
            return self._combine(words["contrasts"], conceded, main), [conceded, main]
        first = self._opinion(words, mood)
        if kind == "join":
            second = self._opinion(words, mood)
            return self._combine(words["joins"], first, second), [first, second]
        return _as_sentence(first.words), [first]

    def _combine(self, patterns: list[str], first: Opinion, second: Opinion) -> str:
        return _as_sentence(self._random.choice(patterns).format(a=first.words, b=second.words))

    def _opinion(self, words: dict[str, Any], mood: float, weight: float = 1.0) -> Opinion:
        """Return a clause near a mood: a fact one time in five, else a subject with a graded adjective."""
        if self._random.random() < 0.2:
            grade = self._grade(mood)
            return Opinion(self._random.choice(words["facts"][str(grade)]), grade, weight)
        if abs(mood) < 1.4 and self._random.random() < 0.25:
            grade = self._random.choice([g for g, score in NEGATED_SCORES.items() if score * mood >= 0])
            pairing = self._random.choice(self._pairings[words["language"], grade])
            verb = self._random.choice(pairing.negated_verbs)
            return Opinion(f"{pairing.subject} {verb} {pairing.adjective}", NEGATED_SCORES[grade], weight)
        grade = self._grade(mood)
        degree, score = self._degree(words, grade)
        pairing = self._random.choice(self._pairings[words["language"], grade])
        verb = self._random.choice(pairing.verbs)
        return Opinion(f"{pairing.subject} {verb} {degree}{pairing.adjective}", score, weight)

    def _grade(self, mood: float) -> int:
        return min(2, max(-2, round(self._random.gauss(mood, 0.7))))

    def _degree(self, words: dict[str, Any], grade: int) -> tuple[str, float]:
        """Return an intensifier with a space after it, or nothing, and the score that the grade becomes."""
        if grade == 0 or self._random.random() < 0.5:
            return "", grade
        if abs(grade) == 2:
            return self._random.choice(words["degrees"]["utter"]) + " ", grade
        kind = self._random.choice(("strong", "weak"))
        return self._random.choice(words["degrees"][kind]) + " ", grade * DEGREE_SCORES[kind]

    def _adjective(self, words: dict[str, Any]) -> tuple[str, int]:
        grade = self._random.choice((-2, -1, 0, 1, 2))
        return self._random.choice(words["adjectives"][str(grade)]), grade

    def _filler(self, words: dict[str, Any]) -> str:
        filler = str(self._random.choice(words["fillers"]))
        return filler.format(product=self._random.choice(words["products"]), number=self._random.randint(2, 9))

    def _roughen(self, text: str, score: float) -> str:
        """Type as people do: slips of the finger, shouting, missing capitals, exclamation marks, emoji."""
        if self._random.random() < 0.2:
            text = self._with_typo(text)
        if abs(score) > 1.5 and self._random.random() < 0.3:
            text = text.rstrip(".") + "!" * self._random.randint(1, 3)
        chance = self._random.random()
        if chance < 0.03:
            text = text.upper()
        elif chance < 0.18:
            text = text.lower()
        if self._random.random() < 0.05:
            text += " " + self._random.choice(EMOJI)
        return text

    def _with_typo(self, text: str) -> str:
        """Swap, drop or double one letter inside a longer word."""
        long_words = list(re.finditer(r"[^\W\d_]{5,}", text))
        if not long_words:
            return text
        word = self._random.choice(long_words)
        at = self._random.randrange(word.start() + 1, word.end() - 2)
        slip = self._random.choice((text[at + 1] + text[at], text[at], text[at] * 2 + text[at + 1]))
        return text[:at] + slip + text[at + 2 :]


def _as_sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."
