"""What a graph's metadata say of it."""

from typing import Any

#: The entry of a graph's metadata that is "true" where one buffer may be the cache that it takes and the one that it
#: gives, longer than the text. onnxruntime-genai has this word for it.
SHARE_BUFFER = "past_present_share_buffer"


def read_metadata(model: Any) -> dict[str, str]:
    """Return the metadata of an ``onnx.ModelProto``."""
    return {entry.key: entry.value for entry in model.metadata_props}
