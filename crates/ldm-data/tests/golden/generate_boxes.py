"""Makes boxes.safetensors: boxes of one image of 40x30 by taming-transformers' own functions.

    LDM_REF=<folder with taming-transformers> python generate_boxes.py
"""
import os
import pathlib
import random
import sys
import types

import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, os.path.join(os.environ["LDM_REF"], "taming-transformers"))
sys.modules["taming.data.image_transforms"] = types.ModuleType("taming.data.image_transforms")
sys.modules["taming.data.image_transforms"].convert_pil_to_tensor = None

from taming.data.conditional_builder.utils import FULL_CROP, filter_annotations, horizontally_flip_bbox  # noqa: E402
from taming.data.conditional_builder.utils import rescale_annotations  # noqa: E402
from taming.data.helper_types import Annotation  # noqa: E402


def main():
    rng = random.Random(0)
    boxes = [(0.0, 0.0, 0.1, 1.0), (0.05, 0.2, 0.2, 0.3), (0.1, 0.1, 0.8, 0.8), (0.9, 0.5, 0.1, 0.5), (0.0, 0.0, 1.0, 1.0)]
    for _ in range(12):
        x, y = rng.uniform(0, 0.9), rng.uniform(0, 0.9)
        boxes.append((x, y, rng.uniform(0.02, 1 - x), rng.uniform(0.02, 1 - y)))
    annotations = [Annotation(area=None, image_id=None, bbox=box, category_id=None, category_no=number, id=None)
                   for number, box in enumerate(boxes)]
    crop = (0.5 - 30 / 40 / 2, 0.0, 30 / 40, 1.0)  # CenterCropReturnCoordinates.get_bbox_of_center_crop(40, 30)
    tensors = {"boxes": np.array(boxes)}
    for word, flip in [("straight", False), ("flipped", True)]:
        kept = filter_annotations(annotations, crop)
        for name, within in [("crop", crop), ("whole", FULL_CROP)]:
            placed = rescale_annotations(kept, within, flip)
            tensors[f"{word}.{name}"] = np.array([[a.category_no, *a.bbox] for a in placed])
        tensors[f"{word}.shown"] = np.array(horizontally_flip_bbox(crop) if flip else crop)
    save_file(tensors, pathlib.Path(__file__).with_name("boxes.safetensors"),
              metadata={"reference": "taming-transformers conditional_builder/utils.py", "numpy": np.__version__})


main()
