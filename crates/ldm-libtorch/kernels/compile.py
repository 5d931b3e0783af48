"""Compiles the kernels of this folder by NVRTC: no nvcc, no CUDA toolkit, no GPU. `cargo xtask kernels` runs it.

compile.py NVRTC OUT [ARCHITECTURE…]

NVRTC: folder of libnvrtc.so.13 and its builtins, of the wheel nvidia-cuda-nvrtc. Writes NAME.ptx (compute_80) and
NAME.sm_90.cubin for each NAME.cu, or for other ARCHITECTUREs nothing, and prints NVRTC's version and the registers of each
kernel. A kernel that spills registers to memory is an error.
"""

import ctypes
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).parent


class Nvrtc:
    def __init__(self, folder):
        # NVRTC opens its builtins by name: loaded first, they need not be on the library path.
        ctypes.CDLL(str(next(pathlib.Path(folder).glob("libnvrtc-builtins.so.13*"))), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(pathlib.Path(folder) / "libnvrtc.so.13"))
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(status).decode()}")

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def result(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.raw

    def compile(self, source, architecture):
        """Returns PTX for compute_NN and machine code for sm_NN, and the log."""
        headers = sorted(path for path in HERE.glob("*.h") if path.name != "emulator.h")
        texts = (ctypes.c_char_p * len(headers))(*[path.read_bytes() for path in headers])
        names = (ctypes.c_char_p * len(headers))(*[path.name.encode() for path in headers])
        program = ctypes.c_void_p()
        text = source.read_bytes()
        create = (ctypes.byref(program), text, source.name.encode(), len(headers), texts, names)
        self.call("nvrtcCreateProgram", *create)
        options = [f"--gpu-architecture={architecture}", "--std=c++17"]
        machine = architecture.startswith("sm_")
        if machine:
            options.append("--ptxas-options=--verbose")
        encoded = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        try:
            self.call("nvrtcCompileProgram", program, len(options), encoded)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.result(program, 'ProgramLog').decode()}") from error
        code = self.result(program, "CUBIN" if machine else "PTX")
        # The driver wants text that ends in NUL; the file has none.
        return code if machine else code.rstrip(b"\0"), self.result(program, "ProgramLog").decode()


def report(log):
    """Prints the registers of each kernel of ptxas' log."""
    pattern = r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    kernels = re.findall(pattern, log, re.DOTALL)
    if not kernels:
        raise RuntimeError(f"expected ptxas' report, got {log!r}")
    for name, stores, loads, registers in kernels:
        print(f"{name}: {registers} registers")
        if (stores, loads) != ("0", "0"):
            raise RuntimeError(f"{name}: spills registers ({stores} bytes stored, {loads} loaded)")


def main(folder, out, *architectures):
    nvrtc = Nvrtc(folder)
    print(f"nvrtc {nvrtc.version()}")
    for source in sorted(HERE.glob("*.cu")):
        for architecture in architectures or ("compute_80", "sm_90"):
            code, log = nvrtc.compile(source, architecture)
            if architecture.startswith("sm_"):
                report(log)
            if not architectures:
                end = ".ptx" if architecture == "compute_80" else f".{architecture}.cubin"
                (pathlib.Path(out) / (source.stem + end)).write_bytes(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
