"""Makes layout.json: boxes and their tokens by taming-transformers' builder.

    LDM_REF=<folder with taming-transformers> python generate_layout.py

Boxes and crops are stored as the builder has them before it makes tokens: rescaled and flipped by its own functions.
"""
import json
import os
import pathlib
import random
import sys
import types

import torch

sys.path.insert(0, os.path.join(os.environ["LDM_REF"], "taming-transformers"))
# It imports torchvision functions that are gone, for images; nothing here needs them.
stub = types.ModuleType("taming.data.image_transforms")
stub.convert_pil_to_tensor = None
sys.modules["taming.data.image_transforms"] = stub

from taming.data.conditional_builder import objects_bbox, objects_center_points  # noqa: E402
from taming.data.conditional_builder.utils import FULL_CROP, filter_annotations, horizontally_flip_bbox  # noqa: E402
from taming.data.conditional_builder.utils import rescale_annotations  # noqa: E402
from taming.data.helper_types import Annotation  # noqa: E402

objects_center_points.random = types.SimpleNamespace(shuffle=lambda items: None)  # the data's, not the tokens'
HERE = pathlib.Path(__file__).parent


def boxes(rng, count):
    def one():
        x, y = rng.uniform(0, 0.9), rng.uniform(0, 0.9)
        return x, y, rng.uniform(0.01, 1 - x), rng.uniform(0.01, 1 - y)

    return [
        Annotation(area=None, image_id=None, bbox=one(), category_id=None, category_no=rng.randrange(340), id=None,
                   source=None, confidence=None, is_group_of=1, is_occluded=None, is_depiction=None, is_inside=None)
        for _ in range(count)
    ]


def exact(sides):
    """As texts: serde_json may read a number one last bit off, which decides between two places of the grid."""
    return [repr(float(side)) for side in sides]


def main():
    rng = random.Random(0)
    cases = []
    counts = [0, 1, 2, 5, 13, 29, 30, 31, 45]
    crops = [None, (0.25, 0.0, 0.5, 1.0), (0.0, 0.3, 1.0, 0.6666), (0.125, 0.5, 0.25, 0.375)]
    for encode_crop in (True, False):
        builder = objects_bbox.ObjectsBoundingBoxConditionalBuilder(340, 30, 8192, encode_crop, True, False)
        for number, count in enumerate(counts):
            for flip in (False, True):
                crop = crops[number % len(crops)]
                annotations = boxes(rng, count)
                if count > 2:  # halves between two places, edges and a box past the image
                    annotations[0] = annotations[0]._replace(bbox=(0.5 / 89, 1.5 / 89, 43 / 89, 44 / 89))
                    annotations[1] = annotations[1]._replace(bbox=(0.5, 0.5, 0.9, 0.5))
                tokens = builder.build(list(annotations), crop, flip)
                assert tokens.shape == (builder.embedding_dim,)
                seen = crop or FULL_CROP
                kept = filter_annotations(annotations[:30], seen)
                kept = rescale_annotations(kept, FULL_CROP if encode_crop else seen, flip)
                seen = horizontally_flip_bbox(seen) if flip else seen
                cases.append({
                    "boxes": [[a.category_no, exact(a.bbox)] for a in kept],
                    "crop": exact(seen) if encode_crop else None,
                    "tokens": tokens.tolist(),
                })
    document = {"reference": "taming-transformers conditional_builder/objects_bbox.py", "torch": torch.__version__,
                "tolerance": "equal", "cases": cases}
    (HERE / "layout.json").write_text(json.dumps(document))


main()
