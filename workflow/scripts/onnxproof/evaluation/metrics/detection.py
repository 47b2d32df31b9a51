"""Metrics of boxes around objects."""

import contextlib
import io
from typing import Any

import numpy as np

from onnxproof.evaluation.metric import Answers, Array, Labels, Metric, OfSubset

#: The largest number of boxes of an image that count, as in COCO.
BOXES = 100


def of_images(labels: Labels, answers: Answers) -> OfSubset:
    """Return the function that computes COCO's mean average precision of a part of the images.

    It is the mean over the labels that occur and over overlaps of 0.5 to 0.95, for objects of all sizes. The boxes are
    matched once; only the precision is computed again for each part.
    """
    from pycocotools.cocoeval import COCOeval

    names = sorted({str(box["label"]) for image in (*labels, *answers) for box in image})
    with contextlib.redirect_stdout(io.StringIO()):  # the library reports what it does
        evaluation = COCOeval(_coco(labels, names, None), _coco(answers, names, 1.0), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [BOXES]
        evaluation.evaluate()

    matches = evaluation.evalImgs  # one a label and image, the images of a label one after the other

    def precision(places: Array) -> float:
        # Not by params.imgIds: the library takes as many of the first images as that has, not these.
        kept = set(places.tolist())
        evaluation.evalImgs = [match if number % len(labels) in kept else None for number, match in enumerate(matches)]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        values = evaluation.eval["precision"]
        defined = values[values > -1]  # -1 where no image has an object of a label
        return float(defined.mean()) if defined.size else float("nan")

    return precision


def _coco(images: Labels, names: list[str], score: float | None) -> Any:
    """Return boxes in the form of pycocotools; ``score`` is that of a box without one."""
    from pycocotools.coco import COCO

    boxes = [(place + 1, box) for place, image in enumerate(images) for box in image]
    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": place + 1} for place in range(len(images))],
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {
                "id": number + 1,
                "image_id": image,
                "category_id": names.index(str(box["label"])) + 1,
                "bbox": [box["box"][0], box["box"][1], _width(box), _height(box)],
                "area": _width(box) * _height(box),
                "iscrowd": 0,
                "score": box.get("score", score),
            }
            for number, (image, box) in enumerate(boxes)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        dataset.createIndex()
    return dataset


def _width(box: dict[str, Any]) -> float:
    return float(box["box"][2] - box["box"][0])


def _height(box: dict[str, Any]) -> float:
    return float(box["box"][3] - box["box"][1])


def _mean_average_precision(labels: Labels, answers: Answers) -> float:
    return of_images(labels, answers)(np.arange(len(labels)))


METRICS = (
    Metric(
        name="mean_average_precision",
        title="average precision of boxes, mean over labels and overlaps of 0.5 to 0.95",
        kinds=("detection",),
        higher_is_better=True,
        library="pycocotools",
        value=_mean_average_precision,
        of_subset=of_images,
    ),
)
