"""Write onnxproof/checkpoint/config_keys.txt: every key that a configuration class of the installed transformers knows.

`python tools/list_config_keys.py` after another version of transformers was locked. A key of a ``config.json`` that is
in none of them, and is spelled almost like one that changes answers, is a slip of the pen, which transformers ignores.
"""

import dataclasses

import project_path
from onnxproof.checkpoint.config_values import KEYS_FILE

ROOT = project_path.ROOT


def known_keys() -> set[str]:
    """Return the fields of all configuration classes, and the other names that these have."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    list(CONFIG_MAPPING.values())  # imports them all
    classes, waiting = set(), [PreTrainedConfig]
    while waiting:
        kind = waiting.pop()
        if kind not in classes:
            classes.add(kind)
            waiting += kind.__subclasses__()
    keys: set[str] = set()
    for kind in classes:
        keys |= {field.name for field in dataclasses.fields(kind)} | set(kind.attribute_map)
    return {key for key in keys if not key.startswith("_")}


if __name__ == "__main__":
    KEYS_FILE.write_text("\n".join(sorted(known_keys())) + "\n", encoding="utf-8")
