"""Asks the small task models for held-back pictures and measures what came.

    cargo build --release
    python3 docs/gallery/measure.py DATA OUT [upscale] [inpaint] [semantic] [layout] [text]

From the root of a checkout whose runs/ hold the models of configs/photos, configs/camvid, configs/aquarium and
configs/emoji. DATA is the folder of image sets, OUT gets a sheet a task. Needs numpy and Pillow.
"""
import csv
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

LDM, SIDE = "target/release/ldm", 64


def ldm(*words):
    done = subprocess.run([LDM, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ldm {' '.join(map(str, words))}: {done.stderr}")


def members(path, names):
    with tarfile.open(path) as tar:
        return [Image.open(io.BytesIO(tar.extractfile(name).read())).copy() for name in names]


def square(picture, kind=Image.BICUBIC):
    """The largest central square, as the configs' `square_crop_first` and `smallest_side` have it."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), kind)


def psnr(a, b, where=None):
    gap = (np.asarray(a, float) - np.asarray(b, float)) ** 2
    return 10 * np.log10(255**2 / (gap if where is None else gap[where]).mean())


def sheet(path, rows, scale=2):
    """Rows of pictures of one size, below each other."""
    high, wide = len(rows) * (SIDE + 2) + 2, max(map(len, rows)) * (SIDE + 2) + 2
    canvas = Image.new("RGB", (wide, high))
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            canvas.paste(picture.convert("RGB"), (2 + x * (SIDE + 2), 2 + y * (SIDE + 2)))
    canvas.resize((wide * scale, high * scale), Image.NEAREST).save(path, optimize=True)


def photos(data):
    names = (data / "photos/val.txt").read_text().split()
    return [square(picture.convert("RGB")) for picture in members(data / "photos/photos.tar", names)]


def upscale(data, out, work):
    rows, figures = [], []
    for index, photo in enumerate(photos(data)):
        small = photo.resize((SIDE // 4, SIDE // 4), Image.BICUBIC)
        small.save(work / "small.png")
        photo.save(work / "photo.png")
        ldm("upscale", work / "small.png", "--model", "runs/photos-super-resolution", "--out", work / "large", "--force",
            "--seed", index, "--threads", 1)
        ldm("reconstruct", work / "photo.png", "--model", "runs/photos-first-stage-64", "--out", work / "back", "--force",
            "--threads", 1)
        made, back = Image.open(work / "large/00000.png"), Image.open(work / "back/00000.png")
        plain = small.resize((SIDE, SIDE), Image.BICUBIC)
        figures.append([psnr(photo, each) for each in (plain, made, back)])
        rows.append([plain, made, back, photo])
    plain, made, back = np.mean(figures, 0)
    print(f"upscale: {len(rows)} photographs: bicubic {plain:.2f} dB, the model {made:.2f} dB, the first stage alone {back:.2f} dB")
    sheet(out / "upscale.png", list(zip(*rows[:12])))


def inpaint(data, out, work):
    generator, rows, figures = np.random.default_rng(0), [], []
    for index, photo in enumerate(photos(data)):
        mask = np.zeros((SIDE, SIDE), bool)
        for _ in range(2):
            (y, x), (h, w) = generator.integers(0, 44, 2), generator.integers(12, 28, 2)
            mask[y : y + h, x : x + w] = True
        photo.save(work / "photo.png")
        Image.fromarray(np.uint8(mask) * 255).save(work / "mask.png")
        ldm("inpaint", work / "photo.png", work / "mask.png", "--model", "runs/photos-inpainting", "--out", work / "filled",
            "--force", "--seed", index, "--threads", 1)
        made, before = Image.open(work / "filled/00000.png"), np.asarray(photo)
        assert (np.asarray(made)[~mask] == before[~mask]).all(), "what is not to be filled has changed"
        mean = before.copy()
        mean[mask] = before[~mask].mean(0)
        figures.append([psnr(before, each, mask) for each in (mean, made)])
        hole = before.copy()
        hole[mask] = 0
        rows.append([Image.fromarray(hole), made, photo])
    mean, made = np.mean(figures, 0)
    print(f"inpaint: {len(rows)} photographs, all else to the byte: filled with the mean {mean:.2f} dB, by the model {made:.2f} dB")
    sheet(out / "inpaint.png", list(zip(*rows[:12])))


def semantic(data, out, work):
    names = (data / "segmentation/camvid_val.txt").read_text().split()[::9]
    tar = data / "segmentation/camvid_val.tar"
    pictures = [square(each.convert("RGB")) for each in members(tar, [f"images/{name}.jpg" for name in names])]
    maps = [square(each, Image.NEAREST) for each in members(tar, [f"labels/{name}.png" for name in names])]
    classes = json.loads((data / "segmentation/camvid_classes.json").read_text())["classes"]
    colours = np.zeros((256, 3), np.uint8)
    for each in classes:
        colours[each["id"]] = each["color"]
    rows, right, shuffled = [], [], []
    made = []
    for index, labels in enumerate(maps):
        labels.save(work / "map.png")
        ldm("semantic2img", work / "map.png", "--model", "runs/camvid-semantic", "--out", work / "drawn", "--force",
            "--seed", index, "--threads", 1)
        made.append(Image.open(work / "drawn/00000.png").copy())
        rows.append([Image.fromarray(colours[np.asarray(labels)]), made[-1], pictures[index]])
    # Does a picture belong to its map? The spread of its colours within classes, against that under other maps.
    def spread(picture, labels):
        picture, labels = np.asarray(picture, float), np.asarray(labels)
        return sum(((picture[labels == c] - picture[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels)) / picture.size
    for index, picture in enumerate(made):
        right.append(spread(picture, maps[index]))
        shuffled += [spread(picture, maps[other]) for other in range(len(maps)) if other != index]
    print(f"semantic2img: {len(rows)} maps: variance of colours within the classes of the own map {np.mean(right):.0f}, of other maps {np.mean(shuffled):.0f}")
    sheet(out / "semantic2img.png", list(zip(*rows[:12])))


def layout(data, out, work):
    document = json.loads((data / "boxes/aquarium_val.json").read_text())
    images = document["images"][::6][:10]
    rows = []
    for index, each in enumerate(images):
        name = each["file_name"]
        if not any(box["image_id"] == each["id"] for box in document["annotations"]):
            continue
        ldm("layout2img", data / "boxes/aquarium_val.json", "--image", name, "--model", "runs/aquarium-layout", "--out",
            work / "boxes", "--force", "--seed", index, "--threads", 1, "-n", 2)
        photo = members(data / "boxes/aquarium_images.tar", [name])[0].convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
        drawn = outlined(photo, each, document)
        rows.append([drawn, *(Image.open(work / f"boxes/0000{k}.png").copy() for k in range(2))])
    print(f"layout2img: {len(rows)} layouts")
    sheet(out / "layout2img.png", list(zip(*rows)))


def outlined(photo, image, document):
    from PIL import ImageDraw

    drawn = photo.copy()
    pen = ImageDraw.Draw(drawn)
    for box in document["annotations"]:
        if box["image_id"] == image["id"]:
            x, y, w, h = box["bbox"]
            across, down = SIDE / image["width"], SIDE / image["height"]
            pen.rectangle((x * across, y * down, (x + w) * across - 1, (y + h) * down - 1), outline=(255, 60, 60))
    return drawn


def text(data, out, work):
    held = set((data / "emoji/val.txt").read_text().split())
    with open(data / "emoji/captions.tsv") as file:
        lines = [line for line in csv.DictReader(file, delimiter="\t")]
    seen = [line["caption"] for line in lines if line["key"] not in held][:: max(1, len(lines) // 10)][:10]
    new = [line["caption"] for line in lines if line["key"] in held][::18][:10]
    (work / "prompts.txt").write_text("\n".join(seen + new))
    ldm("txt2img", "--prompts-from", work / "prompts.txt", "--model", "runs/emoji-text", "--out", work / "emoji", "--force",
        "--guidance-scale", 3, "--threads", 2)
    made = [Image.open(work / f"emoji/{k:05}.png").copy() for k in range(len(seen + new))]
    print("txt2img: seen in training:", "; ".join(seen), "\n  held back:", "; ".join(new))
    sheet(out / "txt2img.png", [made[: len(seen)], made[len(seen) :]])


def main():
    data, out, *tasks = sys.argv[1:]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, task in (("upscale", upscale), ("inpaint", inpaint), ("semantic", semantic), ("layout", layout), ("text", text)):
        if not tasks or name in tasks:
            with tempfile.TemporaryDirectory() as work:
                task(Path(data), out, Path(work))


if __name__ == "__main__":
    main()
