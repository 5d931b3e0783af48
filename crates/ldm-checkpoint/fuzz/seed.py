"""Fills the corpora with the golden files and the pickles in them."""

import zipfile
from pathlib import Path

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"


def put(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


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
