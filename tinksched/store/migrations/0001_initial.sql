-- Tasks, their runs, every transition of both, and a few facts of the workspace.
CREATE TABLE tasks (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice
    name            TEXT NOT NULL UNIQUE,
    config          TEXT NOT NULL,
    spec            TEXT NOT NULL,                       -- JSON: model.TaskSpec
    state           TEXT NOT NULL CHECK (state IN ('queued', 'active', 'done')),
    outcome         TEXT CHECK (outcome IN ('completed', 'failed', 'cancelled', 'timed_out', 'lost')),
    reason          TEXT,                                -- JSON: model.Reason
    request         TEXT CHECK (request IN ('cancel', 'kill_all')),
    requested_by    TEXT,
    priority        INTEGER NOT NULL,
    queue_number    INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    config_hash     TEXT,                                -- sha256 of the config when its last run began
    queued_at       REAL NOT NULL,                       -- seconds since the epoch, as all times here
    changed_at      REAL NOT NULL,
    CHECK ((state = 'done') = (outcome IS NOT NULL))
);
CREATE INDEX tasks_queue ON tasks (priority DESC, queue_number) WHERE state = 'queued';
CREATE INDEX tasks_active ON tasks (id) WHERE state = 'active';

CREATE TABLE runs (
    id              TEXT PRIMARY KEY,
    task_id         INTEGER NOT NULL REFERENCES tasks (id),
    attempt         INTEGER NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('starting', 'running', 'ended')),
    outcome         TEXT CHECK (outcome IN ('completed', 'failed', 'cancelled', 'timed_out', 'lost')),
    reason          TEXT,
    exit_code       INTEGER,
    gpus            TEXT NOT NULL,                       -- JSON: indices
    devices         TEXT NOT NULL,                       -- JSON: names of the leases
    exclusive       INTEGER NOT NULL,
    executor        TEXT NOT NULL,
    session         TEXT NOT NULL,
    directory       TEXT NOT NULL,
    work_dir        TEXT NOT NULL,
    log             TEXT,
    lease           TEXT NOT NULL,
    marker          TEXT NOT NULL,
    marker_before   TEXT,
    boot_id         TEXT NOT NULL,
    pid             INTEGER,
    pid_started     INTEGER,
    created_at      REAL NOT NULL,
    started_at      REAL,
    ended_at        REAL,
    UNIQUE (task_id, attempt),
    CHECK ((state = 'ended') = (outcome IS NOT NULL))
);
CREATE INDEX runs_active ON runs (id) WHERE state IN ('starting', 'running');
CREATE UNIQUE INDEX runs_one_active ON runs (task_id) WHERE state IN ('starting', 'running');
CREATE INDEX runs_ended ON runs (ended_at) WHERE state = 'ended';

CREATE TABLE events (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              REAL NOT NULL,
    who             TEXT NOT NULL,
    task_id         INTEGER NOT NULL,
    run_id          TEXT,
    what            TEXT NOT NULL,
    from_state      TEXT,
    to_state        TEXT,
    why             TEXT
);
CREATE INDEX events_task ON events (task_id, id);

CREATE TABLE facts (
    key             TEXT PRIMARY KEY,
    value           TEXT NOT NULL
);
