"""Models from tables and from further configurations: what they may hold, and how a mistake in them is told."""

import re
from pathlib import Path

import pytest

from calls import count_calls
from onnxproof.config.lists import load_models
from onnxproof.config.resolve import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "org/name", "revision": COMMIT}


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def told(folder: Path, *patterns: str, **config) -> str:
    with pytest.raises(ConfigError) as caught:
        load_models({"models_from": list(patterns)} | config, folder)
    return str(caught.value)


def test_a_row_is_a_model_and_a_column_a_key(tmp_path):
    table = (
        "name,hub,revision,task,variants,allow_pickle,benchmark.threads,benchmark.pytorch,parity.thresholds.int8.cosine_min\n"
        f'a,org/a,{COMMIT},text-classification,fp32 int8,TRUE,"1, 2",false,0.98\n'
        "\n"
        f"b,org/b,{COMMIT},null,,,,,null\n"
    )
    write(tmp_path, models_dot_csv=table, models_dot_tsv=table.replace("a,org/a", "c,org/a").replace(",", "\t"))
    settings = load_models({"models_from": ["models.csv"], "variants": ["fp32"]}, tmp_path)
    assert list(settings) == ["a", "b"]
    assert settings["a"]["source"] == {"hub": "org/a", "revision": COMMIT}
    assert settings["a"]["task"] == "text-classification"
    assert settings["a"]["variants"] == ["fp32", "int8"]
    assert settings["a"]["allow_pickle"] is True
    assert settings["a"]["benchmark"]["threads"] == [1, 2]
    assert settings["a"]["benchmark"]["pytorch"] is False
    assert settings["a"]["parity"]["thresholds"]["int8"]["cosine_min"] == 0.98
    assert settings["b"]["variants"] == ["fp32"]  # an empty cell leaves the global setting
    assert settings["b"]["task"] is None
    assert "cosine_min" not in settings["b"]["parity"]["thresholds"]["int8"]


def test_a_configuration_sets_its_own_models_only(tmp_path):
    one = f"benchmark: {{threads: [7]}}\nmodels:\n  one: {{source: {{hub: org/one, revision: {COMMIT}}}}}\n"
    two = f"models:\n  two: {{source: {{hub: org/two, revision: {COMMIT}}}}}\n"
    write(tmp_path, models__one_dot_yaml=one, models__two_dot_yml=two)
    config = {"models": {"own": {"source": HUB}}, "models_from": ["models/*.yaml", "models/*.yml"]}
    settings = load_models(config | {"benchmark": {"threads": [3], "rounds": 5}}, tmp_path)
    assert {name: model["benchmark"]["threads"] for name, model in settings.items()} == {
        "own": [3],
        "one": [7],
        "two": [3],
    }
    assert settings["one"]["benchmark"]["rounds"] == 5


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "models.csv: is empty: its first line must name the columns"),
        (f"hub,revision\na/b,{COMMIT}\n", "models.csv, line 1: has no column name"),
        ("name,hubb\na,b\n", r"models.csv, line 1: the column 'hubb' is unknown. Did you mean 'hub'\?"),
        ("name,hub,hub\na,b,c\n", "models.csv, line 1: the column 'hub' is there twice"),
        ("name,hub\na,b,c,d\n", "models.csv: not a table: .*line 2"),
        ("name,path\n,x\n", "models.csv, line 2, column name: is empty"),
        ("name,path\na,.\n\na,.\n", "models.csv, line 4, column name: the model 'a' was given on line 2 already"),
        (
            f"name,hub,revision,benchmark.threads\na,a/b,{COMMIT},1 many\n",
            r"models.csv, line 2, column benchmark.threads: models.a.benchmark.threads\[1\] is 'many', must be a whole",
        ),
        (
            "name,path\na,absent\n",
            "models.csv, line 2, column path: models.a.source.path is 'absent', must be",
        ),
        ("name,hub\na,a/b\n", "models.csv, line 2: models.a.source.revision is missing"),
        (f"name,hub,revision\na/b,a/b,{COMMIT}\n", "models.csv, line 2: models.'a/b': a model's name must"),
        (
            f"name,hub,revision\na,a/b,{COMMIT}\na.b,a/b,{COMMIT[:7]}\n",
            "models.csv, line 3, column revision: models.a.b.source.revision is '0123456', a shortened commit",
        ),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_place(tmp_path, table, message):
    write(tmp_path, models_dot_csv=table)
    assert re.search(f"^the configuration has a problem: {message}", told(tmp_path, "models.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "models: {a: {source: {path: x}, thraeds: 1}}",
            r"more.yaml: models.a.thraeds .* is an unknown key",
        ),
        ("models: {a: [}", "more.yaml: not YAML: line 1, column"),
        ("models_from: [x.csv]\n", "more.yaml: models_from is allowed in config.yaml only"),
        ("benchmark: {}\n", "more.yaml: models is missing"),
        ("", "more.yaml: is empty"),
    ],
)
def test_a_mistake_in_a_further_configuration_is_told_with_its_file(tmp_path, text, message):
    write(tmp_path, more_dot_yaml=text)
    assert re.search(message, told(tmp_path, "more.yaml"))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("absent.csv", r"models_from\[0\] is 'absent.csv', but there is no such file"),
        ("no/*.yaml", r"models_from\[0\] is 'no/\*.yaml', but there is no such file"),
        ("models.xlsx", r"models_from\[0\] is 'models.xlsx', must end in one of: .csv, .tsv, .yaml, .yml"),
    ],
)
def test_a_pattern_without_a_file_is_told(tmp_path, pattern, message):
    assert re.search(message, told(tmp_path, pattern))


def test_a_model_listed_in_two_files_is_told(tmp_path):
    row = f"org/a,{COMMIT}"
    write(tmp_path, a_dot_csv=f"name,hub,revision\nx,{row}\n", b_dot_csv=f"name,hub,revision\ny,{row}\nX,{row}\n")
    assert "b.csv, line 3: models.X: a.csv lists the model 'x' already" in told(tmp_path, "*.csv")
    assert "config.yaml lists the model 'x' already" in told(tmp_path, "a.csv", models={"x": {"source": HUB}})


def test_files_without_any_model_are_told(tmp_path):
    write(tmp_path, models_dot_csv="name,hub\n")
    assert "models.csv: models is empty" in told(tmp_path, "models.csv")
    assert "models is missing" in told(tmp_path)


def test_work_grows_linearly_with_the_number_of_rows(tmp_path):
    counts = []
    for rows in (100, 400):
        lines = [f"m{number},org/m{number},{COMMIT},1" for number in range(rows)]
        write(tmp_path, models_dot_csv="\n".join(["name,hub,revision,benchmark.threads", *lines]))
        load_models({"models_from": ["models.csv"]}, tmp_path)
        counts.append(count_calls(lambda: load_models({"models_from": ["models.csv"]}, tmp_path)))
    assert counts[1] < 4.2 * counts[0]
