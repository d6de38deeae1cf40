-- Written by the version of the schema that it is named after. Kept for ever: old databases must load.
PRAGMA application_id = 1953066603;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "events" VALUES(1,1700000000.5,'start by ann',1,NULL,'Queued',NULL,'queued',NULL);
CREATE TABLE facts (
    key             TEXT PRIMARY KEY,
    value           TEXT NOT NULL
);
INSERT INTO "facts" VALUES('place','/w');
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
INSERT INTO "runs" VALUES('00000000000000aa',1,1,'ended','failed','{"code": "exit_code", "detail": {"code": 3}}',3,'[0]','["index-0"]',0,'tmux','T_done_gpu0','/w/.tinksched/runs/00000000000000aa','/w','/w/logs/train_logs/done.log','/l/index-0.00000000000000aa','/w/out/done_completed.txt',NULL,'b',10,20,1700000010.0,1700000011.0,1700000100.0);
INSERT INTO "runs" VALUES('00000000000000bb',2,1,'running',NULL,NULL,NULL,'[1]','["index-1"]',0,'tmux','T_going_gpu1','/w/.tinksched/runs/00000000000000bb','/w','/w/logs/train_logs/going.log','/l/index-1.00000000000000bb','/w/out/going_completed.txt',NULL,'b',11,21,1700000010.0,1700000011.0,NULL);
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
INSERT INTO "tasks" VALUES(1,'done','/w/configs/done.yml','{"command": ["python", "train.py"], "work_dir": "/w", "marker": "/w/out/x_completed.txt", "output_dir": "/w/out", "gpus": 1, "pinned": [], "exclusive": false, "environment": [["A", "1"]], "environment_ref": "0123456789abcdef"}','done','failed','{"code": "exit_code", "detail": {"code": 3}}',NULL,NULL,0,1,1,'abc',1700000000.5,1700000100.5);
INSERT INTO "tasks" VALUES(2,'going','/w/configs/going.yml','{"command": ["python", "train.py"], "work_dir": "/w", "marker": "/w/out/x_completed.txt", "output_dir": "/w/out", "gpus": 1, "pinned": [], "exclusive": false, "environment": [["A", "1"]], "environment_ref": "0123456789abcdef"}','active',NULL,NULL,NULL,NULL,5,2,1,'abc',1700000000.5,1700000100.5);
INSERT INTO "tasks" VALUES(3,'waiting','/w/configs/waiting.yml','{"command": ["python", "train.py"], "work_dir": "/w", "marker": "/w/out/x_completed.txt", "output_dir": "/w/out", "gpus": 1, "pinned": [], "exclusive": false, "environment": [["A", "1"]], "environment_ref": "0123456789abcdef"}','queued',NULL,NULL,NULL,NULL,0,3,0,NULL,1700000000.5,1700000000.5);
CREATE INDEX tasks_queue ON tasks (priority DESC, queue_number) WHERE state = 'queued';
CREATE INDEX tasks_active ON tasks (id) WHERE state = 'active';
CREATE INDEX runs_active ON runs (id) WHERE state IN ('starting', 'running');
CREATE UNIQUE INDEX runs_one_active ON runs (task_id) WHERE state IN ('starting', 'running');
CREATE INDEX runs_ended ON runs (ended_at) WHERE state = 'ended';
CREATE INDEX events_task ON events (task_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('tasks',3);
INSERT INTO "sqlite_sequence" VALUES('events',1);
COMMIT;
