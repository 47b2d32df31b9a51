"""How good the original and its variants are on a user's labelled data, and whether a variant is not worse.

``metrics`` has the registry of metrics, ``paired`` compares two models on the same inputs and judges the difference.
Labels and answers are sequences with one entry an input, in the same order. Their form depends on the kind of answer:

| kind | answer | label |
| --- | --- | --- |
| ``classification`` | ``{"scores": [number for each label]}``, logits or probabilities | index of the label |
| ``multi-label`` | ``{"scores": [number for each label]}``, logits or probabilities | set of indices, may be empty |
| ``regression`` | number | number |
| ``token-classification`` | label of each word, such as ``B-PER`` | label of each word |
| ``question-answering`` | text | list of accepted texts |
| ``text`` | text: a transcript, a translation, a summary | text, or list of accepted texts |
| ``pair`` | cosine similarity of the two embeddings, or the score of a reranker | number |
| ``retrieval`` | ``[(document id, score)]`` of one query, in any order | ``{document id: relevance}``, integers |
| ``language-model`` | ``{"log_likelihood": sum in nats, "tokens": count}`` | None |
| ``detection`` | ``[{"box": [left, top, right, bottom], "label": text or index, "score": number}]`` | without scores |
| ``segmentation`` | (H, W) array of class indices | (H, W) array of class indices; 255 and below 0: not labelled |
| ``depth`` | (H, W) array in the unit of the label | (H, W) array; not positive or not finite: not measured |

Scores of a classification are probabilities where each row is one: no number below 0, and a sum of 1. Of several labels
they are where all numbers of all inputs lie between 0 and 1. Otherwise they are logits.
"""
