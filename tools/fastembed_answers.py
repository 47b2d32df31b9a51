"""Embed the texts given as JSON on standard input: python fastembed_answers.py FOLDER FILE DIMENSIONS

Runs where fastembed is installed: an environment of its own, because it is no dependency of the project.
"""

import json
import sys

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

folder, file, dimensions = sys.argv[1:]
TextEmbedding.add_custom_model(
    model="release",
    pooling=PoolingType.MEAN,
    normalization=True,
    sources=ModelSource(url="file:///given-by-specific-model-path"),
    dim=int(dimensions),
    model_file=file,
)
model = TextEmbedding("release", specific_model_path=folder, threads=1)
json.dump([next(iter(model.embed([text]))).tolist() for text in json.load(sys.stdin)], sys.stdout)
