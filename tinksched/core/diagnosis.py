"""Why a run failed, where the end of its log says so beyond doubt. Pure: text in, a diagnosis or nothing out.

Only what ended the run counts: the last traceback, or where there is none the last lines. An error that was printed
and survived is followed by progress or by another error, and is no diagnosis. Patterns are searched in lines of bounded
length, and none of them can backtrack far, so the time is linear in the length of the text. They are compiled when they
are first used (`re` keeps them): who only looks at a diagnosis needs none.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

TAIL_BYTES = 65536  # of a log are enough: what ended the run stands at its end
_LONGEST_LINE = 2000  # characters of a line that are looked at
_MESSAGE_LINES = 300  # of what an exception says
_LAST_LINES = 25  # among which an error counts that is no traceback; and lines that may follow a final one
_SIGTERM, _SIGKILL = 143, 137  # exit codes: somebody else ended the run, and no error that it printed


class Kind(str, enum.Enum):
    """What it was."""

    CUDA_MEMORY = "cuda_out_of_memory"
    HOST_MEMORY = "host_out_of_memory"
    MISSING_MODULE = "missing_module"
    DEVICE_ASSERT = "device_side_assert"
    NO_SPACE = "no_space"
    NO_GPU = "no_gpu"
    DRIVER = "driver_mismatch"
    ADDRESS_IN_USE = "address_in_use"
    TIME_LIMIT = "time_limit"


OUT_OF_MEMORY = (Kind.CUDA_MEMORY, Kind.HOST_MEMORY)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What it was, and a few words about it for a person."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class _Sign:
    """Words that tell of a kind; `{}` in the text is what the pattern's group holds.

    Some are also printed by programs that go on: `raised` ones count only as the message of an exception.
    """

    kind: Kind
    pattern: str
    text: str
    raised: bool = False


# The first that is found counts. The words are those of PyTorch 1.4 to 2.8, TensorFlow 2, JAX 0.4, NumPy and CuPy.
_SIGNS = (
    _Sign(Kind.HOST_MEMORY, r"device:CPU:\d{1,4} by allocator", "host out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"(CUDA|HIP) out of memory", "{} out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"(CUDA|HIP) error: out of memory", "{} out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"OOM when allocating tensor", "CUDA out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"RESOURCE_EXHAUSTED: .{0,200}(?i:out of memory|failed to allocate)", "CUDA out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"CU(?:BLAS|DNN|SOLVER|SPARSE|FFT)_(?:STATUS_)?ALLOC_FAILED", "CUDA out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"cudaErrorMemoryAllocation|cudaMalloc failed: out of memory", "CUDA out of memory"),
    _Sign(Kind.CUDA_MEMORY, r"OutOfMemoryError: Out of memory allocating", "CUDA out of memory"),  # CuPy
    _Sign(Kind.CUDA_MEMORY, r"CUDA_ERROR_OUT_OF_MEMORY", "CUDA out of memory", raised=True),
    _Sign(Kind.DEVICE_ASSERT, r"device-side assert triggered", "device-side assert"),
    _Sign(Kind.HOST_MEMORY, r"DataLoader worker \(pid[^)]{0,40}\) is killed by signal: Killed",
          "host out of memory: a DataLoader worker was killed"),
    _Sign(Kind.HOST_MEMORY, r"DataLoader worker \(pid[^)]{0,40}\) is killed by signal: Bus error",
          "shared memory (/dev/shm) is full: a DataLoader worker was killed"),
    _Sign(Kind.HOST_MEMORY, r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory)", "host out of memory"),
    _Sign(Kind.HOST_MEMORY, r"(?<![A-Za-z])MemoryError\b|ArrowMemoryError|std::bad_alloc", "host out of memory"),
    _Sign(Kind.HOST_MEMORY, r"Unable to allocate [\d.,]{1,30} ?[KMGTP]?i?B", "host out of memory"),
    _Sign(Kind.HOST_MEMORY, r"(?:Errno 12\]|error code 12).{0,20}Cannot allocate memory", "host out of memory"),
    _Sign(Kind.MISSING_MODULE, r"No module named '?([\w.-]{1,100})", "no module named {}", raised=True),
    _Sign(Kind.MISSING_MODULE, r"python[\d.]{0,6}: .{0,160}No module named '?([\w.-]{1,100})", "no module named {}"),
    _Sign(Kind.NO_SPACE, r"No space left on device", "no space left on the disk"),
    _Sign(Kind.NO_SPACE, r"Disk quota exceeded", "disk quota exceeded"),
    _Sign(Kind.ADDRESS_IN_USE, r"(?:[\]:]|port|',)[: ]{0,2}(\d{4,5})\b.{0,80}(?i:address already in use|EADDRINUSE)",
          "port {} is in use already"),
    _Sign(Kind.ADDRESS_IN_USE, r"EADDRINUSE|(?i:address already in use)", "its address (port) is in use already"),
    _Sign(Kind.DRIVER, r"NVIDIA driver on your system is too old", "the NVIDIA driver is too old for this CUDA"),
    _Sign(Kind.DRIVER, r"CUDA driver version is insufficient for CUDA runtime",
          "the NVIDIA driver is too old for this CUDA"),
    _Sign(Kind.DRIVER, r"provided PTX was compiled with an unsupported toolchain",
          "the NVIDIA driver is too old for this CUDA"),
    _Sign(Kind.DRIVER, r"no kernel image is available for execution on the device",
          "this build of CUDA code knows no such GPU"),
    _Sign(Kind.DRIVER, r"Driver/library version mismatch", "the NVIDIA driver and its library differ in version"),
    _Sign(Kind.DRIVER, r"unsupported display driver / cuda driver combination",
          "the NVIDIA driver and CUDA do not fit together"),
    _Sign(Kind.NO_GPU, r"No CUDA GPUs are available|no CUDA-capable device is detected|cudaErrorNoDevice",
          "no CUDA device was visible"),
    _Sign(Kind.NO_GPU, r"Found no NVIDIA driver on your system", "no NVIDIA driver"),
    _Sign(Kind.NO_GPU, r"Torch not compiled with CUDA enabled", "this PyTorch has no CUDA"),
    _Sign(Kind.NO_GPU, r"on a CUDA device but torch\.cuda\.is_available\(\) is False", "no CUDA device was visible"),
    _Sign(Kind.NO_GPU, r"CUDA error: invalid device ordinal", "it asked for a GPU that it was not given"),
)  # fmt: skip

_ESCAPES = (
    r"\x1b\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)?|\x1b[P^_X][^\x1b\n]{0,500}(?:\x1b\\)?"
    r"|\x1b\[[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-~]?"
)
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
_RANK = r"^\[(?:rank|default)\d{1,5}\]:[ ]?|^\[\d{1,5},\d{1,5}\]<std(?:err|out)>: ?"
_CAUSE = "The above exception was the direct cause of the following exception"
# Of the errors at a run's end these only say that another process, or another line, has the reason.
_SECOND_HAND = (
    r"ChildFailedError|CalledProcessError|ProcessExitedException|DistBackendError|NCCL|"
    r"Connection (?:closed|reset) by peer|ConnectionResetError|BrokenPipeError|EOFError|KeyboardInterrupt|SystemExit"
)
_ASIDE = ("Exception ignored in", "Error in atexit", "Exception in thread")  # before tracebacks that end no program
_PROGRESS = r"(?i)\b(?:epoch|step|iter|iteration|batch|loss|acc|accuracy)\b\W{0,3}\d|\d ?(?:it/s|s/it)\b"
_FOOTER = r"wandb: |srun: |slurmstepd: |\[\d{4}-\d\d-\d\d |[EWI]\d{4} \d\d:|(?:ERROR|WARNING|INFO):torch\."
_FRAME = r"[ \t|+│╭╰─┃┏┗❱]|\^|frame #\d|\[Previous line repeated"
_RAISED = r"[\w.]{1,120}(?:Error|Exception): "
_MILD = r"(?i)\bwarn|\bskip|\bretry|\bfall(?:ing)? ?back|\bignor"  # of an error that was survived
_ASSERTION = r"Assertion `([^`]{1,120})` failed"


def diagnose(tail: str, exit_code: int | None) -> Diagnosis | None:
    """What ended a run that failed.

    Args:
        tail: the end of its log, up to `TAIL_BYTES` of it, with whatever a terminal was sent.
        exit_code: that of the run; 0 and the codes of a run that was killed from outside have no diagnosis.
    """
    if exit_code in (None, 0, _SIGKILL, _SIGTERM):
        return None
    lines = _lines(tail)
    found, after = _from_tracebacks(lines)
    if found is None and after is not None:
        found = _from_last_lines(lines[after:])
    if found is not None and found.kind is Kind.DEVICE_ASSERT:
        claims = [match[1] for line in lines if "Assertion `" in line and (match := re.search(_ASSERTION, line))]
        return Diagnosis(found.kind, f"{found.text}: {claims[-1]}") if claims else found
    return found


def _lines(tail: str) -> list[str]:
    """What was printed, line by line, without colours; each state of a progress bar is a line of its own."""
    text = re.sub(_CONTROL, "", re.sub(_ESCAPES, "", tail))
    cut = (re.sub(_RANK, "", line[:_LONGEST_LINE], count=1) for line in re.split(r"[\r\n]+", text))
    return [line.rstrip() for line in cut if line.strip()]


def _from_tracebacks(lines: Sequence[str]) -> tuple[Diagnosis | None, int | None]:
    """What the last traceback says; or from which line on something else may say it, None if nothing may."""
    starts = [number for number, line in enumerate(lines) if "(most recent call last)" in line and "Traceback" in line]
    end = len(lines)
    for start in reversed(starts):
        block, end = lines[start + 1 : end], start
        if start and lines[start - 1].startswith(_ASIDE):
            continue
        error = next((number for number, line in enumerate(block) if not re.match(_FRAME, line)), None)
        if error is None:
            continue
        if _is_survived(block[error + 1 :]):
            return None, start + 1 + error + 1
        if (found := _classify(_message(block[error : error + _MESSAGE_LINES]), raised=True)) is not None:
            return found, None
        is_caused = start > 0 and _CAUSE in lines[start - 1]
        if not is_caused and not re.search(_SECOND_HAND, block[error]):
            return None, None
    return None, 0


def _message(lines: Sequence[str]) -> list[str]:
    """Of an exception's lines those that say what it was: the first, and errors that it reports.

    TensorFlow has it somewhere in a message of many lines. What else stands there may be of another program.
    """
    is_tensorflow = "errors_impl." in lines[0]
    return [lines[0], *(line for line in lines[1:] if is_tensorflow or re.match(_RAISED, line))]


def _from_last_lines(lines: Sequence[str]) -> Diagnosis | None:
    """What the last lines say where no traceback does: what a shell printed, or a program that isn't Python."""
    own = [line for line in lines if not line.startswith("frame #") and not re.match(_FOOTER, line)]
    last = own[-_LAST_LINES:]
    for number, line in reversed([*enumerate(last)]):
        if not re.search(_MILD, line) and (found := _classify([line], raised=False)) is not None:
            return None if _is_survived(last[number + 1 :]) else found
    return None


def _is_survived(after: Sequence[str]) -> bool:
    """Whether the lines behind an error show that the program went on."""
    own = [line for line in after if not re.match(_FOOTER, line) and not re.match(_FRAME, line)]
    bars = sum("%|" in line for line in own)  # tqdm prints its bar once more when it is closed
    went_on = any(re.search(_PROGRESS, line) and "%|" not in line for line in own)
    return went_on or bars > 2 or len(own) > _LAST_LINES


def _classify(message: Sequence[str], *, raised: bool) -> Diagnosis | None:
    for sign in _SIGNS:
        if sign.raised and not raised:
            continue
        for line in message:
            if (match := re.search(sign.pattern, line)) is not None:
                return Diagnosis(sign.kind, sign.text.format(*(match.groups() or ("",))))
    return None
