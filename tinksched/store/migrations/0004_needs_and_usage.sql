-- What a task needs after its last run ran out of memory, and what each run was seen to use (core/usage.py).
ALTER TABLE tasks ADD COLUMN need INTEGER;               -- bytes free on each GPU; -1: a GPU for itself
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
