"""What a job can't do under bubblewrap, tried by jobs that try: with a real server, a real bwrap, real limits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Serving, until
from tests.support import TIMEOUT, Lab
from tinksched.server.isolation import prepare
from tinksched.server.state import find

NOBODY = 65534


def _namespaces() -> bool:
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    return shutil.which("bwrap") is not None and subprocess.run(command, capture_output=True).returncode == 0


needs_bwrap = pytest.mark.skipif(not _namespaces(), reason="bubblewrap does not work here")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="to become somebody else, a test must be root")

Serve = Callable[..., Serving]


@pytest.fixture
def isolated(serving: Serve) -> Callable[..., Serving]:
    """Servers whose jobs run under bubblewrap."""

    def make(**settings: object) -> Serving:
        return serving(**{"isolation": "bubblewrap", **settings}).start()

    return make


def run(server: Serving, code: str, **more: Any) -> dict[str, Any]:
    """The answer to a job with this code."""
    answer = server.submit(server.token("alice"), textwrap.dedent(code), **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def tell(server: Serving, code: str, **more: Any) -> Any:
    """What the code left in `told`."""
    before = "import json, os, signal, socket, subprocess, sys, time\ntold = {}\n"
    helper = """
    def attempt(what, do):
        try:
            told[what] = str(do())
        except OSError as error:
            told[what] = error.strerror
    """
    done = run(server, before + textwrap.dedent(helper) + textwrap.dedent(code) + "\nprint(json.dumps(told))\n", **more)
    assert done["exit_code"] == 0, done
    return json.loads(done["stdout"])


def processes_with(text: str) -> list[int]:
    """The pids of this machine whose command line has this text."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


# -- what a job sees


@needs_bwrap
def test_a_job_reads_nothing_of_the_server_nor_of_another_job(isolated: Callable[..., Serving]) -> None:
    server = isolated(cpu_slots=2)
    other = run(server, "open('secret', 'w').write('mine'); print('said')")["job_id"]
    state = server.state
    paths = [
        state, state / "jobs", state / "jobs" / other, state / "output" / other / "stdout", state / "results",
        state / ".tinksched", state / ".tinksched" / "state.sqlite", server.config, Path("/etc/shadow"), Path("/run"),
        Path("/home"), Path("/var"), Path("/root/.ssh"), Path("/etc/ssl/private"), Path("/dev/dri"),
    ]  # fmt: skip
    told = tell(server, f"for path in {list(map(str, paths))}: told[path] = os.path.exists(path)\n"
                        "told['jobs'] = os.listdir('..') == [os.environ['JOB_ID']]")  # fmt: skip
    # That a folder is there may be seen, where the job's own lies in it; nothing else is in it.
    above = {str(state), str(state / "jobs")}
    assert {path for path, there in told.items() if there} == above | {"jobs"}


@needs_bwrap
def test_a_job_writes_to_its_folder_and_to_memory_of_its_own(isolated: Callable[..., Serving]) -> None:
    server = isolated()
    probe = f"tinksched-{server.lab.id}"
    folders = [
        "/",
        "/usr",
        "/usr/bin",
        "/etc",
        "/dev",
        "/proc/sys/kernel",
        "/sys/class",
        sys.prefix,
        "/tmp",
        "/dev/shm",
        ".",
    ]
    told = tell(server, f"""
        for folder in {folders}:
            attempt(folder, lambda: open(os.path.join(folder, {probe!r}), 'w').write('x'))
    """)  # fmt: skip
    assert {path for path, said in told.items() if said == "1"} == {"/tmp", "/dev/shm", "."}
    assert not any((Path(folder) / probe).exists() for folder in folders)
    assert tell(server, f"told['again'] = os.path.exists('/tmp/{probe}')") == {"again": False}


@needs_bwrap
def test_a_job_is_alone_with_its_processes(isolated: Callable[..., Serving]) -> None:
    server = isolated()
    told = tell(server, f"""
        told['pids'] = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())
        told['me'] = os.getpid()
        for pid in ({os.getpid()}, {server.process.pid if server.process else 0}):
            attempt(str(pid), lambda: os.kill(pid, 0))
        links = [f'/proc/self/fd/{{n}}' for n in range(50)]
        told['descriptors'] = sorted(os.readlink(link) for link in links if os.path.islink(link))
        told['first'] = [os.readlink(entry.path) for entry in os.scandir('/proc/1/fd')]
        status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
        told['caps'] = [status[name] for name in ('CapEff', 'CapPrm', 'CapBnd')]
        told['privileges'] = status['NoNewPrivs']
        told['leader'] = os.getsid(0) in (os.getpid(), 1)
        attempt('terminal', lambda: os.open('/dev/tty', os.O_RDWR))
        told['input'] = sys.stdin.read()
    """)  # fmt: skip
    assert told["pids"] == [1, told["me"]] and told["leader"] and told["input"] == ""
    assert [told[str(pid)] for pid in (os.getpid(), server.process and server.process.pid)] == ["No such process"] * 2
    assert not [path for path in told["descriptors"] + told["first"] if "lease" in path or path.endswith(".sqlite")]
    assert (
        len([path for path in told["descriptors"] if path.endswith(("/stdout", "/stderr")) or path == "/dev/null"]) == 3
    )
    assert set(told["caps"]) == {"0" * 16} and told["privileges"] == "1"
    assert told["terminal"] == "No such device or address"


@needs_bwrap
@pytest.mark.parametrize("on", [True, False])
def test_the_network_is_there_or_not(isolated: Callable[..., Serving], on: bool) -> None:
    server = isolated(network=on)
    port = int(server.url.rpartition(":")[2])
    told = tell(server, f"""
        attempt('server', lambda: socket.create_connection(('127.0.0.1', {port}), 5) and 'reached')
        listener = socket.create_server(('localhost', 0))
        attempt('loopback', lambda: socket.create_connection(listener.getsockname(), 5) and 'reached')
        attempt('name', lambda: socket.gethostbyname(socket.gethostname()))
        told['devices'] = [name for _, name in socket.if_nameindex()]
    """)  # fmt: skip
    assert told["loopback"] == "reached"
    if on:
        assert told["server"] == "reached"
    else:
        assert told["server"] == "Connection refused" and told["devices"] == ["lo"] and told["name"] == "127.0.0.1"


@needs_bwrap
def test_more_folders_can_be_shown_and_the_state_in_them_can_not(isolated: Callable[..., Serving], lab: Lab) -> None:
    data = lab.folder / "data"
    data.mkdir()
    (data / "set").write_text("numbers")
    (data / "private").mkdir()
    link = lab.folder / "link"
    link.symlink_to(data)
    state, results = data / "private" / "state", data / "results"
    server = isolated(read_only=[str(link)], state_dir=str(state), results_dir=str(results))
    told = tell(server, f"""
        told['set'] = open('{link}/set').read()
        attempt('write', lambda: open('{data}/new', 'w'))
        attempt('replace', lambda: open('{state}/new', 'w'))
        told['state'] = os.listdir('{state}')
        told['results'] = os.listdir('{results}')
    """)  # fmt: skip
    read_only = "Read-only file system"
    assert told == {"set": "numbers", "write": read_only, "replace": read_only, "state": ["jobs"], "results": []}
    assert len(list(results.iterdir())) == 1


@needs_bwrap
def test_an_interpreter_anywhere_works_with_what_it_imports(isolated: Callable[..., Serving], lab: Lab) -> None:
    """A virtual environment whose python is a link to a link, and a folder that a .pth file adds."""
    venv, library = lab.folder / "venv", lab.folder / "library"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin" / "python"
    between = lab.folder / "between"
    between.symlink_to(os.path.realpath(python))
    python.unlink()
    python.symlink_to("../../between")
    library.mkdir()
    (library / "added.py").write_text("answer = 42\n")
    (site,) = (venv / "lib").glob("python3*/site-packages")
    (site / "added.pth").write_text(f"{library}\n")
    server = isolated(job_python=str(python))
    told = tell(
        server, "import added\ntold.update(answer=added.answer, prefix=sys.prefix, ctypes=bool(__import__('ctypes')))"
    )
    assert told == {"answer": 42, "prefix": str(venv), "ctypes": True}


@needs_bwrap
def test_libraries_of_the_servers_own_path_are_found_and_gpu_variables_arrive(serving: Serve, lab: Lab) -> None:
    libraries = lab.folder / "libraries"
    libraries.mkdir()
    (libraries / "x").write_text("there")
    lab.environment["LD_LIBRARY_PATH"] = f"{libraries}:"
    server = serving(isolation="bubblewrap", use_gpus=[0, 1]).start()
    told = tell(server, """
        told['variables'] = {name: os.environ[name] for name in os.environ if name.startswith(('CUDA', 'LD_'))}
        told['x'] = open(os.environ['LD_LIBRARY_PATH'].split(':')[0] + '/x').read()
    """)  # fmt: skip
    assert told["x"] == "there"
    assert told["variables"]["CUDA_VISIBLE_DEVICES"] in ("0", "1")
    assert told["variables"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


SHOW_DEVICES = """
import subprocess, sys
from pathlib import Path
from tinksched.server import isolation, state
found = isolation.prepare(state.find(Path(sys.argv[1])))
subprocess.run(found.command(Path(sys.argv[2])))
"""


@needs_bwrap
def test_the_devices_of_the_gpus_are_there(serving: Serve, tmp_path: Path) -> None:
    """On a machine with device nodes of such names; what is behind them is nothing."""
    server = serving(isolation="bubblewrap")
    (server.state / "results").mkdir(parents=True)
    names = ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-caps/nvidia-cap1", "dri/card0", "sda"]
    nodes = [word for name in names for word in ("--dev-bind", "/dev/null", f"/dev/{name}")]
    machine = ["bwrap", "--bind", "/", "/", "--dev", "/dev", *nodes, sys.executable, "-c", SHOW_DEVICES]
    (tmp_path / "code.py").write_text(
        "import os\nprint(*os.listdir('/dev'), *os.listdir('/dev/nvidia-caps'))\n"
        "open('/dev/nvidia1', 'w').write('x')\nprint('written')\n"
    )
    done = subprocess.run([*machine, str(server.config), str(tmp_path)], capture_output=True, text=True, check=True)
    seen = set(done.stdout.split())
    assert {"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "nvidia-cap1", "written"} <= seen
    assert not {"dri", "sda", "mem", "kmsg", "vda"} & seen


# -- what the server makes of what a job leaves


@needs_bwrap
@pytest.mark.parametrize("trick", ["os.symlink(target, 'results.jsonl')", "os.link(target, 'results.jsonl')",
                                   "os.mkfifo('results.jsonl')", "os.mkdir('results.jsonl')"])  # fmt: skip
@pytest.mark.parametrize("kind", ["bubblewrap", "none"])
def test_results_that_lead_elsewhere_are_not_followed(isolated: Callable[..., Serving], trick: str, kind: str) -> None:
    server = isolated(isolation=kind)
    secret = server.folder / "secret"
    secret.write_text("of the server\n")
    done = run(server, f"""
        import os
        target = {str(secret)!r}
        try:
            {trick}
        except OSError:
            os.symlink(target, 'results.jsonl')
        print('printed')
    """)  # fmt: skip
    assert (done["status"], done["stdout"]) == ("completed", "printed\n")
    assert server.job(server.token("alice"), done["job_id"], "results")["stdout"] == "printed\n"
    (file,) = (server.state / "results").iterdir()
    assert file.read_text() == "printed\n"


# -- how it ends


@needs_bwrap
@pytest.mark.parametrize("executor", ["local", "tmux"])
def test_exit_codes_and_output_arrive_as_they_are(isolated: Callable[..., Serving], executor: str, lab: Lab) -> None:
    server = isolated(executor=executor)
    for code in (0, 1, 77, 255):
        assert run(server, f"import sys; sys.exit({code})")["exit_code"] == code
    killed = run(server, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert killed["exit_code"] == 139 and "SEGV" in killed["reason"]
    many = run(server, """
        import subprocess, sys
        print('x' * 100_000 + '\\né', flush=True)
        sys.stderr.write('y' * 100_000)
        sys.stderr.flush()
        subprocess.Popen(['sh', '-c', 'echo late >&2; echo last']).wait()
    """)  # fmt: skip
    assert (many["stdout"], many["stderr"]) == ("x" * 100_000 + "\né\nlast\n", "y" * 100_000 + "late\n")
    if executor == "tmux":
        lab.tmux("kill-server")


DAEMON = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve('/bin/sh', ['sh', '-c', 'trap "" TERM HUP INT; while :; do sleep 1; done; : MARK'], {})
        os._exit(0)
    os.wait()
"""


@needs_bwrap
def test_a_daemon_is_gone_with_its_job(isolated: Callable[..., Serving]) -> None:
    """With a session, a parent and an environment of its own, and no ear for signals."""
    server = isolated()
    mark = f"daemon-{server.lab.id}"
    code = textwrap.dedent(DAEMON).replace("MARK", mark)
    done = run(server, code + "print(open('/proc/uptime').read())")
    assert done["status"] == "completed"
    until(lambda: processes_with(mark), lambda pids: not pids)


def begun(server: Serving, token: str, code: str, **more: Any) -> str:
    """A job that has begun, and printed `begun`."""
    job = server.submit(token, textwrap.dedent(code), wait=False, **more).json()["job_id"]
    until(lambda: (server.state / "output" / job / "stdout").read_text(), lambda text: "begun" in text)
    return str(job)


def cancel(server: Serving, token: str, job: str) -> dict[str, Any]:
    """Cancel a job and wait for its end."""
    with server.client(token) as client:
        assert client.post(f"/api/cancel/{job}").status_code == 200
    server.wait_for(token, job, "cancelled")
    return server.job(token, job, "results")


@needs_bwrap
@pytest.mark.parametrize("executor", ["local", "tmux"])
def test_a_cancelled_job_gets_term_and_time(isolated: Callable[..., Serving], executor: str, lab: Lab) -> None:
    server = isolated(stop_grace=30, executor=executor)
    token = server.token("alice")
    job = begun(server, token, """
        import signal, sys, time
        def end(*_):
            time.sleep(0.5)
            print('saved', flush=True)
            sys.exit(5)
        signal.signal(signal.SIGTERM, end)
        print('begun', flush=True)
        time.sleep(600)
    """)  # fmt: skip
    done = cancel(server, token, job)
    assert (done["stdout"], done["exit_code"]) == ("begun\nsaved\n", 5)
    if executor == "tmux":
        lab.tmux("kill-server")


@needs_bwrap
def test_a_cancelled_job_that_does_nothing_about_it_ends_at_once(isolated: Callable[..., Serving]) -> None:
    server = isolated(stop_grace=600)
    token = server.token("alice")
    job = begun(server, token, "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    assert cancel(server, token, job)["exit_code"] == 128 + signal.SIGTERM


@needs_bwrap
def test_a_cancelled_job_that_hears_nothing_is_killed_with_all_it_has(isolated: Callable[..., Serving]) -> None:
    server = isolated(stop_grace=1)
    token = server.token("alice")
    mark = f"deaf-{server.lab.id}"
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun', flush=True)\ntime.sleep(600)\n"
    job = begun(server, token, f"{textwrap.dedent(DAEMON).replace('MARK', mark)}\nimport signal\n{deaf}")
    assert processes_with(mark)
    cancel(server, token, job)
    assert not processes_with(mark) and not processes_with(job)
    assert run(server, "print('next')")["status"] == "completed"  # the slot is free


@needs_bwrap
def test_one_that_takes_too_long_is_killed_with_all_it_has(isolated: Callable[..., Serving]) -> None:
    server = isolated(stop_grace=1, timeout_multiplier=1)
    mark = f"slow-{server.lab.id}"
    code = textwrap.dedent(DAEMON).replace("MARK", mark)
    done = run(
        server,
        f"{code}\nimport signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)",
        expected_time=1,
    )
    assert done["status"] == "failed" and "timed out after" in done["reason"]
    assert not processes_with(mark) and not processes_with(done["job_id"])


@needs_bwrap
@pytest.mark.parametrize("whom", ["bwrap", "script", "wrapper"])
def test_whatever_is_killed_around_a_job_it_does_not_stay(isolated: Callable[..., Serving], whom: str) -> None:
    server = isolated()
    token = server.token("alice")
    mark = f"stray-{server.lab.id}"
    code = textwrap.dedent(DAEMON).replace("MARK", mark)
    job = begun(server, token, f"{code}\nprint('begun', flush=True)\ntime.sleep(600)")
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in processes_with(job)}
    if whom == "wrapper":
        wrappers = processes_with(str(server.state / ".tinksched" / "runs"))
        victim = max(pid for pid in wrappers if b"wrapper.sh" in Path(f"/proc/{pid}/cmdline").read_bytes())
    else:
        first = [b"bwrap", b"--unshare-all"]
        if whom == "script":
            first = [b"/bin/sh", os.fsencode(server.state / "job.sh")]
        victim = min(pid for pid, words in lines.items() if words[:2] == first)
    os.kill(victim, signal.SIGKILL)
    server.wait_for(token, job, "failed") if whom != "wrapper" else cancel(server, token, job)
    until(lambda: processes_with(mark) + processes_with(job), lambda pids: not pids)
    assert run(server, "print('next')")["status"] == "completed"


@needs_bwrap
def test_a_job_ends_with_its_session(isolated: Callable[..., Serving], lab: Lab) -> None:
    server = isolated(executor="tmux")
    token = server.token("alice")
    mark = f"session-{server.lab.id}"
    code = textwrap.dedent(DAEMON).replace("MARK", mark)
    job = begun(server, token, f"{code}\nprint('begun', flush=True)\ntime.sleep(600)")
    (session,) = [name for name in lab.sessions() if job in name]
    lab.tmux("kill-session", "-t", f"={session}")
    assert server.wait_for(token, job, "failed")["reason"]
    until(lambda: processes_with(mark), lambda pids: not pids)
    lab.tmux("kill-server")


# -- limits


@needs_bwrap
@pytest.mark.parametrize("kind", ["bubblewrap", "none"])
def test_the_limits_hold(isolated: Callable[..., Serving], kind: str) -> None:
    server = isolated(isolation=kind, job_cpu_time="1s", job_memory="500MB", job_file_size="1MB")
    done = run(server, "while True: pass")
    assert (done["status"], done["exit_code"]) == ("failed", 128 + signal.SIGXCPU)
    assert "signal XCPU" in done["reason"]
    deaf = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert run(server, deaf)["exit_code"] == 128 + signal.SIGKILL
    told = tell(server, """
        import resource
        attempt('file', lambda: open('big', 'wb').write(b'x' * 2_000_000))
        told['size'] = os.path.getsize('big')
        try:
            bytearray(1_000_000_000)
        except MemoryError:
            told['memory'] = 'no'
        told['core'] = resource.getrlimit(resource.RLIMIT_CORE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
        except (ValueError, OSError):
            told['more'] = 'no'
    """)  # fmt: skip
    is_root = kind == "none" and os.geteuid() == 0  # who may have more
    assert told.pop("more", None) == "no" or is_root
    assert told == {"file": "File too large", "size": 1_000_000, "memory": "no", "core": [0, 0]}


def test_no_limit_is_above_what_the_server_may_have(serving: Serve) -> None:
    """The kernel would refuse it, and no job would start."""
    server = serving(job_file_size="10GB")
    assert "--fsize=10000000000:10000000000" in prepared(server)["script"]
    assert "--fsize=1000000:1000000" in prepared(server, "prlimit", "--fsize=1000000:1000000")["script"]


PREPARE = """
import json, sys
from pathlib import Path
from tinksched.errors import TinkschedError
from tinksched.server import isolation, state
try:
    settings = state.find(Path(sys.argv[1]))
    settings.results_dir.mkdir(parents=True, exist_ok=True)
    found = isolation.prepare(settings)
    print(json.dumps({"kind": found.kind, "note": found.note, "script": found.script.read_text()}))
except TinkschedError as error:
    print(json.dumps({"error": error.message}))
"""


def prepared(server: Serving, *before: str) -> dict[str, Any]:
    """What `prepare` makes of a server's settings, in a process that is started by another program."""
    command = [*before, sys.executable, "-c", PREPARE, str(server.config)]
    done = subprocess.run(command, env=server.lab.environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# -- as an ordinary user


@pytest.fixture
def public() -> Iterator[Path]:
    """The state folder of a server that the user nobody runs, with the folders of two jobs."""
    with tempfile.TemporaryDirectory(prefix="tinksched-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("state/results", "state/jobs/one", "state/jobs/two"):
            (folder / part).mkdir(parents=True)
        (folder / "server.yml").write_text(
            f"state_dir: {folder}/state\nisolation: bubblewrap\njob_python: /usr/bin/python3\njob_processes: 30\n"
            f"read_only: [{folder}]\n"
        )
        yield folder


def as_nobody(folder: Path, code: str) -> subprocess.Popen[str]:
    """Begin a job of this server as nobody."""
    found = prepare(find(folder / "server.yml"))
    job = folder / "state" / "jobs" / "one"
    (job / "code.py").write_text(textwrap.dedent(code))
    for path in [folder / "state", *(folder / "state").rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.Popen([*become, *found.command(job)], stdout=subprocess.PIPE, text=True)


@needs_bwrap
@needs_root
def test_an_ordinary_user_is_isolated_as_well_and_a_fork_bomb_hits_its_job_alone(public: Path) -> None:
    """The kernel counts the processes of a user namespace: other jobs of the same user take nothing from a job."""
    # It prints once it has all that it may have, and then stays.
    bomb = """
        import os, signal
        count = 0
        try:
            while count < 1000:
                if os.fork() == 0:
                    signal.pause()
                count += 1
        except OSError as error:
            print(count, error.strerror, flush=True)
        print(os.listdir('..'), os.path.exists('../../job.sh'), os.getuid(), flush=True)
        signal.pause()
    """
    jobs = [as_nobody(public, bomb) for _ in range(2)]
    try:
        for job in jobs:
            assert job.stdout is not None
            count, why = job.stdout.readline().split(" ", 1)
            assert 20 < int(count) < 30 and why == "Resource temporarily unavailable\n"
            assert job.stdout.readline() == f"['one'] False {NOBODY}\n"
    finally:
        for job in jobs:
            job.kill()
        for job in jobs:
            job.communicate()
    until(lambda: processes_with(f"{public}/"), lambda pids: not pids)


@needs_bwrap
@needs_root
def test_what_is_hidden_stays_so_in_namespaces_of_a_jobs_own(public: Path) -> None:
    """Their root may mount, but neither take away what was mounted before nor write to it."""
    code = f"""
        import subprocess
        def within(script):
            command = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            print(done.stdout.split(), bool(done.returncode))
        within('id -u; mount -t tmpfs none /tmp')
        within('umount {public}/state; umount -l {public}/state; umount -l {public}; ls {public} {public}/state')
        within('mount -o remount,rw,bind {public}; touch {public}/x')
        within('mount -o remount,rw,bind /usr; touch /usr/x')
    """
    job = as_nobody(public, code)
    can, seen, *written = job.communicate(timeout=TIMEOUT)[0].splitlines()
    assert can == "['0'] False"
    names = [f"{public}:", "server.yml", "state", f"{public}/state:", "jobs"]
    assert seen == f"{names} False"
    assert written == ["[] True"] * 2 and not (public / "x").exists()


# -- whether it works here


NO_NAMESPACES = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all "$@"'


@needs_bwrap
def test_a_user_who_may_make_no_namespaces_is_told(serving: Serve) -> None:
    server = serving(isolation="auto")
    there = ("unshare", "--user", "--map-root-user", "sh", "-c", NO_NAMESPACES, "sh")
    server.state.mkdir()
    found = prepared(server, *there)
    assert found["kind"] == "none" and "this system lets no ordinary user make user namespaces" in found["note"]
    assert "bwrap" not in found["script"]
    server.configure(isolation="bubblewrap")
    assert "lets no ordinary user make user namespaces" in prepared(server, *there)["error"]


def without_bwrap(lab: Lab) -> None:
    """All programs but this one."""
    programs = lab.folder / "programs"
    programs.mkdir()
    for folder in reversed(lab.environment["PATH"].split(":")):
        for path in Path(folder).glob("*"):
            if path.name != "bwrap" and not (programs / path.name).is_symlink():
                (programs / path.name).symlink_to(path)
    lab.environment["PATH"] = str(programs)


def refused(server: Serving, **settings: object) -> str:
    """What a server says that does not start."""
    server.configure(**settings)
    answer = server.run("serve", code=2)
    assert "Traceback" not in answer.text
    return answer.err


def test_without_bubblewrap_only_loopback_is_served_unless_none_is_written(serving: Serve, lab: Lab) -> None:
    without_bwrap(lab)
    server = serving()
    assert "isolation is bubblewrap, and there is no bwrap on PATH" in refused(server, isolation="bubblewrap")
    said = refused(server, isolation="auto", host="0.0.0.0")
    assert "submitted code would run as this user, not isolated: there is no bwrap on PATH" in said
    assert "isolation: none" in said
    said = refused(server, isolation="auto", trusted_proxies=["127.0.0.1"])
    assert "host is 127.0.0.1, behind trusted_proxies, and submitted code would run as this user" in said
    server.configure(isolation="auto")
    assert run(server.start(), "print('here')")["stdout"] == "here\n"
    server.stop()
    server.configure(isolation="none", host="0.0.0.0")
    server.start()


@needs_bwrap
def test_with_bubblewrap_every_address_may_be_served(serving: Serve) -> None:
    server = serving(isolation="auto", host="0.0.0.0").start()
    server.url = server.url.replace("0.0.0.0", "127.0.0.1")
    assert run(server, "import os; print(os.getppid())")["stdout"] == "1\n"


def test_a_jobs_interpreter_that_is_none_is_refused(serving: Serve, lab: Lab) -> None:
    server = serving()
    assert "job_python: there is no program /no/python" in refused(server, job_python="/no/python")
    assert "job_python: there is no program no-python" in refused(server, job_python="no-python")
    assert f"{server.folder}/venv/bin/python" in refused(server, job_python="venv/bin/python")
    assert "is no Python that works" in refused(server, job_python="/bin/ls")
    assert "command_prefix: there is no program no-docker" in refused(server, command_prefix=["no-docker", "run"])


@needs_bwrap
def test_folders_that_jobs_may_not_see_are_refused(serving: Serve) -> None:
    server = serving()
    server.token("alice")
    server.state.joinpath("jobs").mkdir()
    for folder, said in {
        "/no/folder": "does not exist",
        "/": "have a / of their own",
        "/tmp": "have a /tmp of their own",
        f"{server.state}/jobs": "the server's own state",
    }.items():
        assert said in refused(server, isolation="bubblewrap", read_only=[folder])


@needs_bwrap
@pytest.mark.parametrize("kind", ["bubblewrap", "none"])
def test_a_prefix_comes_before_the_interpreter(isolated: Callable[..., Serving], kind: str) -> None:
    server = isolated(isolation=kind, command_prefix=["env", "PREFIX={x} $HOME"])
    assert run(server, "import os; print(os.environ['PREFIX'])")["stdout"] == "{x} $HOME\n"


def test_an_interpreter_in_a_container_need_not_be_here(serving: Serve, lab: Lab) -> None:
    container = lab.folder / "container"
    container.write_text('#!/bin/sh\necho "in a container: $1"\n')
    container.chmod(0o755)
    server = serving(command_prefix=[str(container)], job_python="/opt/there/python").start()
    assert run(server, "print('never')")["stdout"] == "in a container: /opt/there/python\n"


@needs_bwrap
def test_a_job_that_waited_gets_what_the_newest_server_allows(isolated: Callable[..., Serving], lab: Lab) -> None:
    server = isolated()
    token = server.token("alice")
    first = begun(server, token, "import time\nprint('begun', flush=True)\ntime.sleep(600)")
    code = "import socket; print([name for _, name in socket.if_nameindex()])"
    second = server.submit(token, code, wait=False).json()["job_id"]
    server.stop()
    server.configure(isolation="bubblewrap", network=False)
    server.start()
    cancel(server, token, first)
    server.wait_for(token, second, "completed")
    assert server.job(token, second, "results")["stdout"] == "['lo']\n"
