"""Has PyTorch open what `ldm_core::weights::save_torch` wrote, and compares it with the safetensors file beside it.

    LDM_KEEP_TORCH_ZIP=FOLDER cargo test -p ldm-core --test weights torch_writer
    python crates/ldm-core/tests/golden/check_torch_zip.py FOLDER
"""
import sys
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
