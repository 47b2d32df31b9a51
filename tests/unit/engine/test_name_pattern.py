"""The regular expression for the names of models: it matches these and nothing else."""

import random
import re

from onnxproof.engine.name_pattern import any_of

NAMES = ["bert", "bert.v1", "bert-base", "b", "Bert", "x+y", "a_1", "a_10", "a_2"]


def test_it_matches_each_name_and_nothing_else():
    pattern = re.compile(any_of(NAMES))
    assert all(pattern.fullmatch(name) for name in NAMES)
    beginnings = {name[:end] for name in NAMES for end in range(len(name))}
    longer = {name + more for name in NAMES for more in ("", "0", ".", "é")}
    assert not [text for text in (beginnings | longer) - set(NAMES) if pattern.fullmatch(text)]
    assert not pattern.fullmatch("bertxv1")  # a dot is a dot


def test_it_finds_the_name_in_a_path_whichever_is_the_longer():
    path = re.compile(f"results/(?P<model>{any_of(NAMES)})/(?P<file>source|v1)$")
    assert [path.match(f"results/{name}/source")["model"] for name in NAMES] == NAMES
    assert path.match("results/ber/source") is None
    log = re.compile(rf"logs/(?P<model>{any_of(NAMES)})\.(?P<variant>v1|int8)\.log$")
    assert log.match("logs/bert.v1.log").groupdict() == {"model": "bert", "variant": "v1"}
    assert log.match("logs/bert.v1.int8.log").groupdict() == {"model": "bert.v1", "variant": "int8"}


def test_one_name_is_itself():
    assert any_of(["bert"]) == "bert"


def test_it_agrees_with_the_plain_alternatives_on_random_names():
    chance = random.Random(0)
    texts = ["".join(chance.choices("ab.-", k=chance.randint(1, 5))) for _ in range(400)]
    names, others = sorted(set(texts[:200])), texts[200:]
    plain, tree = (re.compile(pattern) for pattern in ("|".join(map(re.escape, names)), any_of(names)))
    assert [bool(tree.fullmatch(text)) for text in others] == [bool(plain.fullmatch(text)) for text in others]
