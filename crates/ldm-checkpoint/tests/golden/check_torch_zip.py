"""Opens a file of `ldm_checkpoint::save_torch` with PyTorch and compares it with the safetensors file next to it.

    LDM_KEEP_TORCH_ZIP=FOLDER cargo test -p ldm-checkpoint torch_writer
    python crates/ldm-checkpoint/tests/golden/check_torch_zip.py FOLDER

With LDM_REFERENCE=1 the tests also write `large.ckpt`, a file of 4.4 GB, which is then checked too.
"""
import sys
import zipfile
from pathlib import Path

import torch
from safetensors import safe_open

folder = Path(sys.argv[1])
for options in [{}, {"mmap": True}]:
    found = torch.load(folder / "written.ckpt", weights_only=True, **options)
    state = found.pop("state_dict")
    with safe_open(folder / "written.safetensors", "pt") as expected:
        assert list(state) == sorted(expected.keys()), set(state) ^ set(expected.keys())
        assert found == expected.metadata(), found
        for name, tensor in state.items():
            twin = expected.get_tensor(name)
            assert (tensor.dtype, tensor.shape) == (twin.dtype, twin.shape), name
            assert tensor.is_contiguous() and not tensor.requires_grad, name
            if tensor.numel():
                bits = [each.reshape(-1).view(torch.uint8) for each in (tensor, twin)]
                assert torch.equal(*bits), name
                assert not options or tensor.data_ptr() % 64 == 0, name
    print(f"torch {torch.__version__} {options}: {len(state)} tensors, {len({t.dtype for t in state.values()})} dtypes, all equal")

large = folder / "large.ckpt"
if large.is_file():
    state = torch.load(large, weights_only=True, mmap=True)["state_dict"]
    last = torch.arange(5, dtype=torch.float32)
    assert list(state) == ["a.large", "b.last"] and torch.equal(state["b.last"], last)
    assert state["a.large"].shape == (2_200_000_000,) and torch.equal(state["a.large"][-5:], last.half())
    with zipfile.ZipFile(large) as archive:
        assert archive.testzip() is None, "checksums"
    print(f"large.ckpt: {large.stat().st_size} bytes, opened, and every checksum is right")
