import subprocess
import sys

import pytest
import torch

from arbitrary_nst.runtime.devices import free_memory, out_of_memory

CPU = torch.device("cpu")


def machine(root, available_kib: int = 1000, groups=()):
    """A file system that says how much memory there is; each group is (path, max, current, inactive_file)."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 4000 kB\nMemAvailable: {available_kib} kB\n")
    (root / "proc/self/cgroup").write_text("0::/outer/inner\n")
    for path, limit, used, cached in groups:
        folder = root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\n")
    return root


def test_the_machine_says_what_is_available(tmp_path):
    assert free_memory(CPU, machine(tmp_path)) == 1000 * 1024


@pytest.mark.parametrize(
    ("groups", "free"),
    [
        ([("outer/inner", 5000, 3000, 200)], 2200),
        ([("outer/inner", "max", 3000, 200)], 1000 * 1024),
        ([("outer/inner", "max", 3000, 200), ("outer", 4000, 3500, 0)], 500),
        ([("outer/inner", 100, 300, 0)], 0),
        ([("elsewhere", 10, 0, 0)], 1000 * 1024),
    ],
)
def test_the_tightest_control_group_counts(tmp_path, groups, free):
    assert free_memory(CPU, machine(tmp_path, groups=groups)) == free


def test_nobody_says_on_other_systems_and_devices(tmp_path):
    assert free_memory(CPU, tmp_path) is None
    assert free_memory(torch.device("mps")) is None


def test_memory_of_this_machine_is_a_number_or_unknown():
    free = free_memory(CPU)
    assert free is None or free > 0


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_want_of_memory_is_known_in_the_words_of_any_device(error, is_it):
    assert out_of_memory(error) == is_it


@pytest.mark.slow
def test_freed_memory_is_kept_where_there_is_glibc():
    """In a process of its own: the tensor's pages stay resident after it is gone."""
    code = """
from arbitrary_nst.runtime.devices import keep_freed_memory
import torch
kept = keep_freed_memory()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
tensor = torch.ones(1 << 26)
before = resident()
del tensor
print(kept, before - resident() < 1 << 20)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if run.stdout.split()[0] == "False":
        pytest.skip("no glibc here")
    assert run.stdout.split() == ["True", "True"]
