-- Service jobs: a program that runs on GPUs and answers on a port until somebody ends it.
CREATE TABLE server_services (
    job_id          TEXT PRIMARY KEY,                    -- the name of its task
    task_id         INTEGER NOT NULL UNIQUE,             -- not a foreign key: tasks may be cleaned away
    user_id         TEXT NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('training', 'inference')),
    gpus_wanted     INTEGER NOT NULL,
    created_at      REAL NOT NULL,
    request         TEXT NOT NULL,                       -- JSON: what was asked for, without its secrets
    port            INTEGER,                             -- of its last run; NULL until that has one
    ready_at        REAL,                                -- when that answered on its port
    closing         TEXT CHECK (closing = 'completed'),  -- somebody said that it has done its work
    error           TEXT,                                -- why it failed, for a person
    collected       INTEGER NOT NULL DEFAULT 0           -- 1: its end was dealt with
);
CREATE INDEX server_services_user ON server_services (user_id, created_at);
CREATE INDEX server_services_open ON server_services (task_id) WHERE collected = 0;

-- Each service job with its task and its last run. Its status is that of the OpenTinker API.
CREATE VIEW server_services_listed AS
    SELECT s.*, t.state, t.outcome, t.reason, t.priority, t.queue_number, t.changed_at,
           CASE t.state WHEN 'queued' THEN 'QUEUED'
                WHEN 'active' THEN CASE WHEN s.ready_at IS NULL THEN 'STARTING' ELSE 'RUNNING' END
                ELSE CASE WHEN s.closing = 'completed' OR t.outcome = 'completed' THEN 'COMPLETED'
                     WHEN t.outcome = 'cancelled' THEN 'CANCELLED' ELSE 'FAILED' END END AS status,
           r.id AS run_id, r.exit_code, r.session, r.created_at AS run_at, r.ended_at,
           json_extract(x.text, '$.gpus') AS gpus
    FROM server_services s
    JOIN tasks t ON t.id = s.task_id
    LEFT JOIN runs r ON r.task_id = t.id
         AND r.attempt = (SELECT max(attempt) FROM runs other WHERE other.task_id = t.id)
    LEFT JOIN texts x ON x.id = r.shared;

-- Another run has another port, and a retried job another end.
-- A migration of the store that makes the table of tasks anew must make this again.
CREATE TRIGGER server_services_requeued AFTER UPDATE OF state ON tasks WHEN OLD.state != 'queued' AND NEW.state = 'queued'
BEGIN
    UPDATE server_services
    SET port = NULL, ready_at = NULL, error = NULL, collected = 0,
        closing = CASE OLD.state WHEN 'done' THEN NULL ELSE closing END
    WHERE task_id = NEW.id;
END;

-- For the administrator's own SQL.
CREATE VIEW services AS
    SELECT job_id, user_id, kind, status, gpus_wanted, gpus, port, exit_code,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at, 'unixepoch') AS created_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', run_at, 'unixepoch') AS started_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', ready_at, 'unixepoch') AS ready_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', ended_at, 'unixepoch') AS completed_at,
           error
    FROM server_services_listed;
