"""Which GPUs the scheduler uses: the rules as tables, and what holds for every input."""

from __future__ import annotations

import string
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinksched.errors import UsageError
from tinksched.host.gpus import (
    NO_DRIVER,
    Device,
    Inventory,
    Resolved,
    exported,
    instance_number,
    known_again,
    lease_name,
    resolve,
)
from tinksched.host.nvml import discover

UUIDS = ("GPU-aaaa-0", "GPU-aabb-1", "GPU-bbbb-2", "GPU-cccc-3")
FOUR = Inventory(tuple(Device(i, uuid, "H200", 141) for i, uuid in enumerate(UUIDS)), driver=True, problem=None)
ONE = Inventory(FOUR.devices[:1], driver=True, problem=None)
DRIVER_WITHOUT_GPU = Inventory((), driver=True, problem=None)
NO_NVML = Inventory((), driver=False, problem=None)
SPLIT = Inventory(
    (
        Device(0, "GPU-aaaa-0"), Device(1, "GPU-bbbb-1", divided=True), Device(200, "MIG-cc-0", parent=1),
        Device(201, "MIG-cd-1", parent=1), Device(2, "GPU-dddd-2"),
    ),
    driver=True, problem=None,
)  # fmt: skip
HALF = Inventory((Device(0, "GPU-aaaa-0", divided=True),), driver=True, problem=None)
BROKEN = Inventory((), driver=True, problem="NVML fails (Driver Not Loaded)")
ONE_SILENT = Inventory((*FOUR.devices[:2], Device(2)), driver=True, problem="NVML fails for GPU 2 (GPU is lost)")
ALL_SILENT = Inventory((Device(0),), driver=True, problem="NVML fails for GPU 0 (GPU is lost)")
# A whole UUID counts before a beginning: the second device's is the beginning of the first's.
NESTED = Inventory((Device(0, "GPU-10"), Device(1, "GPU-1")), driver=True, problem=None)


def decide(inventory: Inventory, **asked: Any) -> Resolved:
    return resolve(inventory, **{"gpu_count": None, "use_gpus": None, "visible": None, **asked})


@pytest.mark.parametrize(
    ("inventory", "asked", "indices"),
    [
        pytest.param(FOUR, {}, [0, 1, 2, 3], id="auto: all"),
        pytest.param(FOUR, {"gpu_count": 2}, [0, 1], id="a count: the first"),
        pytest.param(FOUR, {"gpu_count": 4}, [0, 1, 2, 3], id="a count: all"),
        pytest.param(FOUR, {"use_gpus": (3, 1)}, [3, 1], id="indices, in order of preference"),
        pytest.param(FOUR, {"use_gpus": ("3",)}, [3], id="an index in quotes"),
        pytest.param(FOUR, {"use_gpus": (2,), "gpu_count": 4}, [2], id="use_gpus wins over a count"),
        pytest.param(FOUR, {"use_gpus": (2,), "gpu_count": 99}, [2], id="use_gpus wins over an impossible count"),
        pytest.param(FOUR, {"use_gpus": ("GPU-bbbb-2", 0)}, [2, 0], id="a UUID and an index"),
        pytest.param(FOUR, {"use_gpus": ("GPU-b", "GPU-aab")}, [2, 1], id="beginnings of UUIDs"),
        pytest.param(NESTED, {"use_gpus": ("GPU-1",)}, [1], id="a whole UUID before a beginning"),
        pytest.param(FOUR, {"visible": "2"}, [2], id="auto within the allowed set"),
        pytest.param(FOUR, {"visible": "3, 1"}, [3, 1], id="the allowed set's order"),
        pytest.param(FOUR, {"visible": "GPU-cccc-3,GPU-aab"}, [3, 1], id="UUIDs in the allowed set"),
        pytest.param(FOUR, {"visible": "3,1,0", "gpu_count": 2}, [3, 1], id="a count within the allowed set"),
        pytest.param(FOUR, {"visible": "3,1", "use_gpus": (1, "GPU-c")}, [1, 3], id="use_gpus within the allowed set"),
        pytest.param(ONE_SILENT, {}, [0, 1], id="auto: not a device that doesn't answer"),
        pytest.param(ONE_SILENT, {"gpu_count": 2}, [0, 1], id="nor is it counted"),
        pytest.param(ONE_SILENT, {"visible": "2,1"}, [1], id="nor used because it is allowed"),
        pytest.param(SPLIT, {}, [0, 200, 201, 2], id="auto: whole GPUs and instances, not what is divided"),
        pytest.param(SPLIT, {"gpu_count": 4}, [0, 200, 201, 2], id="a count of those"),
        pytest.param(SPLIT, {"use_gpus": ("MIG-cd-1", 2)}, [201, 2], id="an instance by UUID"),
        pytest.param(SPLIT, {"use_gpus": ("MIG-cc", 201)}, [200, 201], id="by a beginning, and by number"),
        pytest.param(SPLIT, {"visible": "MIG-cd,2"}, [201, 2], id="an instance in the allowed set"),
        pytest.param(NO_NVML, {}, [0], id="no driver, auto: one"),
        pytest.param(NO_NVML, {"gpu_count": 3}, [0, 1, 2], id="no driver: a count is trusted"),
        pytest.param(NO_NVML, {"use_gpus": (5, "2")}, [5, 2], id="no driver: indices are trusted"),
        pytest.param(NO_NVML, {"visible": ""}, [0], id="no driver: CUDA_VISIBLE_DEVICES is ignored"),
        pytest.param(NO_NVML, {"visible": "9,x", "gpu_count": 2}, [0, 1], id="no driver: whatever it holds"),
    ],
)
def test_which_gpus_are_used(inventory: Inventory, asked: dict[str, Any], indices: list[int]) -> None:
    found = {device.index: device for device in inventory.devices}
    expected = tuple(found.get(index, Device(index)) for index in indices)
    assert decide(inventory, **asked).gpus == expected


@pytest.mark.parametrize(
    ("inventory", "note"),
    [
        (FOUR, None),
        (NO_NVML, NO_DRIVER),
        (ONE_SILENT, "NVML fails for GPU 2 (GPU is lost)"),
        (Inventory((), driver=False, problem="no nvidia-ml-py"), "no nvidia-ml-py: slots only"),
    ],
)
def test_the_note_says_what_status_should_say(inventory: Inventory, note: str | None) -> None:
    assert decide(inventory).note == note


HERE = "this machine has GPUs 0-3"


@pytest.mark.parametrize(
    ("inventory", "asked", "message"),
    [
        (FOUR, {"use_gpus": (7,)}, f"GPU 7 does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": (-1,)}, f"GPU '-1' does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": ("GPU-dddd",)}, f"GPU 'GPU-dddd' does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": ("GPU-",)}, f"GPU 'GPU-' does not exist here; {HERE} (use_gpus)"),
        (ONE, {"use_gpus": ("GPU-",)}, "GPU 'GPU-' does not exist here; this machine has GPU 0 (use_gpus)"),
        (FOUR, {"use_gpus": ("aaaa",)}, f"GPU 'aaaa' does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": ("MIG-aaaa",)}, f"GPU 'MIG-aaaa' does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": (True,)}, f"GPU 'True' does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": ("",)}, f"GPU '' does not exist here; {HERE} (use_gpus)"),
        (FOUR, {"use_gpus": ("GPU-aa",)}, "GPU-aa is the beginning of the UUIDs of several GPUs: GPUs 0, 1 (use_gpus)"),
        (FOUR, {"use_gpus": (1, 1)}, "GPU 1 is named twice, as 1 and as 1 (use_gpus)"),
        (FOUR, {"use_gpus": (1, 2, "GPU-aab")}, "GPU 1 is named twice, as 1 and as GPU-aab (use_gpus)"),
        (FOUR, {"use_gpus": ()}, "use_gpus names no GPU; leave it out to use all that there are"),
        (FOUR, {"gpu_count": 5}, "gpu_count is 5, but this machine has 4: GPUs 0-3"),
        (ONE, {"gpu_count": 2}, "gpu_count is 2, but this machine has 1: GPU 0"),
        (FOUR, {"gpu_count": 0}, "gpu_count is 0; at least 1 is needed, or `auto`"),
        (FOUR, {"visible": ""}, "CUDA_VISIBLE_DEVICES is empty, and so allows no GPU"),
        (FOUR, {"visible": " ", "use_gpus": (0,)}, "CUDA_VISIBLE_DEVICES is empty, and so allows no GPU"),
        (FOUR, {"visible": "0,8,1"}, f"GPU 8 does not exist here; {HERE} (CUDA_VISIBLE_DEVICES)"),
        (FOUR, {"visible": "-1"}, f"GPU '-1' does not exist here; {HERE} (CUDA_VISIBLE_DEVICES)"),
        (FOUR, {"visible": "0,,1"}, f"GPU '' does not exist here; {HERE} (CUDA_VISIBLE_DEVICES)"),
        (FOUR, {"visible": "0,0"}, "GPU 0 is named twice, as 0 and as 0 (CUDA_VISIBLE_DEVICES)"),
        (FOUR, {"visible": "GPU-aaaa,0"}, "GPU 0 is named twice, as GPU-aaaa and as 0 (CUDA_VISIBLE_DEVICES)"),
        (FOUR, {"visible": "1,3", "gpu_count": 3}, "gpu_count is 3, but CUDA_VISIBLE_DEVICES allows 2: GPUs 1, 3"),
        (FOUR, {"visible": "1,3", "gpu_count": 5}, "gpu_count is 5, but this machine has 4: GPUs 0-3"),
        (
            FOUR,
            {"visible": "0,2,3", "use_gpus": (0, 1)},
            "GPU 1 may not be used; CUDA_VISIBLE_DEVICES allows GPUs 0, 2, 3 only (use_gpus)",
        ),
        (DRIVER_WITHOUT_GPU, {}, "no GPU: the NVIDIA driver is there, but it counts 0 GPUs"),
        (DRIVER_WITHOUT_GPU, {"gpu_count": 1}, "no GPU: the NVIDIA driver is there, but it counts 0 GPUs"),
        (DRIVER_WITHOUT_GPU, {"use_gpus": (0,)}, "no GPU: the NVIDIA driver is there, but it counts 0 GPUs"),
        (
            NO_NVML,
            {"use_gpus": (0, "GPU-aaaa")},
            f"{NO_DRIVER}; GPUs can then be named by index only, not as 'GPU-aaaa' (use_gpus)",
        ),
        (NO_NVML, {"use_gpus": (-1,)}, f"{NO_DRIVER}; GPUs can then be named by index only, not as -1 (use_gpus)"),
        (NO_NVML, {"use_gpus": (1, "1")}, "GPU 1 is named twice, as 1 and as 1 (use_gpus)"),
        (NO_NVML, {"use_gpus": ()}, "use_gpus names no GPU; leave it out to use all that there are"),
        (NO_NVML, {"gpu_count": 0}, "gpu_count is 0; at least 1 is needed, or `auto`"),
        (
            SPLIT,
            {"use_gpus": (0, 1)},
            "GPU 1 is divided by MIG, and can't be used itself; its instances are 200 (MIG-cc-0), 201 (MIG-cd-1) "
            "(use_gpus)",
        ),
        (
            SPLIT,
            {"visible": "GPU-bbbb"},
            "GPU 1 is divided by MIG, and can't be used itself; its instances are 200 (MIG-cc-0), 201 (MIG-cd-1) "
            "(CUDA_VISIBLE_DEVICES)",
        ),
        (
            SPLIT,
            {"gpu_count": 5},
            "gpu_count is 5, but this machine has 4: GPUs 0, 2, MIG 200 (MIG-cc-0), 201 (MIG-cd-1)",
        ),
        (
            SPLIT,
            {"use_gpus": ("MIG-c",)},
            "MIG-c is the beginning of the UUIDs of several GPUs: MIG 200 (MIG-cc-0), 201 (MIG-cd-1) (use_gpus)",
        ),
        (ONE_SILENT, {"use_gpus": (0, 2)}, "GPU 2 does not answer (use_gpus)"),
        (ONE_SILENT, {"gpu_count": 3}, "gpu_count is 3, but this machine has 2: GPUs 0, 1; GPU 2 does not answer"),
        (ONE_SILENT, {"visible": "2"}, "GPU 2 does not answer (CUDA_VISIBLE_DEVICES)"),
        (ALL_SILENT, {}, "no GPU that can be used: NVML fails for GPU 0 (GPU is lost)"),
        (HALF, {}, "no GPU that can be used: MIG is on for GPU 0, and there is no instance"),
        (BROKEN, {"use_gpus": ("GPU-a",)}, f"{BROKEN.problem}, so the GPUs can't be told apart"),
        (BROKEN, {"gpu_count": 2}, f"{BROKEN.problem}, so the GPUs can't be told apart"),
    ],
)
def test_what_is_refused_and_how(inventory: Inventory, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        decide(inventory, **asked)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("inventory", "asked", "hint"),
    [
        (DRIVER_WITHOUT_GPU, {}, "nvidia-smi -L"),
        (FOUR, {"visible": ""}, "this machine has GPUs 0-3"),
        (FOUR, {"use_gpus": ("GPU-dddd",)}, "nvidia-smi -L"),
        (FOUR, {"visible": "MIG-dddd"}, "MIG instances with their UUIDs"),
    ],
)
def test_a_refusal_says_what_to_do_next(inventory: Inventory, asked: dict[str, Any], hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        decide(inventory, **asked)
    assert hint in (caught.value.hint or "")


GOOD_ENTRIES = st.integers(0, 3) | st.sampled_from([*UUIDS, "0", "3", "GPU-aaa", "GPU-b"])
ANY_ENTRIES = st.integers(-1, 6) | st.text("GPU-abc01 ,\u0663\u00b2", max_size=8)  # two of these look like digits
LISTS = st.lists(GOOD_ENTRIES, min_size=1, max_size=3) | st.lists(GOOD_ENTRIES | ANY_ENTRIES, max_size=4)
DEVICES = st.tuples(st.permutations(UUIDS), st.lists(st.booleans(), max_size=4)).map(
    lambda drawn: tuple(Device(i, drawn[0][i] if told else None) for i, told in enumerate(drawn[1]))
)
INVENTORIES = st.builds(Inventory, DEVICES, driver=st.just(True), problem=st.none() | st.just("NVML fails"))


@given(
    inventory=st.just(FOUR) | INVENTORIES | st.just(NO_NVML),
    gpu_count=st.none() | st.integers(-1, 6),
    use_gpus=st.none() | LISTS.map(tuple),
    visible=st.none() | LISTS.map(lambda entries: ",".join(map(str, entries))),
)
def test_no_gpu_twice_and_none_that_is_not_here_or_not_allowed(
    inventory: Inventory, gpu_count: int | None, use_gpus: tuple[int | str, ...] | None, visible: str | None
) -> None:
    try:
        gpus = resolve(inventory, gpu_count=gpu_count, use_gpus=use_gpus, visible=visible).gpus
    except UsageError:
        return
    assert gpus
    assert len({gpu.index for gpu in gpus}) == len(gpus)
    if not inventory.devices:
        return
    assert set(gpus) <= set(inventory.devices)
    if visible is not None:
        assert all(is_named(gpu, visible) for gpu in gpus)
    if use_gpus is not None:
        assert len(gpus) == len(use_gpus)
    elif gpu_count is not None:
        assert len(gpus) == gpu_count


def is_named(gpu: Device, visible: str) -> bool:
    entries = [entry.strip() for entry in visible.split(",")]
    return str(gpu.index) in entries or any(len(e) > len("GPU-") and (gpu.uuid or "").startswith(e) for e in entries)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (Device(0, "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"), "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"),
        (Device(3), "index-3"),
        (Device(0, "MIG-GPU-8932f937/1/0"), "MIG-GPU-8932f937_1_0"),
        (Device(0, ".."), "__"),
    ],
)
def test_a_lease_is_named_by_uuid_else_by_index(device: Device, name: str) -> None:
    assert lease_name(device) == name


def test_a_device_that_does_not_answer_now_is_known_by_its_name_of_before() -> None:
    names = {0: UUIDS[0], 2: UUIDS[2]}
    assert [device.uuid for device in known_again(ONE_SILENT, names).devices] == list(UUIDS[:3])
    assert known_again(ONE_SILENT, {2: UUIDS[0]}) == ONE_SILENT, "another one has that name now"
    assert known_again(ONE_SILENT, {2: "index-2"}) == ONE_SILENT


@given(st.none() | st.text(min_size=1))
def test_a_lease_name_is_a_safe_file_name(uuid: str | None) -> None:
    name = lease_name(Device(0, uuid))
    assert name
    assert set(name) <= {*string.ascii_letters, *string.digits, "-", "_"}


@pytest.mark.parametrize(
    ("indices", "names", "by_uuid", "text"),
    [
        ((0, 2), ("GPU-a", "GPU-c"), False, "0,2"),
        ((0, 2), ("GPU-a", "GPU-c"), True, "GPU-a,GPU-c"),
        ((200,), ("MIG-a",), False, "MIG-a"),
        ((0, 200), ("GPU-a", "MIG-a"), False, "GPU-a,MIG-a"),
        ((200,), ("MIG-GPU-8932f937_1_0",), False, "MIG-GPU-8932f937/1/0"),
        ((3,), ("index-3",), True, "3"),
        ((), (), False, ""),
    ],
)
def test_programs_get_indices_unless_uuids_are_asked_for_or_needed(
    indices: tuple[int, ...], names: tuple[str, ...], by_uuid: bool, text: str
) -> None:
    assert exported(indices, names, by_uuid=by_uuid) == text


@given(st.integers(0, 63), st.integers(0, 6))
def test_the_number_of_an_instance_is_the_index_of_no_gpu_and_of_no_other_instance(parent: int, place: int) -> None:
    number = instance_number(parent, place)
    assert number >= 100 and divmod(number, 100) == (parent + 1, place)


def test_without_pynvml_discover_says_so_and_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # the way of Python's import system to say "not there"
    found = discover()
    assert (found.devices, found.driver) == ((), False)
    assert "nvidia-ml-py can't be imported" in (found.problem or "")
