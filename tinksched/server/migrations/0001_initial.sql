-- Beside the tables of the store, which knows nothing of these. Times are seconds since the epoch.
CREATE TABLE server_tokens (
    hash            TEXT PRIMARY KEY,                    -- SHA-256 of the token, hexadecimal
    user_id         TEXT NOT NULL,
    kind            TEXT NOT NULL CHECK (kind IN ('queue', 'key')),
    is_admin        INTEGER NOT NULL DEFAULT 0,
    created_at      REAL NOT NULL,
    expires_at      REAL,                                -- NULL: never
    revoked_at      REAL
);
CREATE INDEX server_tokens_user ON server_tokens (user_id);

CREATE TABLE server_jobs (
    job_id          TEXT PRIMARY KEY,                    -- the name of its task
    task_id         INTEGER NOT NULL UNIQUE,             -- not a foreign key: tasks may be cleaned away
    user_id         TEXT NOT NULL,
    competition_id  TEXT NOT NULL,
    project_id      TEXT NOT NULL,
    expected_time   INTEGER NOT NULL,                    -- seconds
    created_at      REAL NOT NULL,
    config          TEXT NOT NULL,                       -- the YAML without its token
    warnings        TEXT NOT NULL DEFAULT '[]',          -- JSON: a list of texts
    results_file    TEXT,                                -- chosen before it is written
    collected       INTEGER NOT NULL DEFAULT 0           -- 1: its end was dealt with
);
CREATE INDEX server_jobs_user ON server_jobs (user_id, created_at);
CREATE INDEX server_jobs_created ON server_jobs (created_at);
CREATE INDEX server_jobs_open ON server_jobs (task_id) WHERE collected = 0;

-- Each job with its task and its last run.
CREATE VIEW server_listed AS
    SELECT j.*, t.state, t.outcome, t.reason, t.request, t.priority, t.queue_number, t.changed_at,
           CASE t.state WHEN 'queued' THEN 'pending' WHEN 'active' THEN 'running'
                ELSE CASE t.outcome WHEN 'completed' THEN 'completed' WHEN 'cancelled' THEN 'cancelled'
                     ELSE 'failed' END END AS status,
           r.exit_code, r.session, r.created_at AS run_at, r.ended_at,
           json_extract(x.text, '$.gpus') AS gpus
    FROM server_jobs j
    JOIN tasks t ON t.id = j.task_id
    LEFT JOIN runs r ON r.task_id = t.id
         AND r.attempt = (SELECT max(attempt) FROM runs other WHERE other.task_id = t.id)
    LEFT JOIN texts x ON x.id = r.shared;

-- For the administrator's own SQL.
CREATE VIEW jobs AS
    SELECT job_id, user_id, competition_id, project_id, status, expected_time,
           json_extract(gpus, '$[0]') AS node_id, exit_code,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at, 'unixepoch') AS created_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', run_at, 'unixepoch') AS started_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', ended_at, 'unixepoch') AS completed_at,
           results_file
    FROM server_listed;
CREATE VIEW tokens AS
    SELECT user_id, is_admin, kind,
           strftime('%Y-%m-%dT%H:%M:%fZ', created_at, 'unixepoch') AS created_at,
           strftime('%Y-%m-%dT%H:%M:%fZ', expires_at, 'unixepoch') AS expires_at,
           revoked_at IS NULL AND (expires_at IS NULL OR expires_at > (julianday('now') - 2440587.5) * 86400.0) AS is_active
    FROM server_tokens;
CREATE VIEW node_state AS
    SELECT json_extract(gpus, '$[0]') AS node_id, job_id, user_id,
           strftime('%Y-%m-%dT%H:%M:%fZ', run_at, 'unixepoch') AS started_at
    FROM server_listed WHERE status = 'running';
