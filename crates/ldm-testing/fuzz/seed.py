"""Fills the corpora: with the golden files and the pickles in them, with the configs, and with small files made here."""

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
GOLDEN = ROOT / "crates" / "ldm-checkpoint" / "tests" / "golden"


def put(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def weights():
    for path in sorted(GOLDEN.glob("*.safetensors")):
        put("safetensors", path.name, path.read_bytes())
    for path in sorted(GOLDEN.glob("*.npz")):
        put("npz", path.name, path.read_bytes())
    for path in sorted(GOLDEN.glob("*.ckpt")):
        data = path.read_bytes()
        put("torch_zip", path.name, data)
        if data[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        put("unpickler", path.name, archive.read(name))
        else:
            # A legacy file is five pickles; the fourth, with the state dict, begins at one of these offsets.
            for number, place in enumerate(i for i in range(len(data)) if data[i : i + 2] == b"\x80\x02"):
                put("unpickler", f"{path.name}.{number}", data[place:])


def texts():
    text = 'a cat\r\nein Kätzchen 🐈\n{"a": [1, null]}\n'
    for encoding in ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1", "utf-32"]:
        put("text", encoding, text.encode(encoding, "replace"))
    put("text", "json", b'{"a": [1, 2.5e3, "\\u00e9", {"b": null}]}')
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        put("yaml", path.relative_to(ROOT).as_posix().replace("/", "-"), path.read_bytes())
    put("yaml", "merge", b"a: &a {x: 1}\nb: {<<: *a, y: '${a.x}', z: \"${b.y}\"}\n%\na.x=[1, {b: 2}]")
    put("yaml", "set", b"target: images\nparams: {path: [a.tar], captions: {file: c.tsv, name: 0}, transform: {size: 8}}")


def captions():
    beside = [b"a cat\na dog\n", b'{"caption": ["a cat", "a dog"]}', b'{"file_name": "a.png", "text": "a cat"}\n',
              b'file_name,text\na.png,"a ""cat"""\n', b"3\n"]
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "a cat"}]}
    lists = [b"a.png\ta cat\n", b'file_name,caption\na.png,"a\ncat"\n', b'{"file_name": "./a.png", "caption": ["a"]}\n',
             json.dumps(coco).encode()]
    for index, content in enumerate(beside + lists):
        put("captions", str(index), bytes([index]) + content)
    put("captions", "object", bytes([8]) + b'{"a": ["a cat"], "b.png": "b"}')


def png(*chunks):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0\1\2\3\4" * 4))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*each) for each in chunks) + pixels + chunk(b"IEND", b"")


def images():
    zipped = zlib.compress(b"a cat, steps 20")
    put("png_text", "latin", png((b"tEXt", b"Parameters\0a cat")))
    put("png_text", "zipped", png((b"zTXt", b"parameters\0\0" + zipped)))
    put("png_text", "utf8", png((b"iTXt", "prompt\0\0\0\0\0Kätzchen".encode()), (b"iTXt", b"x\0\1\0\0\0" + zipped)))


def archives():
    files = {"d/0.png": png(), "d/0.txt": b"a cat", "d/1.png": png(), "d/1.json": b'{"caption": "b"}', "d/1.cls": b"1"}
    for name, kind in [("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT), ("ustar", tarfile.USTAR_FORMAT)]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as archive:
            for path, data in files.items():
                path = path if kind == tarfile.USTAR_FORMAT else path.replace("d/", "d" * 120 + "é/")
                info = tarfile.TarInfo(path)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            link = tarfile.TarInfo("link.png")
            link.type, link.linkname = tarfile.LNKTYPE, "d/0.png"
            archive.addfile(link)
        put("archive", name, out.getvalue())
        put("archive", f"{name}.gz", gzip.compress(out.getvalue(), mtime=0))
    for name, kind in [("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)]:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", kind) as archive:
            for path, data in files.items():
                archive.writestr(zipfile.ZipInfo(path), data, kind)
        put("archive", name, out.getvalue())


def adapters():
    kohya = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    peft = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    forms = {
        "kohya": {f"{kohya}.lora_down.weight": [2, 32], f"{kohya}.lora_up.weight": [32, 2], f"{kohya}.alpha": []},
        "peft": {f"{peft}.lora_A.weight": [2, 32], f"{peft}.lora_B.weight": [32, 2]},
        "loha": {f"{kohya}.hada_w{n}_{ab}": shape for n in "12" for ab, shape in [("a", [32, 2]), ("b", [2, 32])]},
        "lokr": {f"{kohya}.lokr_w1": [4, 4], f"{kohya}.lokr_w2_a": [8, 2], f"{kohya}.lokr_w2_b": [2, 8]},
    }
    for form, tensors in forms.items():
        header, place = {"__metadata__": {"ss_network_dim": "2"}}, 0
        for name, shape in tensors.items():
            size = 4
            for side in shape:
                size *= side
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
            place += size
        text = json.dumps(header).encode()
        put("lora", form, struct.pack("<Q", len(text)) + text + struct.pack("<f", 0.5) * (place // 4))


for fill in [weights, texts, captions, images, archives, adapters]:
    fill()
