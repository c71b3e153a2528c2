"""What stands between generated code and the machine, each wall raised where the system allows it."""

import os
import resource
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress

if sys.platform == "linux":
    from equipoise.metrics.isolation import kernel

NOBODY = 65534
FILE_BYTES, FOLDER_BYTES = 1 << 20, 16 << 20
# Where a Python finds its standard library and what that needs
_PREFIX = os.path.dirname(os.path.dirname(os.__file__))
LIBRARIES = sorted(
    {
        path
        for path in (_PREFIX, os.path.realpath(_PREFIX), f"{sys.base_prefix}/{sys.platlibdir}")
        if os.path.isdir(path)
    }
    | {path for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/nix/store") if os.path.isdir(path)}
)
DEVICES = ("/dev/null",)
_NAMESPACES = {"names": 0x4000000, "ipc": 0x8000000, "processes": 0x20000000, "network": 0x40000000}
_USER, _MOUNTS = 0x10000000, 0x20000
_PRIVATE, _BIND, _RECURSIVE, _NOSUID, _NODEV = 1 << 18, 1 << 12, 1 << 14, 1 << 1, 1 << 2
_MOUNT_SETATTR, _AT_RECURSIVE, _READ_ONLY = 442, 0x8000, 1
_DETACH = 2
_COMMON = "abc bisect collections copy dataclasses datetime decimal enum fractions functools hashlib heapq io itertools"
_COMMON += " json math operator os queue random re socket statistics string struct textwrap time typing uuid"


def end_with_parent() -> None:
    """Have the kernel end this process when its parent ends."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """Keep processes of the same user from reading or tracing this one."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)


def enter_namespaces(without: Collection[str] = ()) -> set[str]:
    """Give this process and its children namespaces of their own; return the names of those that the system gave."""
    if sys.platform != "linux" or "namespaces" in without:
        return set()
    user, group = os.getuid(), os.getgid()
    if user != 0:
        if kernel.libc.unshare(_USER) != 0:
            return set()
        with suppress(OSError):
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{user} {user} 1")
            _write("/proc/self/gid_map", f"{group} {group} 1")
    return {name for name, flag in _NAMESPACES.items() if name not in without and kernel.libc.unshare(flag) == 0}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def enter_root(folder: str) -> bool:
    """Leave this process a file system of the Python library, read-only, and an empty /tmp in memory; none else.

    `folder` is where it is mounted. Return False if the system does not allow it; all files are then where they were.
    """
    if sys.platform != "linux" or kernel.libc.unshare(_MOUNTS) != 0:
        return False
    libc = kernel.libc
    kernel.check(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None), "mount")  # what follows stays in here
    options = f"size={FOLDER_BYTES},nr_inodes=4096,mode=755".encode()
    try:
        kernel.check(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", _NOSUID | _NODEV, options), "mount")
        for path in _outermost():
            _bind(path, folder + path)
        os.mkdir(f"{folder}/tmp")
        os.chmod(f"{folder}/tmp", 0o777)
        os.chdir(folder)
        kernel.check(libc.pivot_root(b".", b"."), "pivot_root")
        kernel.check(libc.umount2(b".", _DETACH), "umount")
        os.chdir("/tmp")
    except OSError:
        os.chdir(folder)
        return False
    return True


def _outermost() -> Iterator[str]:
    held: list[str] = []
    for path in (*LIBRARIES, *DEVICES):
        if not any(path.startswith(f"{other}/") for other in held):
            held.append(path)
            yield path


def _bind(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    name = target.encode()
    kernel.check(kernel.libc.mount(source.encode(), name, None, _BIND | _RECURSIVE, None), "mount")
    if os.path.isdir(source):
        attributes = _READ_ONLY.to_bytes(8, sys.byteorder) + bytes(24)
        kernel.check(kernel.libc.syscall(_MOUNT_SETATTR, -100, name, _AT_RECURSIVE, attributes, 32), "mount_setattr")


def become_nobody() -> bool:
    """Give up root for a user that owns the current folder alone. Return False if there is no root to give up."""
    if os.getuid() != 0:
        return False
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.chown(".", NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except (OSError, AttributeError):  # macOS has no setresuid
        return False
    return True


def drop_capabilities() -> None:
    """Give up what root may do, for good; the user stays."""
    if sys.platform == "linux":
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.libc.capset((0x20080522).to_bytes(4, sys.byteorder) + bytes(4), bytes(24))


def limit(seconds: int, memory: int) -> None:
    """Limit this process: processor time, address space, the size of a file, and no further processes."""
    limits = {"CPU": seconds, "AS": memory, "FSIZE": FILE_BYTES, "CORE": 0, "NPROC": 0, "NOFILE": 64, "MSGQUEUE": 0}
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS has some of these in name only
            resource.setrlimit(kind, (value, value))


def confine(seconds: int, memory: int, *, nobody: bool, without: Collection[str] = ()) -> set[str]:
    """Close this process in, as far as it can by itself; return the names of the walls that stand."""
    held = set()
    if nobody and "nobody" not in without:
        if not _readable_by_others(os.__file__):
            for name in _COMMON.split():  # while it can still read them
                __import__(name)
        held |= {"nobody"} if become_nobody() else set()
    drop_capabilities()
    end_with_parent()  # a change of user undoes it, and the filter of system calls keeps the code from undoing it
    limit(seconds, memory)
    if sys.platform == "linux":
        walls: dict[str, Callable[[], bool]] = {
            "landlock": lambda: kernel.restrict_files((*LIBRARIES, *DEVICES), (".", *DEVICES)),
            "system calls": kernel.refuse_system_calls,
        }
        held |= {name for name, build in walls.items() if name not in without and build()}
    return held


def _readable_by_others(path: str) -> bool:
    path = os.path.realpath(path)
    while path != "/":
        if not os.stat(path).st_mode & (0o001 if os.path.isdir(path) else 0o004):
            return False
        path = os.path.dirname(path)
    return True
