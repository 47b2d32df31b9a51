"""How long prompts and what follows them are, and how the cache of keys and values is named."""

#: How many tokens of a prompt are read.
PROMPT_TOKENS = 64
#: How many tokens are generated for each prompt, and for how many prompts.
NEW_TOKENS = 32
GENERATED_PROMPTS = 8

PAST, PRESENT = "past_key_values.", "present."


def prompt_limit(most_tokens: int) -> int:
    """Return how many tokens of a prompt are read by a model that takes so many: there must be room for new ones."""
    return max(1, min(PROMPT_TOKENS, most_tokens - NEW_TOKENS))
