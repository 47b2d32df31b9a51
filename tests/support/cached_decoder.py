"""A tiny decoder with a cache, as the optimizer leaves one: rotated and grouped queries, and a mask that is added."""

import numpy as np
import onnx
from onnx import numpy_helper, parser

VOCABULARY, HEADS, SIZE, LAYERS = 29, 4, 8, 2
WIDTH = HEADS * SIZE
#: The operators of a layer; ``{0}`` is its number, and ``__`` stands for a dot, which the syntax does not allow.
PRODUCTS = """
    q_turned{0} = com.microsoft.RotaryEmbedding(q_first{0}, position_ids, cosines, sines)
    k_turned{0} = com.microsoft.RotaryEmbedding(k_first{0}, position_ids, cosines, sines)
    present__{0}__key = Concat<axis = 2>(past_key_values__{0}__key, k_turned{0})
    present__{0}__value = Concat<axis = 2>(past_key_values__{0}__value, v_first{0})
    keys{0} = Transpose<perm = [0, 1, 3, 2]>(present__{0}__key)
"""
GROUPED = """
    q_grouped{0} = Reshape(q_turned{0}, in_groups)
    products{0} = MatMul(q_grouped{0}, keys{0})
    scores{0} = Mul(products{0}, factor)
    masked{0} = Add(scores{0}, mask_of_groups)
    shares{0} = Softmax<axis = -1>(masked{0})
    context{0} = MatMul(shares{0}, present__{0}__value)
    apart{0} = Reshape(context{0}, in_heads)
    by_token{0} = Transpose<perm = [0, 2, 1, 3]>(apart{0})
    answer{0} = Reshape(by_token{0}, joined)
"""
#: Where heads have keys of their own: the same without groups, with a division, and the mask in front.
ALONE = """
    products{0} = MatMul(q_turned{0}, keys{0})
    scores{0} = Div(products{0}, divisor)
    masked{0} = Add(mask, scores{0})
    shares{0} = Softmax<axis = 3>(masked{0})
    context{0} = MatMul(shares{0}, present__{0}__value)
    by_token{0} = Transpose<perm = [0, 2, 1, 3]>(context{0})
    answer{0} = Reshape(by_token{0}, joined)
"""
#: Where the mask is added to each head's rows.
APART = """
    q_grouped{0} = Reshape(q_turned{0}, in_groups)
    products{0} = MatMul(q_grouped{0}, keys{0})
    scores{0} = Mul(products{0}, factor)
    scores_apart{0} = Reshape(scores{0}, in_heads)
    masked{0} = Add(scores_apart{0}, mask)
    shares{0} = Softmax(masked{0})
    shares_grouped{0} = Reshape(shares{0}, in_groups)
    context{0} = MatMul(shares_grouped{0}, present__{0}__value)
    apart{0} = Reshape(context{0}, in_heads)
    by_token{0} = Transpose<perm = [0, 2, 1, 3]>(apart{0})
    answer{0} = Reshape(by_token{0}, joined)
"""
OPERATOR = """
    q_flat{0} = Reshape(q_heads{0}, joined)
    k_flat{0} = Reshape(k_heads{0}, joined)
    q_turned{0} = com.microsoft.RotaryEmbedding(q_flat{0}, position_ids, cosines, sines)
    k_turned{0} = com.microsoft.RotaryEmbedding(k_flat{0}, position_ids, cosines, sines)
    v_flat{0} = Reshape(v_heads{0}, joined)
    answer{0}, present__{0}__key, present__{0}__value = com.microsoft.MultiHeadAttention<num_heads = 4>(
        q_turned{0}, k_turned{0}, v_flat{0}, , , mask, past_key_values__{0}__key, past_key_values__{0}__value)
"""
#: By name: the attention, and into how many groups heads are divided that share keys and values.
FORMS = {
    "grouped": (PRODUCTS + GROUPED, 2),
    "grouped, heads apart": (PRODUCTS + APART, 2),
    "alone": (PRODUCTS + ALONE, HEADS),
    "operator": (OPERATOR, HEADS),
    "windowed": (PRODUCTS + GROUPED, 2),
}
LAYER = """
    q_made{0} = MatMul(x{0}, wq{0})
    k_made{0} = MatMul(x{0}, wk{0})
    v_made{0} = MatMul(x{0}, wv{0})
    q_heads{0} = Reshape(q_made{0}, split_heads)
    k_heads{0} = Reshape(k_made{0}, split_groups)
    v_heads{0} = Reshape(v_made{0}, split_groups)
    q_first{0} = Transpose<perm = [0, 2, 1, 3]>(q_heads{0})
    k_first{0} = Transpose<perm = [0, 2, 1, 3]>(k_heads{0})
    v_first{0} = Transpose<perm = [0, 2, 1, 3]>(v_heads{0})
    {attention}
    made{0} = MatMul(answer{0}, wo{0})
    x{1} = Add(x{0}, made{0})
"""
#: The mask is as large as the shapes of two caches say, one of them read whole.
MASK = """
    batch = Shape<start = 0, end = 1>(past_key_values__1__value)
    cache_shape = Shape(past_key_values__0__key)
    past_of_shape = Gather(cache_shape, two)
    past = Shape<start = 2, end = 3>(past_key_values__1__key)
    fed = Shape<start = 1, end = 2>(input_ids)
    length = Squeeze(past, first)
    new = Squeeze(fed, first)
    total = Add(length, new)
    whole = Add(past_of_shape, fed)
    places = Range(zero, total, one)
    fed_from_zero = Range(zero, new, one)
    fed_places = Add(fed_from_zero, length)
    rows = Unsqueeze(fed_places, last_axis)
    earlier = LessOrEqual(places, rows)
    given = Cast<to = 9>(attention_mask)
    given_rows = Unsqueeze(given, middle_axes)
    visible = And(earlier, given_rows)
    mask_shape = Concat<axis = 0>(batch, one_row, fed, whole)
    visible_rows = Expand(visible, mask_shape)
    mask = Where(visible_rows, shown, hidden)
    mask_of_groups = Concat<axis = 2>(mask, mask)
    x0 = Gather(table, input_ids)
"""
#: What a mask of the last five tokens has in the place of the one line.
WINDOW = """
    first_rows = Sub(rows, width)
    recent = Greater(places, first_rows)
    in_window = And(earlier, recent)
    visible = And(in_window, given_rows)
"""


def cached_decoder(form: str = "grouped", seed: int = 0) -> onnx.ModelProto:
    """Return a decoder of ``LAYERS`` attentions of one of ``FORMS``."""
    rng = np.random.default_rng(seed)
    attention, groups = FORMS[form]
    mask = MASK.replace("    visible = And(earlier, given_rows)\n", WINDOW) if form == "windowed" else MASK
    text = mask + "".join(LAYER.replace("{attention}", attention).format(layer, layer + 1) for layer in range(LAYERS))
    cache = f"float[batch, {groups}, past_tokens, {SIZE}]"
    present = f"float[batch, {groups}, all_tokens, {SIZE}]"
    names = [f"{layer}__{part}" for layer in range(LAYERS) for part in ("key", "value")]
    inputs = [
        "int64[batch, tokens] input_ids",
        "int64[batch, all_tokens] attention_mask",
        "int64[batch, tokens] position_ids",
        *(f"{cache} past_key_values__{name}" for name in names),
    ]
    outputs = [f"float[batch, tokens, {VOCABULARY}] logits", *(f"{present} present__{name}" for name in names)]
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 18, "com.microsoft": 1]> decoder ({", ".join(inputs)}) '
        f"=> ({', '.join(outputs)}) {{ {text} logits = MatMul(x{LAYERS}, head) }}"
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        for tensors in (node.input, node.output):
            tensors[:] = [name.replace("__", ".") for name in tensors]
    for value in (*model.graph.input, *model.graph.output):
        value.name = value.name.replace("__", ".")
    angles = np.arange(64)[:, None] * 0.7 ** np.arange(SIZE // 2)
    integers = {"zero": 0, "one": 1, "two": [2], "first": [0], "last_axis": [1], "middle_axes": [1, 2], "one_row": [1]}
    integers |= {"joined": [0, 0, -1], "split_heads": [0, 0, HEADS, SIZE], "split_groups": [0, 0, groups, SIZE]}
    integers |= {"width": 5, "in_groups": [0, groups, -1, 0], "in_heads": [0, HEADS, -1, 0]}
    floats = {"cosines": np.cos(angles), "sines": np.sin(angles), "factor": SIZE**-0.5, "divisor": SIZE**0.5}
    floats |= {"shown": 0.0, "hidden": np.finfo(np.float32).min, "table": rng.normal(size=(VOCABULARY, WIDTH))}
    floats["head"] = rng.normal(size=(WIDTH, VOCABULARY)) / WIDTH**0.5
    for layer in range(LAYERS):
        for name, columns in (("q", WIDTH), ("k", groups * SIZE), ("v", groups * SIZE), ("o", WIDTH)):
            floats[f"w{name}{layer}"] = rng.normal(size=(WIDTH, columns)) / WIDTH**0.5
    used = {name for node in model.graph.node for name in node.input}
    for constants, dtype in ((integers, np.int64), (floats, np.float32)):
        stored = {name: numpy_helper.from_array(np.array(values, dtype), name) for name, values in constants.items()}
        model.graph.initializer.extend(tensor for name, tensor in stored.items() if name in used)
    return model
