-- Written by the version of the schema that it is named after. Kept for ever: old databases must load.
PRAGMA application_id = 1953066603;
PRAGMA user_version = 4;
BEGIN TRANSACTION;
CREATE TABLE "events" (
    id              INTEGER PRIMARY KEY,
    at              REAL NOT NULL,
    task_id         INTEGER NOT NULL,
    run_id          TEXT,
    shared          INTEGER NOT NULL REFERENCES texts (id),  -- who, what, from which state to which
    why             TEXT
);
INSERT INTO "events" VALUES(1,1700000000.5,1,NULL,8,NULL);
INSERT INTO "events" VALUES(2,1700000000.5,2,NULL,8,NULL);
INSERT INTO "events" VALUES(3,1700000000.5,3,NULL,8,NULL);
INSERT INTO "events" VALUES(4,1700000000.5,4,NULL,8,NULL);
INSERT INTO "events" VALUES(5,1700000010.0,1,NULL,9,NULL);
INSERT INTO "events" VALUES(6,1700000010.0,1,'00000000000000aa',10,'GPU 0');
INSERT INTO "events" VALUES(7,1700000010.0,4,NULL,9,NULL);
INSERT INTO "events" VALUES(8,1700000010.0,4,'00000000000000cc',10,'GPU 1');
INSERT INTO "events" VALUES(9,1700000011.0,1,'00000000000000aa',11,NULL);
INSERT INTO "events" VALUES(10,1700000011.0,4,'00000000000000cc',11,NULL);
INSERT INTO "events" VALUES(11,1700000100.0,1,'00000000000000aa',12,'exit code 3');
INSERT INTO "events" VALUES(12,1700000100.0,1,NULL,13,'exit code 3');
INSERT INTO "events" VALUES(13,1700000100.0,4,'00000000000000cc',12,'exit code 137 (signal KILL)');
INSERT INTO "events" VALUES(14,1700000100.0,4,NULL,14,'its last run failed (exit code 1); it is tried again at 22:15:10 (retry 1 of 2)');
INSERT INTO "events" VALUES(15,1700000100.0,2,NULL,9,NULL);
INSERT INTO "events" VALUES(16,1700000100.0,2,'00000000000000bb',10,'GPU 1');
INSERT INTO "events" VALUES(17,1700000101.0,2,'00000000000000bb',11,NULL);
INSERT INTO "events" VALUES(18,1700000102.0,2,NULL,15,NULL);
CREATE TABLE facts (
    key             TEXT PRIMARY KEY,
    value           TEXT NOT NULL
);
INSERT INTO "facts" VALUES('place','/w');
CREATE TABLE "runs" (
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
INSERT INTO "runs" VALUES('00000000000000aa',1,1,5,'ended','failed','{"code": "exit_code", "detail": {"code": 3}}',3,'T_done_gpu0',NULL,10,20,1700000010.0,1700000011.0,1700000099.0,NULL,NULL);
INSERT INTO "runs" VALUES('00000000000000cc',4,1,6,'ended','failed','{"code": "killed_by_signal", "detail": {"code": 137, "signal": "KILL"}}',137,'T_höhe_gpu1',NULL,11,21,1700000011.0,1700000011.0,1700000098.0,NULL,'{"config_hash":"abababababababababababababababababababababababababababababababab","port":4711,"since_boot":100.5,"command":["x","--port=4711","--out=/w/out/h\u00f6he/h\u00f6he.ckpt"]}');
INSERT INTO "runs" VALUES('00000000000000bb',2,1,7,'running',NULL,NULL,NULL,'T_going_gpu1_2','4:5:6',12,22,1700000011.0,1700000101.0,NULL,1700000160.0,'{"config_hash":"abababababababababababababababababababababababababababababababab","old_marker":"/data/going/going_completed.txt","old_marker_before":"1:2:3","since_boot":100.5}');
CREATE TABLE "tasks" (
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
    changed_at      REAL NOT NULL, need INTEGER,
    CHECK ((state = 'done') = (outcome IS NOT NULL))
);
INSERT INTO "tasks" VALUES(1,'done',1,'done','failed','{"code": "exit_code", "detail": {"code": 3}}',NULL,NULL,0,1,1,0,NULL,'abababababababababababababababababababababababababababababababab',NULL,1700000000.5,1700000100.0,NULL);
INSERT INTO "tasks" VALUES(2,'going',2,'active',NULL,NULL,'cancel','cancel by ann',0,2,1,0,NULL,NULL,'/data/going/going_completed.txt',1700000000.5,1700000100.0,NULL);
INSERT INTO "tasks" VALUES(3,'waiting',3,'queued',NULL,NULL,NULL,NULL,7,3,0,0,NULL,NULL,NULL,1700000000.5,1700000000.5,5368709120);
INSERT INTO "tasks" VALUES(4,'höhe',4,'queued',NULL,'{"code": "retry_delay", "detail": {"how": "failed (exit code 1)", "until": 1700000110.0, "retry": 1, "retries": 2}}',NULL,NULL,0,4,1,1,1700000110.0,'cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',NULL,1700000000.5,1700000100.0,NULL);
CREATE TABLE texts (
    id              INTEGER PRIMARY KEY,
    text            TEXT NOT NULL
);
INSERT INTO "texts" VALUES(1,'{"config":["/w/configs/",".yml"],"marker":["/w/out/","_completed.txt"],"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","output_dir":"/w/out","gpus":1,"pinned":[],"exclusive":false,"environment":[],"environment_ref":"0123456789abcdef","after":[],"time_limit":null,"max_retries":0,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","commit":"c0ffee","dirty":true}');
INSERT INTO "texts" VALUES(2,'{"config":["/w/configs/",".yml"],"marker":["/w/out/","_completed.txt"],"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","output_dir":"/w/out","gpus":1,"pinned":[],"exclusive":false,"environment":[],"environment_ref":"0123456789abcdef","after":[],"time_limit":60.0,"max_retries":0,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","commit":"c0ffee","dirty":true}');
INSERT INTO "texts" VALUES(3,'{"config":["/w/configs/",".yml"],"marker":["/w/out/","_completed.txt"],"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","output_dir":"/w/out","gpus":1,"pinned":[1],"exclusive":false,"environment":[],"environment_ref":"0123456789abcdef","after":["d*"],"time_limit":null,"max_retries":0,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","commit":"c0ffee","dirty":true}');
INSERT INTO "texts" VALUES(4,'{"config":["/w/configs/",".yml"],"marker":["/w/out/","_completed.txt"],"command":["{python}","{script}","--config_path","{config}"],"work_dir":"/w","output_dir":"/w/out","gpus":1,"pinned":[],"exclusive":false,"environment":[["A","\u00e4"],["B",""]],"environment_ref":"0123456789abcdef","after":[],"time_limit":null,"max_retries":2,"retry_delay":10.0,"retry_args":[],"pre_run":[],"post_run":[],"interactive":false,"python":"/usr/bin/python3","script":"/w/train.py","commit":"c0ffee","dirty":true}');
INSERT INTO "texts" VALUES(5,'{"gpus":[0],"devices":["index-0"],"exclusive":false,"executor":"tmux","work_dir":"/w","boot_id":"b","log":["/w/logs/train_logs/",".log"],"marker":["/w/out/","_completed.txt"],"directory":["/w/.tinksched/runs/",""],"lease":["/l/index-0.",""],"python":"","node":"","commit":"","dirty":false,"oom_kills":null,"command":[]}');
INSERT INTO "texts" VALUES(6,'{"gpus":[1],"devices":["index-1"],"exclusive":false,"executor":"tmux","work_dir":"/w","boot_id":"b","log":["/w/logs/train_logs/",".log"],"marker":["/w/out/","_completed.txt"],"directory":["/w/.tinksched/runs/",""],"lease":["/l/index-1.",""],"python":"/usr/bin/python3","node":"host","commit":"c0ffee","dirty":true,"oom_kills":0}');
INSERT INTO "texts" VALUES(7,'{"gpus":[1],"devices":["index-1"],"exclusive":false,"executor":"tmux","work_dir":"/w","boot_id":"b","log":["/w/logs/train_logs/",".log"],"marker":["/w/out/","_completed.txt"],"directory":["/w/.tinksched/runs/",""],"lease":["/l/index-1.",""],"python":"/usr/bin/python3","node":"host","commit":"c0ffee","dirty":true,"oom_kills":0,"command":["/usr/bin/python3","/w/train.py","--config_path",["/w/configs/",".yml"]]}');
INSERT INTO "texts" VALUES(8,'["start by ann","Queued",null,"queued"]');
INSERT INTO "texts" VALUES(9,'["scheduler","Began","queued","active"]');
INSERT INTO "texts" VALUES(10,'["scheduler","Intended",null,"starting"]');
INSERT INTO "texts" VALUES(11,'["scheduler","Launched","starting","running"]');
INSERT INTO "texts" VALUES(12,'["scheduler","Ended","running","ended"]');
INSERT INTO "texts" VALUES(13,'["scheduler","Finished","active","done"]');
INSERT INTO "texts" VALUES(14,'["scheduler","Retried","active","queued"]');
INSERT INTO "texts" VALUES(15,'["cancel by ann","Asked to cancel","active","active"]');
CREATE TABLE usage (
    run_id          TEXT PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    at              REAL NOT NULL,                       -- of the last sample
    samples         INTEGER NOT NULL,
    gpu_samples     INTEGER NOT NULL,                    -- those in which the utilisation was known
    gpu_memory      INTEGER,                             -- bytes, on that of its GPUs where it is the most
    gpu_memory_peak INTEGER,
    gpu_utilization REAL,                                -- percent, mean over the samples
    cpu_seconds     REAL,
    memory          INTEGER,                             -- bytes, of all its processes
    memory_peak     INTEGER,
    flags           TEXT                                 -- JSON: a list of texts; NULL without any
);
INSERT INTO "usage" VALUES('00000000000000aa',1700000090.0,3,2,100,200,50.0,12.5,300,400,NULL);
CREATE UNIQUE INDEX texts_text ON texts (text);
CREATE INDEX tasks_queue ON tasks (priority DESC, queue_number) WHERE state = 'queued';
CREATE INDEX tasks_active ON tasks (id) WHERE state = 'active';
CREATE UNIQUE INDEX runs_one_active ON runs (task_id) WHERE state IN ('starting', 'running');
CREATE INDEX runs_ended ON runs (ended_at) WHERE state = 'ended';
CREATE INDEX events_task ON events (task_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('tasks',4);
COMMIT;
