"""Write GGUF files of a Qwen3 checkpoint: run by the interpreter that has llama-cpp-python and gguf, alone.

Usage: llama_quantize.py checkpoint folder type. The type is one of llama.cpp's, such as Q4_K_M, or F32 for weights as
they are. The weights of the checkpoint are float32. The file has no vocabulary: tokens go in and come out as numbers.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

#: Names of Qwen3's weights in a checkpoint and in GGUF, without the layer's prefix.
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def read_weights(checkpoint: Path, layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each weight in float32 with its name in GGUF; the head is the table of embeddings."""
    from safetensors import safe_open

    names = WHOLE | {
        f"model.layers.{layer}.{name}.weight": f"blk.{layer}.{short}.weight"
        for layer in range(layers)
        for name, short in LAYER.items()
    }
    with safe_open(checkpoint / "model.safetensors", "numpy") as weights:
        for name, short in names.items():
            yield short, weights.get_tensor(name)


def write_gguf(checkpoint: Path, file: Path) -> None:
    """Write the checkpoint, float32 with tied embeddings, as it is."""
    import gguf

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for name, values in read_weights(checkpoint, config["num_hidden_layers"]):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(checkpoint: str, folder: str, kind: str) -> None:
    """Quantize as llama.cpp's own command does, without an importance matrix."""
    made, whole = Path(folder) / "model.gguf", Path(folder) / "whole.gguf"
    write_gguf(Path(checkpoint), whole)
    if kind == "F32":
        whole.rename(made)
        return
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    status = llama_cpp.llama_model_quantize(str(whole).encode(), str(made).encode(), settings)
    whole.unlink()
    if status:
        raise SystemExit(f"llama.cpp cannot quantize {checkpoint} to {kind}: status {status}")


if __name__ == "__main__":
    main(*sys.argv[1:])
