"""Makes windows_zip64.ckpt: windows.ckpt with every size and offset in the 64-bit records that archives beyond 4 GB have.

python generate_zip64.py

Python writes such records beyond a limit, which is 0 here; only the end record still has small numbers, which are replaced
by the marker of 64-bit records, as beyond 4 GB. PyTorch must open the result.
"""
import struct
import zipfile
from pathlib import Path

import torch

HERE = Path(__file__).parent
zipfile.ZIP64_LIMIT = 0
ELSEWHERE = b"\xff" * 4

target = HERE / "windows_zip64.ckpt"
with zipfile.ZipFile(HERE / "windows.ckpt") as old, zipfile.ZipFile(target, "w") as new:
    for entry in old.namelist():
        info = zipfile.ZipInfo(entry, (2022, 4, 13, 0, 0, 0))
        with new.open(info, "w", force_zip64=True) as file:
            file.write(old.read(entry))

data = bytearray(target.read_bytes())
end = len(data) - 22
assert data[end : end + 4] == b"PK\5\6" and data[end - 20 : end - 16] == b"PK\6\7", "a 64-bit end record and its locator"
data[end + 8 : end + 12] = b"\xff" * 4  # entries, on this disk and in all
data[end + 12 : end + 20] = 2 * ELSEWHERE  # the directory's length and place
at = struct.unpack_from("<Q", data, end - 20 - 8)[0]
assert data[at : at + 4] == b"PK\1\2" and data[at + 20 : at + 28] == 2 * ELSEWHERE, "lengths are elsewhere"
target.write_bytes(data)

ours, theirs = (torch.load(HERE / name, weights_only=True) for name in ("windows.ckpt", "windows_zip64.ckpt"))
assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
print(f"torch {torch.__version__}: {len(theirs)} tensors, all equal; {len(data)} bytes")
