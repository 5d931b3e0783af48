"""Generates from held-out images with the small task models, and measures the results.

    cargo build --release
    python3 docs/tools/gallery/measure.py DATA OUT [upscale] [inpaint] [semantic] [layout] [img2img] [first_stages]

Run it from the root of a checkout whose runs/ hold the models of photos, camvid and aquarium in
configs/experiments. DATA is the folder of data sets; OUT gets a contact sheet per task. The environment variable LDM
names the binary (default target/release/ldm). Needs numpy and Pillow.
"""
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LDM, SIDE = os.environ.get("LDM", "target/release/ldm"), 64


def ldm(*words):
    done = subprocess.run([LDM, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"ldm {' '.join(map(str, words))}: {done.stderr}")


def generate(*words):
    """Samples with eta = 1: fresh noise helps networks with little training."""
    ldm(*words, "--eta", 1, "--threads", 1, "--force")


def members(path, names):
    with tarfile.open(path) as tar:
        return [Image.open(io.BytesIO(tar.extractfile(name).read())).copy() for name in names]


def square(image, kind=Image.BICUBIC, side=SIDE):
    """The largest central square, like `square_crop_first` and `smallest_side` of the configs."""
    all = min(image.size)
    left, top = (image.width - all) // 2, (image.height - all) // 2
    return image.crop((left, top, left + all, top + all)).resize((side, side), kind)


def psnr(a, b, where=None):
    gap = (np.asarray(a, float) - np.asarray(b, float)) ** 2
    return 10 * np.log10(255**2 / (gap if where is None else gap[where]).mean())


def sheet(path, rows, scale=2, side=SIDE):
    """Writes rows of images of one size as a contact sheet."""
    high, wide = len(rows) * (side + 2) + 2, max(map(len, rows)) * (side + 2) + 2
    canvas = Image.new("RGB", (wide, high))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            canvas.paste(image.convert("RGB"), (2 + x * (side + 2), 2 + y * (side + 2)))
    canvas.resize((wide * scale, high * scale), Image.NEAREST).save(path, quality=80, subsampling=0)


def photos(data):
    names = (data / "photos/val.txt").read_text().split()
    return [square(image.convert("RGB")) for image in members(data / "photos/photos.tar", names)]


def upscale(data, out, work):
    rows, figures, wanted = [], [], photos(data)
    for index, photo in enumerate(wanted):
        photo.save(work / f"{index:03}.png")
    ldm("reconstruct", *sorted(work.glob("???.png")), "--model", "runs/photos-first-stage-64", "--out", work / "back",
        "--force", "--threads", 1)
    backs = sorted((work / "back").glob("0*.png"))
    for index, (photo, back) in enumerate(zip(wanted, backs, strict=True)):
        small = photo.resize((SIDE // 4, SIDE // 4), Image.BICUBIC)
        small.save(work / "small.png")
        generate("upscale", work / "small.png", "--model", "runs/photos-super-resolution", "--out", work / "large",
                 "--seed", index)
        made, back = Image.open(work / "large/00000.png").copy(), Image.open(back).copy()
        plain = small.resize((SIDE, SIDE), Image.BICUBIC)
        figures.append([psnr(photo, each) for each in (plain, made, back)])
        rows.append([plain, made, back, photo])
    plain, made, back = np.mean(figures, 0)
    print(f"upscale: {len(rows)} photographs: bicubic {plain:.2f} dB, the model {made:.2f} dB, "
          f"the first stage alone {back:.2f} dB")
    sheet(out / "upscale.jpg", list(zip(*rows[:8])))


def inpaint(data, out, work):
    generator, rows, figures = np.random.default_rng(0), [], []
    for index, photo in enumerate(photos(data)):
        mask = np.zeros((SIDE, SIDE), bool)
        for _ in range(2):
            (y, x), (h, w) = generator.integers(0, 44, 2), generator.integers(12, 28, 2)
            mask[y : y + h, x : x + w] = True
        photo.save(work / "photo.png")
        Image.fromarray(np.uint8(mask) * 255).save(work / "mask.png")
        generate("inpaint", work / "photo.png", work / "mask.png", "--model", "runs/photos-inpainting",
                 "--out", work / "filled", "--seed", index)
        made, before = Image.open(work / "filled/00000.png").copy(), np.asarray(photo)
        assert (np.asarray(made)[~mask] == before[~mask]).all(), "pixels outside the mask have changed"
        mean = before.copy()
        mean[mask] = before[~mask].mean(0)
        figures.append([psnr(before, each, mask) for each in (mean, made)])
        hole = before.copy()
        hole[mask] = 0
        rows.append([Image.fromarray(hole), made, photo])
    mean, made = np.mean(figures, 0)
    print(f"inpaint: {len(rows)} photographs, the rest unchanged: filled with the mean {mean:.2f} dB, "
          f"by the model {made:.2f} dB")
    sheet(out / "inpaint.jpg", list(zip(*rows[:8])))


def semantic(data, out, work):
    names = (data / "segmentation/camvid_val.txt").read_text().split()[::9]
    tar = data / "segmentation/camvid_val.tar"
    photographs = [square(each.convert("RGB")) for each in members(tar, [f"images/{name}.jpg" for name in names])]
    maps = [square(each, Image.NEAREST) for each in members(tar, [f"labels/{name}.png" for name in names])]
    classes = json.loads((data / "segmentation/camvid_classes.json").read_text())["classes"]
    colors = np.zeros((256, 3), np.uint8)
    for each in classes:
        colors[each["id"]] = each["color"]
    rows, right, shuffled = [], [], []
    made = []
    for index, labels in enumerate(maps):
        labels.save(work / "map.png")
        generate("semantic2img", work / "map.png", "--model", "runs/camvid-semantic", "--out", work / "drawn", "--seed", index)
        made.append(Image.open(work / "drawn/00000.png").copy())
        rows.append([Image.fromarray(colors[np.asarray(labels)]), made[-1], photographs[index]])
    # Whether an image follows its map: the variance of its colors within classes, compared with other maps.
    def spread(image, labels):
        image, labels = np.asarray(image, float), np.asarray(labels)
        parts = [image[labels == each] for each in np.unique(labels)]
        return sum(((part - part.mean(0)) ** 2).sum() for part in parts) / image.size
    for which in made, photographs:
        right.append(np.mean([spread(image, maps[k]) for k, image in enumerate(which)]))
        shuffled.append(np.mean([spread(p, m) for i, p in enumerate(which) for j, m in enumerate(maps) if i != j]))
    print(f"semantic2img: {len(rows)} maps: variance of colors within the classes of its own map {right[0]:.0f}, "
          f"of other maps {shuffled[0]:.0f}; photographs {right[1]:.0f} and {shuffled[1]:.0f}")
    sheet(out / "semantic2img.jpg", list(zip(*rows[:8])))


def layout(data, out, work):
    document = json.loads((data / "boxes/aquarium_val.json").read_text())
    with_boxes = {box["image_id"] for box in document["annotations"]}
    images = [each for each in document["images"] if each["id"] in with_boxes][::2]
    rows, photos, made = [], [], []
    for index, each in enumerate(images):
        name = each["file_name"]
        generate("layout2img", data / "boxes/aquarium_val.json", "--image", name, "--model", "runs/aquarium-layout", "--out",
                 work / "boxes", "--seed", index)
        photo = members(data / "boxes/aquarium_images.tar", [name])[0].convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
        made.append(Image.open(work / "boxes/00000.png").copy())
        photos.append(photo)
        rows.append([outlined(photo, each, document), outlined(made[-1], each, document), made[-1]])

    def apart(shown, image):
        """The distance between the mean colors inside and outside the boxes of a generated or real image."""
        inside = np.zeros((SIDE, SIDE), bool)
        for x, y, w, h in places(image, document):
            inside[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = True
        if inside.all() or not inside.any():
            return None
        pixels = np.asarray(shown, float)
        return np.linalg.norm(pixels[inside].mean(0) - pixels[~inside].mean(0))

    def mean(pairs):
        return np.mean([each for each in (apart(*pair) for pair in pairs) if each is not None])

    count = len(images)
    other = [(made[i], images[j]) for i in range(count) for j in range(count) if i != j]
    real = [(photos[i], images[j]) for i in range(count) for j in range(count) if i != j]
    print(f"layout2img: {count} layouts: colors inside and outside the boxes are {mean(zip(made, images)):.1f} apart, "
          f"with another image's boxes {mean(other):.1f}; photographs {mean(zip(photos, images)):.1f} and "
          f"{mean(real):.1f}")
    sheet(out / "layout2img.jpg", list(zip(*rows[:8])))


def places(image, document):
    """The boxes of an image, in pixels of the small image."""
    across, down = SIDE / image["width"], SIDE / image["height"]
    return [(x * across, y * down, w * across, h * down)
            for x, y, w, h in (box["bbox"] for box in document["annotations"] if box["image_id"] == image["id"])]


def outlined(photo, image, document):
    drawn = photo.copy()
    pen = ImageDraw.Draw(drawn)
    for x, y, w, h in places(image, document):
        pen.rectangle((x, y, max(x + w - 1, x), max(y + h - 1, y)), outline=(255, 60, 60))
    return drawn


def emoji(data, keys):
    """Emoji on white, as in the data set."""
    with tarfile.open(data / "emoji/emoji128.tar") as tar:
        names = {Path(name).stem: name for name in tar.getnames() if name.endswith(".png")}
    found = []
    for image in members(data / "emoji/emoji128.tar", [names[key] for key in keys]):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        found.append(white.convert("RGB").resize((SIDE, SIDE), Image.BICUBIC))
    return found


def img2img(data, out, work):
    """img2img: emoji with another caption, by strength, with the model inside the program."""
    held = (data / "emoji/val.txt").read_text().split()[::31][:5]
    rows, strengths, figures = [], (0.2, 0.4, 0.6, 0.8, 1), []
    for index, given in enumerate(emoji(data, held)):
        given.save(work / "given.png")
        row = [given]
        for strength in strengths:
            generate("img2img", work / "given.png", "red heart", "--strength", strength, "--out",
                     work / "img2img", "--guidance-scale", 3, "--seed", index)
            row.append(Image.open(work / "img2img/00000.png").copy())
        rows.append(row)
        figures.append([psnr(given, each) for each in row[1:]])
    print("img2img: PSNR against the given image: "
          + ", ".join(f"strength {s} {f:.1f} dB" for s, f in zip(strengths, np.mean(figures, 0))))
    sheet(out / "img2img.jpg", rows)


def first_stages(data, out, work):
    """Originals, then KL and VQ without and with the adversarial term, at 128 x 128 pixels."""
    names = (data / "photos/val.txt").read_text().split()[3::9]
    rows = []
    for k, image in enumerate(members(data / "photos/photos.tar", names)):
        rows.append([square(image.convert("RGB"), side=128)])
        rows[-1][0].save(work / f"{k:03}.png")
    for kind in "kl", "vq":
        for which in "plain", "gan":
            ldm("reconstruct", *sorted(work.glob("???.png")), "--model", f"runs/photos-f4-{kind}-{which}", "--out",
                work / "back", "--force", "--threads", 1)
            for row, path in zip(rows, sorted((work / "back").glob("0*.png"))):
                row.append(Image.open(path).copy())
    sheet(out / "first-stages.jpg", list(zip(*rows)), scale=1, side=128)


def main():
    data, out, *tasks = sys.argv[1:]
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for task in (upscale, inpaint, semantic, layout, img2img, first_stages):
        if not tasks or task.__name__ in tasks:
            with tempfile.TemporaryDirectory() as work:
                task(Path(data), out, Path(work))


if __name__ == "__main__":
    main()
