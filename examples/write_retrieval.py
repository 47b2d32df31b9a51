"""Write the retrieval example: short notes about invented people, and questions that ask for one of them.

The questions use other words than the notes, so that an embedding model has to find the meaning. The same seed gives
the same files.
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parent / "retrieval"
NOTES, QUESTIONS, SEED = 240, 200, 7

NAMES = ("Mira", "Jonas", "Aiko", "Pedro", "Lena", "Tariq", "Olga", "Samuel", "Noor", "Bruno", "Greta", "Ivo")
PLACES = ("Bergen", "Porto", "Lyon", "Krakow", "Cork", "Ghent", "Graz", "Turku", "Malaga", "Leipzig")
#: What somebody does, and what a question calls it.
WORK = (
    ("repairs old clocks", "mends antique timepieces"),
    ("bakes rye bread", "makes dark loaves"),
    ("teaches chemistry at a school", "gives science lessons to pupils"),
    ("drives a tram", "works on public transport"),
    ("grows tomatoes in a greenhouse", "raises vegetables under glass"),
    ("translates novels", "puts books into another language"),
    ("builds violins", "makes string instruments"),
    ("treats sick horses", "is a vet for large animals"),
    ("writes software for hospitals", "programs medical systems"),
    ("guides tourists through caves", "shows visitors what is below the ground"),
)
#: What somebody does in the free time, and what a question calls it.
LEISURE = (
    ("swims in the sea before breakfast", "likes cold water early in the day"),
    ("plays chess by mail", "enjoys slow board games"),
    ("collects stamps from islands", "has a hobby of small printed pictures"),
    ("runs marathons", "covers long distances on foot"),
    ("paints portraits of neighbours", "makes pictures of people next door"),
    ("sings in a choir", "makes music with other voices"),
    ("keeps bees on the roof", "looks after insects above the house"),
    ("repaints old bicycles", "gives two wheels a new colour"),
)


def main() -> None:
    """Write both files."""
    draw = random.Random(SEED)
    people = [
        (name, place, work, leisure) for name in NAMES for place in PLACES for work in WORK for leisure in LEISURE
    ]
    chosen = draw.sample(people, NOTES)
    documents = [
        {
            "id": f"note-{number}",
            "text": f"{name} lives in {place} and {work[0]}. In the free time {name} {leisure[0]}.",
        }
        for number, (name, place, work, leisure) in enumerate(chosen)
    ]
    queries = [
        {"query": f"Who in {place} {work[1]} and {leisure[1]}?", "relevant": relevant(chosen, person)}
        for person in draw.sample(chosen, QUESTIONS)
        for _, place, work, leisure in [person]
    ]
    for name, rows in (("documents", documents), ("queries", queries)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (FOLDER / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def relevant(people: list, asked: tuple) -> dict[str, int]:
    """Return the notes that answer a question: 2 for all that it asks, 1 for the place and one of the others."""
    grades = {}
    for number, person in enumerate(people):
        same = [mine is theirs for mine, theirs in zip(person[1:], asked[1:], strict=True)]
        if all(same):
            grades[f"note-{number}"] = 2
        elif same[0] and any(same[1:]):
            grades[f"note-{number}"] = 1
    return grades


if __name__ == "__main__":
    main()
