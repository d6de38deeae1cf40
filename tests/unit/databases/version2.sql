-- Written by the version of the schema that it is named after. Kept for ever: old databases must load.
PRAGMA application_id = 1953066603;
PRAGMA user_version = 2;
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
INSERT INTO "events" VALUES(2,1700000000.5,'start by ann',2,NULL,'Queued',NULL,'queued',NULL);
INSERT INTO "events" VALUES(3,1700000000.5,'start by ann',3,NULL,'Queued',NULL,'queued',NULL);
INSERT INTO "events" VALUES(4,1700000000.5,'start by ann',4,NULL,'Queued',NULL,'queued',NULL);
INSERT INTO "events" VALUES(5,1700000010.0,'scheduler',1,NULL,'Began','queued','active',NULL);
INSERT INTO "events" VALUES(6,1700000010.0,'scheduler',1,'00000000000000aa','Intended',NULL,'starting','GPU 0');
INSERT INTO "events" VALUES(7,1700000010.0,'scheduler',4,NULL,'Began','queued','active',NULL);
INSERT INTO "events" VALUES(8,1700000010.0,'scheduler',4,'00000000000000cc','Intended',NULL,'starting','GPU 1');
INSERT INTO "events" VALUES(9,1700000011.0,'scheduler',1,'00000000000000aa','Launched','starting','running',NULL);
INSERT INTO "events" VALUES(10,1700000011.0,'scheduler',4,'00000000000000cc','Launched','starting','running',NULL);
INSERT INTO "events" VALUES(11,1700000100.0,'scheduler',1,'00000000000000aa','Ended','running','ended','exit code 3');
INSERT INTO "events" VALUES(12,1700000100.0,'scheduler',1,NULL,'Finished','active','done','exit code 3');
INSERT INTO "events" VALUES(13,1700000100.0,'scheduler',4,'00000000000000cc','Ended','running','ended','exit code 137 (signal KILL)');
INSERT INTO "events" VALUES(14,1700000100.0,'scheduler',4,NULL,'Retried','active','queued','its last run failed (exit code 1); it is tried again at 22:15:10 (retry 1 of 2)');
INSERT INTO "events" VALUES(15,1700000100.0,'scheduler',2,NULL,'Began','queued','active',NULL);
INSERT INTO "events" VALUES(16,1700000100.0,'scheduler',2,'00000000000000bb','Intended',NULL,'starting','GPU 1');
INSERT INTO "events" VALUES(17,1700000101.0,'scheduler',2,'00000000000000bb','Launched','starting','running',NULL);
INSERT INTO "events" VALUES(18,1700000102.0,'cancel by ann',2,NULL,'Asked to cancel','active','active',NULL);
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
    ended_at        REAL, deadline REAL, record TEXT,
    UNIQUE (task_id, attempt),
    CHECK ((state = 'ended') = (outcome IS NOT NULL))
);
INSERT INTO "runs" VALUES('00000000000000aa',1,1,'ended','failed','{"code": "exit_code", "detail": {"code": 3}}',3,'[0]','["index-0"]',0,'tmux','T_done_gpu0','/w/.tinksched/runs/00000000000000aa','/w','/w/logs/train_logs/done.log','/l/index-0.00000000000000aa','/w/out/done_completed.txt',NULL,'b',10,20,1700000010.0,1700000011.0,1700000099.0,NULL,NULL);
INSERT INTO "runs" VALUES('00000000000000cc',4,1,'ended','failed','{"code": "killed_by_signal", "detail": {"code": 137, "signal": "KILL"}}',137,'[1]','["index-1"]',0,'tmux','T_höhe_gpu1','/w/.tinksched/runs/00000000000000cc','/w','/w/logs/train_logs/höhe.log','/l/index-1.00000000000000cc','/w/out/höhe_completed.txt',NULL,'b',11,21,1700000011.0,1700000011.0,1700000098.0,NULL,'{"command": ["x", "--port=4711", "--out=/w/out/h\u00f6he/h\u00f6he.ckpt"], "python": "/usr/bin/python3", "node": "host", "config_hash": "abababababababababababababababababababababababababababababababab", "commit": "c0ffee", "dirty": true, "port": 4711, "old_marker": "", "old_marker_before": null, "oom_kills": 0, "since_boot": 100.5}');
INSERT INTO "runs" VALUES('00000000000000bb',2,1,'running',NULL,NULL,NULL,'[1]','["index-1"]',0,'tmux','T_going_gpu1_2','/w/.tinksched/runs/00000000000000bb','/w','/w/logs/train_logs/going.log','/l/index-1.00000000000000bb','/w/out/going_completed.txt','4:5:6','b',12,22,1700000011.0,1700000101.0,NULL,1700000160.0,'{"command": ["/usr/bin/python3", "/w/train.py", "--config_path", "/w/configs/going.yml"], "python": "/usr/bin/python3", "node": "host", "config_hash": "abababababababababababababababababababababababababababababababab", "commit": "c0ffee", "dirty": true, "port": null, "old_marker": "/data/going/going_completed.txt", "old_marker_before": "1:2:3", "oom_kills": 0, "since_boot": 100.5}');
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
    changed_at      REAL NOT NULL, failures INTEGER NOT NULL DEFAULT 0, not_before REAL,
    CHECK ((state = 'done') = (outcome IS NOT NULL))
);
INSERT INTO "tasks" VALUES(1,'done','/w/configs/done.yml','{"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","marker":"/w/out/done_completed.txt","output_dir":"/w/out","gpus":1,"pinned":[],"exclusive":false,"environment":[],"environment_ref":"0123456789abcdef","after":[],"time_limit":null,"max_retries":0,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","old_marker":"","commit":"c0ffee","dirty":true}','done','failed','{"code": "exit_code", "detail": {"code": 3}}',NULL,NULL,0,1,1,'abababababababababababababababababababababababababababababababab',1700000000.5,1700000100.0,0,NULL);
INSERT INTO "tasks" VALUES(2,'going','/w/configs/going.yml','{"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","marker":"/w/out/going_completed.txt","output_dir":"/w/out","gpus":1,"pinned":[],"exclusive":false,"environment":[],"environment_ref":"0123456789abcdef","after":[],"time_limit":60.0,"max_retries":0,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","old_marker":"/data/going/going_completed.txt","commit":"c0ffee","dirty":true}','active',NULL,NULL,'cancel','cancel by ann',0,2,1,NULL,1700000000.5,1700000100.0,0,NULL);
INSERT INTO "tasks" VALUES(3,'waiting','/w/configs/waiting.yml','{"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","marker":"/w/out/waiting_completed.txt","output_dir":"/w/out","gpus":1,"pinned":[1],"exclusive":false,"environment":[],"environment_ref":"0123456789abcdef","after":["d*"],"time_limit":null,"max_retries":0,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","old_marker":"","commit":"c0ffee","dirty":true}','queued',NULL,NULL,NULL,NULL,7,3,0,NULL,1700000000.5,1700000000.5,0,NULL);
INSERT INTO "tasks" VALUES(4,'höhe','/w/configs/höhe.yml','{"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","marker":"/w/out/h\u00f6he_completed.txt","output_dir":"/w/out","gpus":1,"pinned":[],"exclusive":false,"environment":[["A","\u00e4"],["B",""]],"environment_ref":"0123456789abcdef","after":[],"time_limit":null,"max_retries":2,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","old_marker":"","commit":"c0ffee","dirty":true}','queued',NULL,'{"code": "retry_delay", "detail": {"how": "failed (exit code 1)", "until": 1700000110.0, "retry": 1, "retries": 2}}',NULL,NULL,0,4,1,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',1700000000.5,1700000100.0,1,1700000110.0);
CREATE INDEX tasks_queue ON tasks (priority DESC, queue_number) WHERE state = 'queued';
CREATE INDEX tasks_active ON tasks (id) WHERE state = 'active';
CREATE INDEX runs_active ON runs (id) WHERE state IN ('starting', 'running');
CREATE UNIQUE INDEX runs_one_active ON runs (task_id) WHERE state IN ('starting', 'running');
CREATE INDEX runs_ended ON runs (ended_at) WHERE state = 'ended';
CREATE INDEX events_task ON events (task_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('tasks',4);
INSERT INTO "sqlite_sequence" VALUES('events',18);
COMMIT;
