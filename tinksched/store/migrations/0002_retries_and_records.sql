-- Retries by themselves, time limits, and what is known of each run's circumstances.
ALTER TABLE tasks ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;  -- failed, timed-out, lost runs since queued by hand
ALTER TABLE tasks ADD COLUMN not_before REAL;                      -- a retry waits until then
ALTER TABLE runs ADD COLUMN deadline REAL;                         -- when its time limit ends
ALTER TABLE runs ADD COLUMN record TEXT;                           -- JSON: model.RunRecord
