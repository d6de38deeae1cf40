-- What many rows say is stored once (packing.py, which has the functions that are used here). Events need no number
-- that is never used twice, and one index over the active runs is enough.
CREATE TABLE texts (
    id              INTEGER PRIMARY KEY,
    text            TEXT NOT NULL
);
CREATE UNIQUE INDEX texts_text ON texts (text);
INSERT OR IGNORE INTO texts (text) SELECT task_text(name, config, spec) FROM tasks ORDER BY id;
INSERT OR IGNORE INTO texts (text)
    SELECT run_text(tasks.name, runs.id, gpus, devices, exclusive, executor, work_dir, boot_id, directory, log, lease,
                    marker, record)
    FROM runs JOIN tasks ON tasks.id = runs.task_id ORDER BY runs.rowid;
INSERT OR IGNORE INTO texts (text)
    SELECT event_text(who, what, from_state, to_state)
    FROM (SELECT DISTINCT who, what, from_state, to_state FROM events);

CREATE TABLE new_tasks (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used twice
    name            TEXT NOT NULL UNIQUE,
    shared          INTEGER NOT NULL REFERENCES texts (id),  -- the config's path, and model.TaskSpec
    state           TEXT NOT NULL CHECK (state IN ('queued', 'active', 'done')),
    outcome         TEXT CHECK (outcome IN ('completed', 'failed', 'cancelled', 'timed_out', 'lost')),
    reason          TEXT,                                -- JSON: model.Reason
    request         TEXT CHECK (request IN ('cancel', 'kill_all')),
    requested_by    TEXT,
    priority        INTEGER NOT NULL,
    queue_number    INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    failures        INTEGER NOT NULL DEFAULT 0,          -- failed, timed-out, lost runs since queued by hand
    not_before      REAL,                                -- a retry waits until then
    config_hash     TEXT,                                -- sha256 of the config when its last run began
    old_marker      TEXT,                                -- where the config's own root_dir puts its marker
    queued_at       REAL NOT NULL,                       -- seconds since the epoch, as all times here
    changed_at      REAL NOT NULL,
    CHECK ((state = 'done') = (outcome IS NOT NULL))
);
INSERT INTO new_tasks
    SELECT id, name, (SELECT id FROM texts WHERE text = task_text(name, config, spec)), state, outcome, reason, request,
           requested_by, priority, queue_number, attempts, failures, not_before, config_hash, old_marker(spec),
           queued_at, changed_at
    FROM tasks ORDER BY id;
DELETE FROM sqlite_sequence WHERE name = 'new_tasks';
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_tasks', seq FROM sqlite_sequence WHERE name = 'tasks';

CREATE TABLE new_runs (
    id              TEXT PRIMARY KEY,
    task_id         INTEGER NOT NULL REFERENCES tasks (id),
    attempt         INTEGER NOT NULL,
    shared          INTEGER NOT NULL REFERENCES texts (id),  -- where it runs, and most of its paths
    state           TEXT NOT NULL CHECK (state IN ('starting', 'running', 'ended')),
    outcome         TEXT CHECK (outcome IN ('completed', 'failed', 'cancelled', 'timed_out', 'lost')),
    reason          TEXT,
    exit_code       INTEGER,
    session         TEXT NOT NULL,
    marker_before   TEXT,
    pid             INTEGER,
    pid_started     INTEGER,
    created_at      REAL NOT NULL,
    started_at      REAL,
    ended_at        REAL,
    deadline        REAL,                                -- when its time limit ends
    record          TEXT,                                -- JSON: what of model.RunRecord it has for itself
    UNIQUE (task_id, attempt),
    CHECK ((state = 'ended') = (outcome IS NOT NULL))
);
INSERT INTO new_runs
    SELECT runs.id, task_id, attempt,
           (SELECT id FROM texts WHERE text = run_text(tasks.name, runs.id, gpus, devices, exclusive, executor,
                                                       work_dir, boot_id, directory, log, lease, marker, record)),
           runs.state, runs.outcome, runs.reason, exit_code, session, marker_before, pid, pid_started, created_at,
           started_at, ended_at, deadline, own_record(record)
    FROM runs JOIN tasks ON tasks.id = runs.task_id ORDER BY runs.rowid;

CREATE TABLE new_events (
    id              INTEGER PRIMARY KEY,
    at              REAL NOT NULL,
    task_id         INTEGER NOT NULL,
    run_id          TEXT,
    shared          INTEGER NOT NULL REFERENCES texts (id),  -- who, what, from which state to which
    why             TEXT
);
INSERT INTO new_events
    SELECT id, at, task_id, run_id,
           (SELECT id FROM texts WHERE text = event_text(who, what, from_state, to_state)), why
    FROM events ORDER BY id;

DROP TABLE runs;
DROP TABLE tasks;
DROP TABLE events;
ALTER TABLE new_tasks RENAME TO tasks;
ALTER TABLE new_runs RENAME TO runs;
ALTER TABLE new_events RENAME TO events;
CREATE INDEX tasks_queue ON tasks (priority DESC, queue_number) WHERE state = 'queued';
CREATE INDEX tasks_active ON tasks (id) WHERE state = 'active';
CREATE UNIQUE INDEX runs_one_active ON runs (task_id) WHERE state IN ('starting', 'running');
CREATE INDEX runs_ended ON runs (ended_at) WHERE state = 'ended';
CREATE INDEX events_task ON events (task_id, id);
