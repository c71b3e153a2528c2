"""What Linux offers to a process that limits itself, without privileges: a filter of system calls, and Landlock."""

import ctypes
import os
import struct
from collections.abc import Iterable

libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38

# Names of the system calls, with their numbers on x86-64 and on arm64 (None: it has none)
_REFUSED = {
    "processes": [(57, None), (58, None), (59, 221), (322, 281)],  # fork, vfork, execve, execveat
    "signals": [(62, 129), (200, 130), (234, 131), (129, 138), (297, 240), (424, 424)],
    "tracing": [
        *[(101, 117), (310, 270), (311, 271), (312, 272), (434, 434), (438, 438), (440, 440), (448, 448)],
        *[(298, 241), (321, 280), (323, 282)],  # perf_event_open, bpf, userfaultfd
    ],
    "network": [(41, 198), (425, 425)],  # socket; io_uring_setup, which opens sockets past this filter
    "namespaces and mounts": [
        *[(272, 97), (308, 268), (165, 40), (166, 39), (155, 41), (161, 51)],
        *[(number, number) for number in (428, 429, 430, 431, 432, 433, 442)],
    ],
    "what outlives a process": [(248, 217), (249, 218), (250, 219), (29, 194), (64, 190), (68, 186), (240, 180)],
    "the pace of others": [
        (141, 140),
        (144, 119),
        (142, 118),
        (314, 274),
        (203, 122),
        (251, 30),
        (256, 238),
        (279, 239),
    ],
}
_CLONE, _CLONE3, _PRLIMIT, _PRCTL, _FCNTL = (56, 220), (435, 435), (302, 261), (157, 167), (72, 25)
_SETOWN, _SETSIG, _SETOWN_EX = 8, 10, 15  # of fcntl: have the kernel signal another process
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_CLONE_THREAD = 0x10000


def prctl(option: int, *args: int) -> bool:
    """Call prctl(2); return whether it worked."""
    words = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:4]]
    return libc.prctl(option, *words) == 0


def check(result: int, what: str) -> None:
    """Raise OSError if a call of libc failed."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def refuse_system_calls() -> bool:
    """Refuse this process to start, signal or trace others, to open sockets, and to change its own surroundings."""
    if os.uname().machine not in _ARCHITECTURES or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    architecture, column = _ARCHITECTURES[os.uname().machine]
    program = b"".join(struct.pack("HBBI", *step) for step in _program(architecture, column))
    steps = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

    described = Filter(len(program) // 8, ctypes.addressof(steps))
    return prctl(PR_SET_SECCOMP, 2, ctypes.addressof(described))


def _program(architecture: int, column: int) -> Iterable[tuple[int, int, int, int]]:
    yield from [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if column == 0:
        yield from [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _EPERM)]  # the x32 table of calls
    for calls in _REFUSED.values():
        for call in calls:
            if call[column] is not None:
                yield from [(_EQUAL, 0, 1, call[column]), (_RETURN, 0, 0, _EPERM)]
    yield from [
        (_EQUAL, 0, 1, _CLONE3[column]),
        (_RETURN, 0, 0, _ENOSYS),
    ]  # libc then uses clone, which shows its flags
    yield from _on_argument(_CLONE[column], 0, [(_ANY_BIT, 1, 0, _CLONE_THREAD)])
    yield from _on_argument(_PRLIMIT[column], 0, [(_EQUAL, 1, 0, 0)])  # its own limits alone
    yield from _on_argument(_PRCTL[column], 0, [(_EQUAL, 0, 1, PR_SET_PDEATHSIG)])
    yield from _on_argument(
        _FCNTL[column], 1, [(_EQUAL, 2, 0, _SETOWN), (_EQUAL, 1, 0, _SETSIG), (_EQUAL, 0, 1, _SETOWN_EX)]
    )
    yield (_RETURN, 0, 0, _ALLOW)


def _on_argument(
    call: int, position: int, tests: list[tuple[int, int, int, int]]
) -> Iterable[tuple[int, int, int, int]]:
    """Run `tests` on an argument of `call`; the step after them refuses, the one after that allows."""
    yield (_EQUAL, 0, len(tests) + 3, call)
    yield (_LOAD, 0, 0, 16 + 8 * position)
    yield from tests
    yield from [(_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)]


_WRITE_FILE, _READ_FILE, _READ_FOLDER, _REMOVE_FILE, _MAKE_FILE, _TRUNCATE = (1 << n for n in (1, 2, 3, 5, 8, 14))
_READ = _READ_FILE | _READ_FOLDER
_WRITE = (
    _READ | _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
)  # plain files: no folders, links or pipes to clean up
_CREATE, _RULESET, _ADD_RULE, _RESTRICT = 0, 444, 445, 446


def restrict_files(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Take all files from this process but those below `readable` and `writable`, by Landlock; TCP and signals, too."""
    version = libc.syscall(_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    attributes = struct.pack("QQQ", rights, 3, 3)[: {1: 8, 2: 8, 3: 8, 4: 16, 5: 16}.get(version, 24)]
    ruleset = libc.syscall(_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    check(ruleset, "landlock_create_ruleset")
    for paths, granted in ((readable, _READ), (writable, _WRITE & rights)):
        for path in paths:
            _grant(ruleset, path, granted)
    restricted = libc.syscall(_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return restricted


def _grant(ruleset: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _READ_FILE | _WRITE_FILE
    check(libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, opened), 0), "landlock_add_rule")
    os.close(opened)
