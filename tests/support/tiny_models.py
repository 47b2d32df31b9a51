"""Tiny models with random weights, made from transformers' own config classes."""

from pathlib import Path

WORDS = [
    "the",
    "a",
    "this",
    "that",
    "it",
    "is",
    "was",
    "not",
    "very",
    "really",
    "quite",
    "good",
    "great",
    "bad",
    "awful",
    "fine",
    "battery",
    "screen",
    "cable",
    "price",
    "works",
    "broke",
    "after",
    "before",
    "two",
    "weeks",
    "i",
    "we",
    "they",
    "love",
    "hate",
    "would",
    "buy",
    "again",
    "never",
    "always",
    "and",
    "but",
    "or",
    "with",
    "without",
]


def write_tokenizer(folder: Path, longest: int = 64):
    """Save a WordPiece tokenizer that knows a few words and all ASCII letters; return its vocabulary's size."""
    import string

    from transformers import BertTokenizerFast

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase, *string.digits, *".,!?'-"]
    pieces += [f"##{character}" for character in string.ascii_lowercase + string.digits] + WORDS
    vocabulary = folder / "vocab.txt"
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    BertTokenizerFast(str(vocabulary), model_max_length=longest).save_pretrained(folder)
    return len(set(pieces))


def bert_config(vocabulary_size: int, **overrides):
    from transformers import BertConfig

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=vocabulary_size, **{"max_position_embeddings": 64} | sizes | overrides)


def save_classifier(folder: Path, seed: int = 0) -> Path:
    """Save a five-class BERT classifier whose answers differ clearly between inputs."""
    import torch
    from transformers import BertForSequenceClassification

    size = write_tokenizer(folder)
    torch.manual_seed(seed)
    model = BertForSequenceClassification(bert_config(size, num_labels=5, initializer_range=0.2))
    model.save_pretrained(folder)
    return folder


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a bare BERT encoder."""
    import torch
    from transformers import BertModel

    size = write_tokenizer(folder)
    torch.manual_seed(seed)
    BertModel(bert_config(size, initializer_range=0.2)).save_pretrained(folder)
    return folder


def save_sentence_transformer(folder: Path, seed: int = 0) -> Path:
    """Save a sentence-transformer: encoder, mean pooling, normalization."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    encoder = save_encoder(folder.parent / f"{folder.name}-encoder", seed)
    transformer = Transformer(str(encoder), max_seq_length=48)
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").save(str(folder))
    return folder
