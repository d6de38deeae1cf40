"""What the end of a log says about why its run failed. The texts are those that the programs print."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinksched.core.diagnosis import TAIL_BYTES, Diagnosis, Kind, diagnose
from tinksched.core.model import Reason, ReasonCode

TORCH = """\
Traceback (most recent call last):
  File "/w/train.py", line 41, in <module>
    main()
  File "/w/train.py", line 33, in main
    loss = model(batch.cuda()).mean()
           ^^^^^^^^^^^^^^^^^^^
  File "/venv/lib/python3.11/site-packages/torch/nn/modules/module.py", line 1501, in _call_impl
    return forward_call(*args, **kwargs)
"""
OOM_NOW = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.65 GiB "
    "of which 1.06 GiB is free. Including non-PyTorch memory, this process has 22.58 GiB memory in use. Of the "
    "allocated memory 21.88 GiB is allocated by PyTorch, and 295.21 MiB is reserved by PyTorch but unallocated. If "
    "reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
    "fragmentation.  See documentation for Memory Management  "
    "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)\n"
)
OOM_BEFORE = OOM_NOW.replace("torch.OutOf", "torch.cuda.OutOf")
OOM_OLD = (
    "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.79 GiB total capacity; 6.38 GiB already "
    "allocated; 13.94 MiB free; 6.50 GiB reserved in total by PyTorch)\n"
)
ASSERT = """\
../aten/src/ATen/native/cuda/Loss.cu:250: nll_loss_forward_reduce_cuda_kernel_2d: block: [0,0,0], thread: [0,0,0] \
Assertion `t >= 0 && t < n_classes` failed.
../aten/src/ATen/native/cuda/Loss.cu:250: nll_loss_forward_reduce_cuda_kernel_2d: block: [0,0,0], thread: [1,0,0] \
Assertion `t >= 0 && t < n_classes` failed.
""" + TORCH + """\
RuntimeError: CUDA error: device-side assert triggered
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.

"""  # fmt: skip
TENSORFLOW = """\
2024-05-02 10:11:12.131415: W tensorflow/core/common_runtime/bfc_allocator.cc:497] Allocator (GPU_0_bfc) ran out of \
memory trying to allocate 12.25GiB (rounded to 13153337344)requested by op model/conv2d_1/Conv2D
2024-05-02 10:11:12.131420: I tensorflow/core/common_runtime/bfc_allocator.cc:1101] BFCAllocator dump for GPU_0_bfc
Traceback (most recent call last):
  File "train.py", line 20, in <module>
    model.fit(dataset, epochs=5)
  File "/venv/lib/python3.10/site-packages/keras/utils/traceback_utils.py", line 70, in error_handler
    raise e.with_traceback(filtered_tb) from None
tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:

Detected at node 'model/conv2d_1/Conv2D' defined at (most recent call last):
    File "train.py", line 20, in <module>
      model.fit(dataset, epochs=5)
Node: 'model/conv2d_1/Conv2D'
OOM when allocating tensor with shape[256,64,448,448] and type float on /job:localhost/replica:0/task:0/device:GPU:0 \
by allocator GPU_0_bfc
\t [[{{node model/conv2d_1/Conv2D}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add report_tensor_allocations_upon_oom to \
RunOptions for current allocation info. This isn't available when running in Eager mode.
 [Op:__inference_train_function_1403]
"""
KERAS_3 = """\
Traceback (most recent call last):
  File "train.py", line 9, in <module>
    y = tf.random.normal([100000, 100000, 10])
tensorflow.python.framework.errors_impl.ResourceExhaustedError: {{function_node __wrapped__Add_device_/job:localhost/\
replica:0/task:0/device:GPU:0}} OOM when allocating tensor with shape[100000,100000,10] and type float on \
/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc [Op:Add]
"""
JAX = """\
2024-03-01 10:00:00.000000: W external/xla/xla/tsl/framework/bfc_allocator.cc:497] Allocator (GPU_0_bfc) ran out of \
memory
Traceback (most recent call last):
  File "train.py", line 12, in <module>
    step(x)
jax._src.traceback_util.UnfilteredStackTrace: jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory \
while trying to allocate 34359738368 bytes.
BufferAssignment OOM Debugging.
BufferAssignment stats:
             parameter allocation:   32.00GiB
              constant allocation:         0B
        maybe_live_out allocation:   32.00GiB
Peak buffers:
\tBuffer 1:
\t\tSize: 32.00GiB
\t\tXLA Label: fusion
\t\tShape: f32[65536,131072]
\t\t==========================

The stack trace below excludes JAX-internal frames.
The preceding is the original exception that occurred, unmodified.

--------------------

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "train.py", line 12, in <module>
    step(x)
jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.
BufferAssignment OOM Debugging.
Peak buffers:
\tBuffer 1:
\t\tSize: 32.00GiB
--------------------
For simplicity, JAX has removed its internal frames from the traceback of the following exception. Set \
JAX_TRACEBACK_FILTERING=off to include these.
"""
TORCHRUN = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "/w/train.py", line 41, in <module>
[rank1]:     main()
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has a total capacity of 23.65 GiB
[rank0]: Traceback (most recent call last):
[rank0]:   File "/w/train.py", line 40, in <module>
[rank0]:     dist.barrier()
[rank0]: torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:219, remote \
process exited or there was a network error, NCCL version 2.20.5
W0613 12:00:00.000000 140000000000000 torch/distributed/elastic/multiprocessing/api.py:851] Sending process 12 \
closing signal SIGTERM
E0613 12:00:00.100000 140000000000000 torch/distributed/elastic/multiprocessing/api.py:826] failed (exitcode: 1) \
local_rank: 1 (pid: 13) of binary: /venv/bin/python
Traceback (most recent call last):
  File "/venv/bin/torchrun", line 8, in <module>
    sys.exit(main())
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2024-06-13_12:00:00
  host      : box
  rank      : 1 (local_rank: 1)
  exitcode  : 1 (pid: 13)
  error_file: <N/A>
  traceback : To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html
============================================================
"""
LOADER = """\
Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/torch/utils/data/dataloader.py", line 1133, in _try_get_data
    data = self._data_queue.get(timeout=timeout)
  File "/usr/lib/python3.11/multiprocessing/queues.py", line 113, in get
    if not self._poll(timeout):
  File "/venv/lib/python3.11/site-packages/torch/utils/data/_utils/signal_handling.py", line 66, in handler
    _error_if_any_worker_fails()
RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed.

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/w/train.py", line 30, in <module>
    for batch in loader:
RuntimeError: DataLoader worker (pid(s) 4711) exited unexpectedly
"""
REPLICA = """\
Traceback (most recent call last):
  File "/w/train.py", line 30, in <module>
    output = torch.nn.DataParallel(model)(x)
torch.cuda.OutOfMemoryError: Caught OutOfMemoryError in replica 0 on device 0.
Original Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/torch/nn/parallel/parallel_apply.py", line 64, in _worker
    output = module(*input, **kwargs)
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 MiB
"""
RICH = """\
╭───────────────────── Traceback (most recent call last) ──────────────────────╮
│ /w/train.py:7 in <module>                                                    │
│ ❱ 7 x = torch.empty(10**12, device="cuda")                                   │
╰──────────────────────────────────────────────────────────────────────────────╯
OutOfMemoryError: CUDA out of memory. Tried to allocate 3725.29 GiB.
"""
RAY = """\
Traceback (most recent call last):
  File "tune.py", line 12, in <module>
    ray.get(train.remote())
ray.exceptions.RayTaskError(OutOfMemoryError): ray::train() (pid=4711, ip=10.0.0.2)
  File "tune.py", line 8, in train
    torch.empty(10**12, device="cuda")
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3725.29 GiB.
"""
ABORTED = (
    """\
terminate called after throwing an instance of 'c10::Error'
  what():  CUDA error: device-side assert triggered
Exception raised from c10_cuda_check_implementation at ../c10/cuda/CUDAException.cpp:43 (most recent call first):
"""
    + "".join(f"frame #{n}: <unknown function> + 0x1b{n} (0x7f in libc10_cuda.so)\n" for n in range(40))
    + "\nAborted\n"
)


def raised(line: str) -> str:
    """As an exception that ended the program."""
    return f'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    run()\n{line}\n'


KNOWN = {
    "torch now": (TORCH + OOM_NOW, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "torch 2.0": (TORCH + OOM_BEFORE, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "torch 1": (TORCH + OOM_OLD, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "torch on AMD": (TORCH + OOM_NOW.replace("CUDA out", "HIP out"), Kind.CUDA_MEMORY, "HIP out of memory"),
    "torchrun": (TORCHRUN, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "DataParallel": (REPLICA, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "rich": (RICH, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "ray": (RAY, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "TensorFlow": (TENSORFLOW, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "Keras 3": (KERAS_3, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "TensorFlow on the CPU": (
        KERAS_3.replace("device:GPU:0 by allocator GPU_0_bfc", "device:CPU:0 by allocator cpu"), Kind.HOST_MEMORY,
        "host out of memory",
    ),
    "JAX": (JAX, Kind.CUDA_MEMORY, "CUDA out of memory"),
    "JAX now": (
        raised("jax.errors.JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes."),
        Kind.CUDA_MEMORY, "CUDA out of memory",
    ),
    "cuBLAS": (
        raised("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        Kind.CUDA_MEMORY, "CUDA out of memory",
    ),
    "cuDNN": (raised("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Kind.CUDA_MEMORY, "CUDA out of memory"),
    "CUDA error": (raised("RuntimeError: CUDA error: out of memory"), Kind.CUDA_MEMORY, "CUDA out of memory"),
    "CuPy": (
        raised("cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 8,000,000,000 bytes (allocated: 0)."),
        Kind.CUDA_MEMORY, "CUDA out of memory",
    ),
    "a program in C++": (
        "loading model\nggml_backend_cuda_buffer_type_alloc_buffer: allocating 5000.00 MiB on device 0: cudaMalloc "
        "failed: out of memory\nllama_load_model_from_file: failed to load model\n",
        Kind.CUDA_MEMORY, "CUDA out of memory",
    ),
    "caught, said, and ended": ("epoch 3\nError: CUDA out of memory, giving up\n", Kind.CUDA_MEMORY,
                                "CUDA out of memory"),
    "assert": (ASSERT, Kind.DEVICE_ASSERT, "device-side assert: t >= 0 && t < n_classes"),
    "abort": (ABORTED, Kind.DEVICE_ASSERT, "device-side assert"),
    "MemoryError": (raised("MemoryError"), Kind.HOST_MEMORY, "host out of memory"),
    "NumPy": (
        raised("numpy.core._exceptions._ArrayMemoryError: Unable to allocate 745. GiB for an array with shape "
               "(100000, 1000000) and data type float64"),
        Kind.HOST_MEMORY, "host out of memory",
    ),
    "torch on the CPU": (
        raised("RuntimeError: [enforce fail at alloc_cpu.cpp:75] err == 0. DefaultCPUAllocator: can't allocate memory: "
               "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"),
        Kind.HOST_MEMORY, "host out of memory",
    ),
    "fork": (raised("OSError: [Errno 12] Cannot allocate memory"), Kind.HOST_MEMORY, "host out of memory"),
    "bad_alloc": (
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\nAborted\n",
        Kind.HOST_MEMORY, "host out of memory",
    ),
    "DataLoader": (LOADER, Kind.HOST_MEMORY, "host out of memory: a DataLoader worker was killed"),
    "shared memory": (
        raised("RuntimeError: DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that "
               "dataloader's workers are out of shared memory. Please try to raise your shared memory limit."),
        Kind.HOST_MEMORY, "shared memory (/dev/shm) is full: a DataLoader worker was killed",
    ),
    "module": (raised("ModuleNotFoundError: No module named 'flash_attn.ops'"), Kind.MISSING_MODULE,
               "no module named flash_attn.ops"),
    "python -m": ("/venv/bin/python3: No module named trainer\n", Kind.MISSING_MODULE, "no module named trainer"),
    "disk": (raised("OSError: [Errno 28] No space left on device: '/w/out/last.ckpt'"), Kind.NO_SPACE,
             "no space left on the disk"),
    "shell": ("cp: error writing '/scratch/data.tar': No space left on device\n", Kind.NO_SPACE,
              "no space left on the disk"),
    "quota": (raised("OSError: [Errno 122] Disk quota exceeded"), Kind.NO_SPACE, "disk quota exceeded"),
    "port": (raised("OSError: [Errno 98] Address already in use"), Kind.ADDRESS_IN_USE,
             "its address (port) is in use already"),
    "torch's port": (
        raised("RuntimeError: The server socket has failed to listen on any local network address. The server socket "
               "has failed to bind to [::]:29500 (errno: 98 - Address already in use). The server socket has failed to "
               "bind to ?UNKNOWN? (errno: 98 - Address already in use)."),
        Kind.ADDRESS_IN_USE, "port 29500 is in use already",
    ),
    "torch's port now": (
        raised("torch.distributed.DistNetworkError: The server socket has failed to listen on any local network "
               "address. port: 29500, useIpv6: true, code: -98, name: EADDRINUSE, message: address already in use"),
        Kind.ADDRESS_IN_USE, "port 29500 is in use already",
    ),
    "asyncio's port": (
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use\n",
        Kind.ADDRESS_IN_USE, "port 8000 is in use already",
    ),
    "old driver": (
        raised("RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your "
               "GPU driver by downloading and installing a new version from the URL: "
               "http://www.nvidia.com/Download/index.aspx"),
        Kind.DRIVER, "the NVIDIA driver is too old for this CUDA",
    ),
    "other GPU": (
        raised("RuntimeError: CUDA error: no kernel image is available for execution on the device"), Kind.DRIVER,
        "this build of CUDA code knows no such GPU",
    ),
    "library": ("Failed to initialize NVML: Driver/library version mismatch\n", Kind.DRIVER,
                "the NVIDIA driver and its library differ in version"),
    "no GPU": (raised("RuntimeError: No CUDA GPUs are available"), Kind.NO_GPU, "no CUDA device was visible"),
    "no driver": (
        raised("RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and "
               "installed a driver from http://www.nvidia.com/Download/index.aspx"),
        Kind.NO_GPU, "no NVIDIA driver",
    ),
    "not its GPU": (raised("RuntimeError: CUDA error: invalid device ordinal"), Kind.NO_GPU,
                    "it asked for a GPU that it was not given"),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_what_frameworks_print_when_they_end(name: str) -> None:
    text, kind, said = KNOWN[name]
    assert diagnose(text, 1) == Diagnosis(kind, said)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    "footer",
    [
        "wandb: \nwandb: Run history:\nwandb:  loss ▁▂\nwandb: Run summary:\nwandb:  loss 0.3\nwandb: 🚀 View run x\n",
        "\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.\n",
        "  3%|▎         | 30/1000 [00:03<01:37, 10.00it/s]\n",
        "/usr/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to "
        "be 6 leaked semaphore objects to clean up at shutdown\n  warnings.warn('resource_tracker: There appear to '\n",
        "train.sh: the training ended with code 1\n",
        "Exception ignored in: <function Pool.__del__ at 0x7f>\nTraceback (most recent call last):\n"
        '  File "/usr/lib/python3.11/multiprocessing/pool.py", line 268, in __del__\nResourceWarning: unclosed pool\n',
    ],
    ids=["wandb", "hydra", "tqdm", "semaphores", "a shell script", "ignored"],
)
def test_what_is_printed_after_the_end_hides_nothing(name: str, footer: str) -> None:
    text, kind, said = KNOWN[name]
    assert diagnose(text + footer, 1) == Diagnosis(kind, said)


@pytest.mark.parametrize("name", KNOWN)
def test_colours_returns_ranks_and_bytes_hide_nothing(name: str) -> None:
    text, kind, said = KNOWN[name]
    bar = "\r".join(f"{n}%|███ | {n}/100 [00:01<00:09, 9.9it/s, loss=0.{n}]" for n in range(100))
    shown = f"{bar}\n" + "".join(f"\x1b[31m{line}\x1b[0m\r\n" for line in text.splitlines())
    noise = random.Random(3).randbytes(500).decode(errors="replace").replace("\n", "")
    assert diagnose(f"{noise}\n{shown}", 1) == Diagnosis(kind, said)


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize(
    "after",
    [
        "batch skipped\nepoch 4 loss 0.31\nepoch 5 loss 0.30\n",
        "retrying with half the batch\n" + "".join(f"{n}%|██ | {n}/100 [00:01<00:09, 9.9it/s]\r" for n in range(9)),
        raised("ValueError: Expected input batch_size (32) to match target batch_size (16)."),
        "Epoch 4\n" + raised("KeyError: 'lr'"),
        "".join(f"wrote sample {n}\n" for n in range(30)),
    ],
    ids=["went on", "a bar", "another error", "both", "much"],
)
def test_an_error_that_was_survived_is_no_diagnosis(name: str, after: str) -> None:
    assert diagnose(KNOWN[name][0] + after, 1) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        raised("ValueError: bad"),
        raised("RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x5 and 6x7)"),
        raised("ValueError: bad") + "cp: cannot stat 'x': No such file\n",
        raised("RuntimeError: DataLoader worker (pid(s) 4711) exited unexpectedly"),
        "WARNING: CUDA out of memory, falling back to the CPU\nconfig error\n",
        "No module named 'flash_attn', using the slow one\nusage: train.py [-h]\n",
        "2024-05-02 10:11:12: W failed to allocate 10.00G (10737418240 bytes) from device: CUDA_ERROR_OUT_OF_MEMORY: "
        "out of memory\nusage: train.py [-h]\n",
        raised("subprocess.CalledProcessError: Command '['python', 'x.py']' returned non-zero exit status 1."),
        "(most recent call last)\nTraceback\n",
        "Traceback (most recent call last):\n",
    ],
)
def test_where_nothing_is_clear_there_is_no_diagnosis(text: str) -> None:
    assert diagnose(text, 1) is None


@pytest.mark.parametrize("code", [None, 0, 137, 143])
def test_what_was_killed_or_ended_well_is_not_judged_by_its_log(code: int | None) -> None:
    assert diagnose(TORCH + OOM_NOW, code) is None


def test_what_another_program_prints_after_an_error_is_not_taken_for_it() -> None:
    """post_run speaks on the same terminal."""
    assert diagnose(raised("ValueError: bad") + "cp: error writing 'x': No space left on device\n", 1) is None


def test_of_a_chain_the_last_one_counts_and_a_direct_cause() -> None:
    memory = raised("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    handling = "\nDuring handling of the above exception, another exception occurred:\n\n"
    cause = "\nThe above exception was the direct cause of the following exception:\n\n"
    disk, other = raised("OSError: [Errno 28] No space left on device"), raised("RuntimeError: training failed")
    assert diagnose(memory + handling + disk, 1) == Diagnosis(Kind.NO_SPACE, "no space left on the disk")
    assert diagnose(memory + handling + other, 1) is None
    assert diagnose(memory + cause + other, 1) == Diagnosis(Kind.CUDA_MEMORY, "CUDA out of memory")


HOSTILE = [
    "\x1b]" * (TAIL_BYTES // 2),
    "\x1b[" + "1;" * (TAIL_BYTES // 2),
    "\x1bP" * (TAIL_BYTES // 2),
    "Traceback (most recent call last):\n" * (TAIL_BYTES // 36),
    ("Traceback (most recent call last):\nEOFError\n") * (TAIL_BYTES // 45),
    "RESOURCE_EXHAUSTED: " * (TAIL_BYTES // 20),
    "Traceback (most recent call last):\n" + "a." * (TAIL_BYTES // 2),
    "Traceback (most recent call last):\nerrors_impl.X:\n" + "port 1234 " * (TAIL_BYTES // 10),
    "Traceback (most recent call last):\nerrors_impl.X:\n" + "]: 1234 \n" * (TAIL_BYTES // 9),
    "python: " * (TAIL_BYTES // 8),
    "epoch " * (TAIL_BYTES // 6),
    "Assertion `" * (TAIL_BYTES // 11) + "\nCUDA error: device-side assert triggered\n",
    "\r" * TAIL_BYTES,
    "[rank0]:" * (TAIL_BYTES // 8),
    "x" * TAIL_BYTES,
    " " * TAIL_BYTES,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_time_is_bounded_whatever_was_printed(text: str) -> None:
    diagnose("", 1)
    began = time.process_time()
    diagnose(text[-TAIL_BYTES:], 1)
    assert time.process_time() - began < 0.5


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_whatever_is_in_a_log_it_raises_nothing(data: bytes) -> None:
    diagnose(data.decode(errors="replace"), 1)


def test_a_huge_line_is_looked_at_where_it_begins() -> None:
    line = "torch.OutOfMemoryError: CUDA out of memory. " + "x" * 50_000
    assert diagnose(raised(line), 1) == Diagnosis(Kind.CUDA_MEMORY, "CUDA out of memory")


def test_a_reason_says_what_was_found_and_how_the_run_ended() -> None:
    found = Diagnosis(Kind.CUDA_MEMORY, "CUDA out of memory")
    assert Reason(ReasonCode.EXIT_CODE, {"code": 1}, found).text == "CUDA out of memory (exit code 1)"
    killed = Reason(ReasonCode.KILLED_BY_SIGNAL, {"code": 134, "signal": "ABRT"}, found)
    assert killed.text == "CUDA out of memory; exit code 134 (signal ABRT)"
    assert killed.diagnosis == found
    assert Reason(ReasonCode.EXIT_CODE, {"code": 1}).diagnosis is None
    limit = Reason(ReasonCode.TIME_LIMIT, {"limit": "60 s"})
    assert limit.diagnosis == Diagnosis(Kind.TIME_LIMIT, "ran longer than its time limit of 60 s")
    kernel = Reason(ReasonCode.OUT_OF_MEMORY, {"how": "exit code 137 (signal KILL)", "count": "1 process"})
    assert kernel.diagnosis is not None and kernel.diagnosis.kind is Kind.HOST_MEMORY
