"""Generates synthetic scenes with the models of configs/experiments/scenes, detects what the images show, and counts how
often it is what the condition requested.

    cargo build --release
    python3 docs/tools/gallery/scenes.py OUT [instrument] [text] [layout] [semantic] [inpaint] [upscale] [classes]

Run it from the root of a checkout whose runs/ hold these models. OUT gets a contact sheet per task. The environment
variables LDM, RUNS and COUNT name the binary (default target/release/ldm), the folder of runs (runs) and the number of
images per task (100). Needs numpy, SciPy and Pillow.

The detector: the border gives the background (the nearest of six colors); a pixel belongs to an object where it is nearer
to a color that occurs on that background than to the background, patterns included on both sides; an object's color is
the one nearest to its pixels on average; its shape is the one whose outline, cropped and scaled to the same box, has the
largest IoU. The outlines are label maps of training scenes. `instrument` runs the detector on true scenes and on their
reconstructions, which measures the detector's own errors. `upscale` needs `ldm weights get efficientnet-lite0`.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

LDM = os.environ.get("LDM", "target/release/ldm")
RUNS = Path(os.environ.get("RUNS", "runs"))
COUNT = int(os.environ.get("COUNT", "100"))
SIDE = 32
# crates/ldm-data/src/scenes/words.rs and paint.rs
SHAPES = "circle square triangle star heart ring cross diamond moon arrow".split()
COLORS = {
    "red": (218, 40, 40), "orange": (247, 132, 20), "yellow": (250, 212, 30), "green": (34, 156, 72),
    "blue": (40, 98, 232), "purple": (136, 58, 196), "pink": (244, 126, 182), "brown": (128, 78, 44),
    "black": (26, 26, 30), "white": (250, 250, 250),
}
GROUNDS = {
    "cream": (250, 238, 210), "mint": (192, 230, 208), "sky": (184, 216, 242), "lilac": (216, 204, 240),
    "slate": (92, 106, 124), "navy": (26, 34, 72),
}
PLACES = ["at the top left", "at the top", "at the top right", "on the left", "in the center", "on the right",
          "at the bottom left", "at the bottom", "at the bottom right"]
# crates/ldm-data/src/sheet.rs: class 0 is the background, and from class 10 on the colors are half as bright.
SHEET = np.array([
    (30, 118, 179), (255, 126, 13), (43, 159, 43), (213, 38, 39), (147, 102, 188), (139, 85, 74), (226, 118, 193),
    (126, 126, 126), (187, 188, 33), (22, 189, 206), (15, 59, 89),
], float)


def blend(a, b, share):
    return tuple(x + (y - x) * share for x, y in zip(a, b))


def shade(base):
    bright = np.dot(base, (0.299, 0.587, 0.114)) > 150
    return blend(base, (0, 0, 0), 0.28) if bright else blend(base, (255, 255, 255), 0.42)


def tints(base):
    dark = base[1] < 128
    return [blend(base, (255, 255, 255), 0.22 if dark else 0.75),
            blend(base, (255, 255, 255), 0.1) if dark else blend(base, (0, 0, 0), 0.07)]


def shows(ground, color):
    """True if scenes have objects of this color on this background."""
    a, b = GROUNDS[ground], COLORS[color]
    mean = (a[0] + b[0]) / 512
    r, g, b = (x - y for x, y in zip(a, b))
    return ((2 + mean) * r * r + 4 * g * g + (3 - mean) * b * b) ** 0.5 >= 190


def away(pixels, a, b):
    """The distance of pixels from the nearest mixture of two colors."""
    a, b = np.array(a, float), np.array(b, float)
    share = np.clip((pixels - a) @ (b - a) / max((b - a) @ (b - a), 1e-9), 0, 1)
    return np.linalg.norm(pixels - a - share[..., None] * (b - a), axis=-1)


def from_ground(pixels, ground):
    return np.min([away(pixels, GROUNDS[ground], tint) for tint in tints(GROUNDS[ground])], 0)


def from_color(pixels, color):
    return away(pixels, COLORS[color], shade(COLORS[color]))


def detect(image, outlines):
    """The background, the foreground mask, and the color, shape, box and size of each object, the largest first."""
    pixels = np.asarray(image.convert("RGB"), float)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = min(GROUNDS, key=lambda each: np.median(from_ground(border, each)))
    near = np.min([from_color(pixels, color) for color in COLORS if shows(ground, color)], 0)
    mask = near < from_ground(pixels, ground)
    # Single pixels are not objects.
    parts, count = ndimage.label(mask)
    objects = []
    for number in range(1, count + 1):
        part = parts == number
        if part.sum() < 12:
            mask &= ~part
            continue
        inner = ndimage.binary_erosion(part)
        seen = pixels[inner if inner.sum() >= 6 else part]
        color = min(COLORS, key=lambda each: from_color(seen, each).mean())
        high, wide = ndimage.find_objects(part.astype(int))[0]
        box = (wide.start / SIDE, high.start / SIDE, (wide.stop - wide.start) / SIDE, (high.stop - high.start) / SIDE)
        shape = max(SHAPES, key=lambda each: max(iou(cut(part), outline) for outline in outlines[each]))
        objects.append({"color": color, "shape": shape, "box": box, "pixels": int(part.sum())})
    return ground, mask, sorted(objects, key=lambda each: -each["pixels"])


def cut(mask, side=24):
    """A mask cropped to its box, centered in a square, scaled to `side`."""
    high, wide = ndimage.find_objects(mask.astype(int))[0]
    mask = mask[high, wide]
    longest = max(mask.shape)
    square = np.zeros((longest, longest), np.uint8)
    top, left = (longest - mask.shape[0]) // 2, (longest - mask.shape[1]) // 2
    square[top : top + mask.shape[0], left : left + mask.shape[1]] = mask * 255
    return np.asarray(Image.fromarray(square).resize((side, side), Image.BILINEAR)) >= 128


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def box_iou(a, b):
    across, down = (max(min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]), 0) for k in (0, 1))
    return across * down / (a[2] * a[3] + b[2] * b[3] - across * down)


def ldm(*words):
    done = subprocess.run([LDM, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ldm {' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def scenes(work, count, size=SIDE, **params):
    """Images and label maps of a data set, from the contact sheet of `ldm data preview`, and its first captions."""
    params = {"size": size, "count": count, **params}
    config = {
        "model": {"target": "kl", "params": {"embed_dim": 4, "ddconfig": {
            "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "num_res_blocks": 1,
            "attn_resolutions": []}}},
        "data": {"target": "data_module", "params": {"batch_size": 1, "train": {"target": "scenes", "params": params}}},
        "train": {"steps": 1, "learning_rate": 1e-3},
    }
    (work / "set.yaml").write_text(json.dumps(config))
    ldm("data", "preview", work / "set.yaml", "--out", work / "sheet.png", "--force", "-n", count)
    sheet = np.asarray(Image.open(work / "sheet.png"))
    columns, step = (sheet.shape[1] - 2) // (size + 2), size + 2
    cells = []
    for k in range(3 * count):
        y, x = 2 + k // columns * step, 2 + k % columns * step
        cells.append(sheet[y : y + size, x : x + size])
    found = []
    for k in range(count):
        gap = np.linalg.norm(cells[3 * k + 1][..., None, :].astype(float) - SHEET, axis=-1)
        assert gap.min(-1).max() < 2, "not a label map"
        found.append((Image.fromarray(cells[3 * k]), gap.argmin(-1)))
    return found, json.loads(ldm("data", "info", work / "set.yaml", "--json"))["captions"]


def known_outlines(work):
    """Masks of each shape, in several rotations."""
    outlines = {shape: [] for shape in SHAPES}
    for _, labels in scenes(work, 60, 64, objects=[1, 1], smallest="large", seed=1)[0]:
        outlines[SHAPES[labels.max() - 1]].append(cut(labels > 0))
    return outlines


def words_of(caption):
    """Color, shape, background and place of a caption of one object."""
    words = caption.replace(",", " ,").split()
    shape = next(word for word in words if word in SHAPES)
    color = words[words.index(shape) - 1]
    return color, shape, words[-2], caption.split(f"{shape} ")[1].split(",")[0]


def count_words(images, captions, outlines):
    """Counts how often the largest object has the requested color, shape and place, and the background is right."""
    right = np.zeros((len(images), 5))
    for row, image, caption in zip(right, images, captions):
        color, shape, ground, place = words_of(caption)
        seen, _, objects = detect(image, outlines)
        if objects:
            x, y, w, h = objects[0]["box"]
            # Centers of objects are at most 0.36, between 0.46 and 0.54, or at least 0.64.
            cell = [int(middle > 0.41) + int(middle > 0.59) for middle in (x + w / 2, y + h / 2)]
            same = [objects[0]["color"] == color, objects[0]["shape"] == shape, PLACES[cell[0] + 3 * cell[1]] == place]
            row[:] = [*same, seen == ground, same[0] and same[1]]
        else:
            row[3] = seen == ground
    color, shape, place, ground, both = 100 * right.mean(0)
    print(f"    color {color:.0f} %, shape {shape:.0f} %, both {both:.0f} %, place {place:.0f} %, "
          f"background {ground:.0f} %")
    return right


def compose(count):
    """Captions in the vocabulary of the data set: each pair of color and shape once per hundred, the rest at random."""
    generator = random.Random(0)
    pairs = [(color, shape) for shape in SHAPES for color in COLORS]
    captions = []
    for k in range(count):
        color, shape = pairs[k % 100]
        ground = generator.choice([each for each in GROUNDS if shows(each, color)])
        fill, texture = generator.choice(["", "striped ", "dotted "]), generator.choice(["", "fading ", "striped ", "checked "])
        size = generator.choice(["medium", "large"])
        captions.append(f"a {size} {fill}{color} {shape} {generator.choice(PLACES)}, on a {texture}{ground} background")
    return captions


def sheet(path, rows, scale=2):
    high, wide = len(rows) * (SIDE + 2) + 2, max(map(len, rows)) * (SIDE + 2) + 2
    canvas = Image.new("RGB", (wide, high))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            canvas.paste(image.convert("RGB"), (2 + x * (SIDE + 2), 2 + y * (SIDE + 2)))
    canvas.resize((wide * scale, high * scale), Image.NEAREST).save(path, optimize=True, quality=80, subsampling=0)


def reconstruct(images, work):
    for k, image in enumerate(images):
        image.save(work / f"true-{k:03}.png")
    ldm("reconstruct", *[work / f"true-{k:03}.png" for k in range(len(images))], "--model", RUNS / "scenes-first-stage",
        "--out", work / "back", "--force", "--threads", 1)
    return [Image.open(work / f"back/{k:05}.png").copy() for k in range(len(images))]


def instrument(out, work, outlines):
    images, captions = [], []
    for seed in range((COUNT + 7) // 8):
        found, words = scenes(work, 8, objects=[1, 1], smallest="medium", split="validation", seed=seed)
        for image, labels in found:
            # The contact sheet is shuffled, but the first eight scenes have eight different shapes in a known order.
            images.append(image)
            captions.append(words[labels.max() - 1])
    print(f"instrument: {len(images)} true held-out scenes of one object (no moons and arrows)")
    count_words(images, captions, outlines)
    print("  their reconstructions")
    count_words(reconstruct(images, work), captions, outlines)
    for objects, smallest in ([1, 1], "medium"), ([1, 2], "medium"), ([1, 3], "small"):
        found, _ = scenes(work, COUNT, objects=objects, smallest=smallest, split="validation")
        back = reconstruct([image for image, _ in found], work)
        for name, made in ("true", [image for image, _ in found]), ("reconstructed", back):
            masks, shapes = [], []
            for image, (_, labels) in zip(made, found):
                _, mask, seen = detect(image, outlines)
                masks.append(iou(mask, labels > 0))
                shapes += matched(seen, boxes(labels))
            overlap, right = np.array(shapes, float).T
            print(f"  {COUNT} scenes of {objects[0]} to {objects[1]}, smallest {smallest}, {name}: mask IoU "
                  f"{np.mean(masks):.3f}, box IoU {overlap.mean():.3f}, shapes right {100 * right.mean():.0f} %")


def boxes(labels):
    """The shapes and boxes of a label map."""
    side, found = len(labels), []
    for label in np.unique(labels[labels > 0]):
        parts, _ = ndimage.label(labels == label, np.ones((3, 3)))
        for number, (high, wide) in enumerate(ndimage.find_objects(parts), 1):
            if (parts == number).sum() >= (side / 16) ** 2:
                box = wide.start, high.start, wide.stop - wide.start, high.stop - high.start
                found.append((SHAPES[label - 1], [each / side for each in box]))
    return found


def matched(seen, requested):
    """For each requested box, the best IoU of a detected object, and whether that object has the requested shape."""
    pairs = []
    for shape, box in requested:
        best = max(seen, key=lambda each: box_iou(each["box"], box), default=None)
        overlap = box_iou(best["box"], box) if best else 0.0
        pairs.append((overlap, overlap > 0 and best["shape"] == shape))
    return pairs


def text(out, work, outlines):
    captions = compose(COUNT)
    (work / "prompts.txt").write_text("\n".join(captions))
    for scale in (1, 3, 5):
        ldm("txt2img", "--prompts-from", work / "prompts.txt", "--model", RUNS / "scenes-text", "--out", work / "text",
            "--force", "--guidance-scale", scale, "--eta", 1, "--batch-size", 25, "--threads", 1)
        made = [Image.open(work / f"text/{k:05}.png").copy() for k in range(COUNT)]
        print(f"text: {COUNT} captions, guidance {scale}")
        right = count_words(made, captions, outlines)
        for what, words, column in ("color", COLORS, 0), ("shape", SHAPES, 1):
            requested = np.array([words_of(caption)[column] for caption in captions])
            of = {word: 100 * right[requested == word, column].mean() for word in words if (requested == word).any()}
            print(f"    {what}: " + ", ".join(f"{word} {share:.0f}" for word, share in of.items()))
        if scale == 3:
            sheet(out / "scenes-text.jpg", [made[k : k + 10] for k in range(0, COUNT, 10)])


def layout(out, work, outlines):
    rows, pairs, others, counts = [], [], [], []
    found, _ = scenes(work, COUNT, 128, objects=[1, 2], smallest="medium", split="validation")
    layouts = [boxes(labels) for _, labels in found]
    images = []
    for index, requested in enumerate(layouts):
        (work / "layout.json").write_text(json.dumps({"boxes": [{"label": shape, "box": box} for shape, box in requested]}))
        ldm("layout2img", work / "layout.json", "--model", RUNS / "scenes-layout", "--out", work / "boxes", "--force",
            "--seed", index, "--eta", 1, "--threads", 1)
        images.append(Image.open(work / "boxes/00000.png").copy())
        seen = detect(images[-1], outlines)[2]
        pairs += matched(seen, requested)
        others += matched(seen, layouts[index - 1])
        counts.append(len(seen) == len(requested))
        drawn = Image.new("RGB", (SIDE, SIDE), "white")
        for shape, (x, y, w, h) in requested:
            drawn_shape = outlines[shape][0]
            high, wide = ndimage.find_objects(drawn_shape.astype(int))[0]
            outline = Image.fromarray(drawn_shape[high, wide]).resize((max(round(w * SIDE), 1), max(round(h * SIDE), 1)))
            drawn.paste((150, 150, 150), (round(x * SIDE), round(y * SIDE)), outline)
        rows.append([drawn, images[-1]])
    overlap, right = np.array(pairs, float).T
    print(f"layout: {COUNT} layouts, {len(pairs)} boxes: box IoU {overlap.mean():.3f} (with another layout "
          f"{np.mean([each[0] for each in others]):.3f}), {100 * (overlap >= 0.5).mean():.0f} % at least 0.5, "
          f"shape right {100 * right.mean():.0f} %, number of objects right {100 * np.mean(counts):.0f} %")
    sheet(out / "scenes-layout.png", [*zip(*rows[:14]), *zip(*rows[14:28])])


def semantic(out, work, outlines):
    rows, own, other, pairs = [], [], [], []
    found, _ = scenes(work, COUNT, objects=[1, 3], smallest="small", split="validation")
    shown = np.uint8([(110, 110, 110), *COLORS.values()])
    for index, (_, labels) in enumerate(found):
        Image.fromarray(np.uint8(labels)).save(work / "map.png")
        ldm("semantic2img", work / "map.png", "--model", RUNS / "scenes-semantic", "--out", work / "drawn", "--force",
            "--seed", index, "--eta", 1, "--threads", 1)
        made = Image.open(work / "drawn/00000.png").copy()
        _, mask, seen = detect(made, outlines)
        own.append(iou(mask, labels > 0))
        other.append(iou(mask, found[index - 1][1] > 0))
        pairs += matched(seen, boxes(labels))
        rows.append([Image.fromarray(shown[labels]), made])
    print(f"semantic: {COUNT} maps: IoU of detected masks with the map {np.mean(own):.3f} (another map "
          f"{np.mean(other):.3f}), "
          f"shape right {100 * np.mean([each[1] for each in pairs]):.0f} %")
    sheet(out / "scenes-semantic.png", [*zip(*rows[:14]), *zip(*rows[14:28])])


def holes(generator):
    mask = np.zeros((SIDE, SIDE), bool)
    for _ in range(2):
        (y, x), (h, w) = generator.integers(0, 22, 2), generator.integers(6, 14, 2)
        mask[y : y + h, x : x + w] = True
    return mask


def fill(work, scene, mask, model, seed, *words):
    """A scene filled by a model, the scene with a hole, and the PSNR inside the hole of a mean color and of the model."""
    scene.save(work / "scene.png")
    Image.fromarray(np.uint8(mask) * 255).save(work / "mask.png")
    ldm("inpaint", work / "scene.png", work / "mask.png", *words, "--model", RUNS / model, "--out", work / "filled",
        "--force", "--seed", seed, "--eta", 1, "--threads", 1)
    before, made = np.asarray(scene), np.asarray(Image.open(work / "filled/00000.png"))
    assert (made[~mask] == before[~mask]).all(), "pixels outside the mask have changed"
    mean, hole = before.copy(), before.copy()
    mean[mask], hole[mask] = before[~mask].mean(0), 0
    gap = [((each[mask].astype(float) - before[mask]) ** 2).mean() for each in (mean, made)]
    return Image.fromarray(made), Image.fromarray(hole), 10 * np.log10(255**2 / np.maximum(gap, 1e-2))


def report(name, figures):
    mean, made = np.mean(figures, 0)
    print(f"inpaint: {len(figures)} scenes, the rest unchanged: filled with the mean {mean:.2f} dB, "
          f"by {name} {made:.2f} dB; better than the mean in {np.mean([b > a for a, b in figures]):.0%}")


def inpaint(out, work, outlines):
    rows, figures, generator = [], [], np.random.default_rng(0)
    for index, (scene, _) in enumerate(scenes(work, COUNT, objects=[1, 3], smallest="small", split="validation")[0]):
        made, hole, figure = fill(work, scene, holes(generator), "scenes-inpainting", index)
        figures.append(figure)
        rows.append([hole, made, scene])
    report("scenes-inpainting", figures)
    sheet(out / "scenes-inpaint.png", [*zip(*rows[:14]), *zip(*rows[14:28])])
    # The text model, which was not trained for inpainting, by blending in the scene at every step, with its caption.
    figures, trained, rows, generator = [], [], [], np.random.default_rng(0)
    for seed in range(3):
        found, captions = scenes(work, 8, objects=[1, 1], smallest="medium", split="validation", seed=seed)
        for index, (scene, labels) in enumerate(found):
            mask, caption = holes(generator), captions[labels.max() - 1]
            first, hole, figure = fill(work, scene, mask, "scenes-inpainting", index)
            trained.append(figure)
            made, _, figure = fill(work, scene, mask, "scenes-text", index, caption, "--guidance-scale", 1)
            figures.append(figure)
            rows.append([hole, first, made, scene])
    report("scenes-inpainting", trained)
    report("scenes-text", figures)
    sheet(out / "scenes-inpaint-by-text.png", [*zip(*rows[:12]), *zip(*rows[12:24])])


def upscale(out, work, outlines):
    """Super-resolution by 4 against bicubic interpolation."""
    folders = {name: work / name for name in ("small", "bicubic", "model", "true")}
    for name in ("small", "bicubic", "true"):
        folders[name].mkdir()
    found, _ = scenes(work, COUNT, objects=[1, 3], smallest="small", split="validation")
    for k, (scene, _) in enumerate(found):
        small = scene.resize((SIDE // 4, SIDE // 4), Image.BICUBIC)
        for name, image in ("small", small), ("bicubic", small.resize((SIDE, SIDE), Image.BICUBIC)), ("true", scene):
            image.convert("RGB").save(folders[name] / f"{k:05}.png")
    ldm("upscale", folders["small"], "--model", RUNS / "scenes-super-resolution", "--out", folders["model"], "--force",
        "--eta", 1, "--threads", 1)
    print(f"upscale: {COUNT} scenes by 4")
    for name in ("bicubic", "model"):
        pairs = json.loads(ldm("eval", "paired", folders[name], folders["true"], "--json"))
        sets = json.loads(ldm("eval", "generation", folders[name], folders["true"], "--features", "efficientnet-lite0", "--json"))
        print(f"    {name}: PSNR {pairs['psnr']['mean']:.2f} dB, SSIM {pairs['ssim']['mean']:.3f}, LPIPS "
              f"({pairs['lpips_trunk']}) {pairs['lpips']['mean']:.3f}, Fréchet distance (EfficientNet-lite0) "
              f"{sets['frechet_distance']:.1f}")
    columns = [[Image.open(folders[name] / f"{k:05}.png").resize((SIDE, SIDE), Image.NEAREST) for k in range(28)]
               for name in folders]
    sheet(out / "scenes-upscale.png", [column[half : half + 14] for half in (0, 14) for column in columns])


def classes(out, work, outlines):
    """Samples of the ten shapes as classes."""
    numbers = ",".join(str(k) for k in range(len(SHAPES)))
    for scale in (1, 3):
        ldm("sample", "--model", RUNS / "scenes-class", "--class", numbers, "-n", COUNT, "--out", work / "classes",
            "--force", "--guidance-scale", scale, "--eta", 1, "--batch-size", 25, "--threads", 1)
        made = [Image.open(work / f"classes/{k:05}.png").copy() for k in range(COUNT)]
        objects = [detect(image, outlines)[2] for image in made]
        right = np.array([bool(seen) and seen[0]["shape"] == SHAPES[k % len(SHAPES)] for k, seen in enumerate(objects)])
        print(f"classes: {COUNT} samples, guidance {scale}: shape right {right.mean():.0%}; "
              + ", ".join(f"{shape} {right[k :: len(SHAPES)].mean():.0%}" for k, shape in enumerate(SHAPES)))
        if scale == 3:
            sheet(out / "scenes-class.png", [made[k :: len(SHAPES)] for k in range(len(SHAPES))])


def main():
    out, *tasks = sys.argv[1:]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        outlines = known_outlines(work)
        for task in (instrument, text, layout, semantic, inpaint, upscale, classes):
            if not tasks or task.__name__ in tasks:
                task(out, work, outlines)


if __name__ == "__main__":
    main()
