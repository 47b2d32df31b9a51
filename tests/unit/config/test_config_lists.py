"""Models from tables and from further configurations: what they may hold."""

from pathlib import Path

from calls import count_calls
from onnxproof.config.lists import load_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "org/name", "revision": COMMIT}


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


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


def test_work_grows_linearly_with_the_number_of_rows(tmp_path):
    counts = []
    for rows in (100, 400):
        lines = [f"m{number},org/m{number},{COMMIT},1" for number in range(rows)]
        write(tmp_path, models_dot_csv="\n".join(["name,hub,revision,benchmark.threads", *lines]))
        load_models({"models_from": ["models.csv"]}, tmp_path)
        counts.append(count_calls(lambda: load_models({"models_from": ["models.csv"]}, tmp_path)))
    assert counts[1] < 4.2 * counts[0]
