#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes PyPI's PyTorch run without NVIDIA's libraries: torch_cpu.py SITE-PACKAGES. Its wheel for Linux is built with CUDA and wants
gigabytes of them at load time, though a program on the CPU calls none. In the place of each goes a small library whose functions
return an error (35, "no driver") and do nothing else. PyTorch itself is untouched. Needs binutils and gcc."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

NO_DRIVER = 35
LOOSE = re.compile(r"nccl|nvshmem|cusparseLt|cuFile|cu[A-Z]")  # names that carry no version
PLACES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64")


def elf(option, path):
    return subprocess.run(["readelf", "-W", option, str(path)], check=True, capture_output=True, text=True).stdout


def needed(path):
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", elf("-d", path)))


def wants(path):
    """(name, version or "") of what a library takes from others."""
    fields = (line.split() for line in elf("--dyn-syms", path).splitlines())
    return {tuple((f[7].replace("@@", "@") + "@").split("@")[:2]) for f in fields
            if len(f) >= 8 and f[4] == "GLOBAL" and f[6] == "UND"}


def versions(path):
    """{library: the version that its symbols carry}, of the libraries needed."""
    return dict(re.findall(r"File: (\S+)\s+Cnt: 1\n.*Name: (\S+)", elf("-V", path)))


def stand_in(path, names, version):
    """A library of that many functions, all the same."""
    lines = [".text"]
    for name in sorted(names):
        lines += [f'.globl "{name}"', f'.type "{name}", @function', f'"{name}":']
    lines += [f"mov ${NO_DRIVER}, %eax", "ret", '.section .note.GNU-stack,"",@progbits', ""]
    with tempfile.TemporaryDirectory() as tmp:
        source, script = Path(tmp, "names.s"), Path(tmp, "version")
        source.write_text("\n".join(lines))
        script.write_text(f"{version} {{ global: *; }};\n")
        subprocess.run(["gcc", "-shared", "-nostdlib", "-o", str(path), str(source), f"-Wl,-soname,{path.name}",
                        f"-Wl,--version-script={script}"], check=True)


def main(site):
    folder = site / "torch" / "lib"
    there = [*folder.glob("*.so*"), *(site / "torch").glob("_C*.so")]
    own = {p.name for p in there}
    missing = {n for p in there for n in needed(p)} - own
    missing = {n for n in missing if not any(Path(d, n).exists() for d in PLACES)}
    wanted = set().union(*(wants(p) for p in there))
    loose = {n for n, version in wanted if not version and LOOSE.match(n)}
    version_of = {k: v for p in there for k, v in versions(p).items()}
    for name in sorted(missing):
        version = version_of.get(name, name)
        stand_in(folder / name, {n for n, v in wanted if v == version} | loose, version)
    print(f"torch_cpu: {len(missing)} stand-ins: {' '.join(sorted(missing))}", file=sys.stderr)


main(Path(sys.argv[1]))
