"""JSON files of a checkpoint. Libraries decide on their shape, so these names only say which file it is."""

from typing import Any, TypeAlias

#: ``config.json``, or a part of it that configures a network of its own.
ModelConfig: TypeAlias = dict[str, Any]
#: ``preprocessor_config.json``, ``processor_config.json``, or the part of it that is about images or sounds.
PreprocessorConfig: TypeAlias = dict[str, Any]
#: ``tokenizer_config.json``.
TokenizerConfig: TypeAlias = dict[str, Any]
#: ``tokenizer.json``, the format of the library tokenizers.
TokenizerFile: TypeAlias = dict[str, Any]
