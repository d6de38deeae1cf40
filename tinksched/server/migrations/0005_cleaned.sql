-- A migration of the store that makes the table of tasks anew must make these triggers and the index again.

-- The results files of the runs before the last one.
CREATE TABLE server_earlier_results (
    task_id         INTEGER NOT NULL,
    results_file    TEXT NOT NULL,
    PRIMARY KEY (task_id, results_file)
) WITHOUT ROWID;

-- `tinksched --workspace STATE retry JOB`, as before.
DROP TRIGGER server_requeued;
CREATE TRIGGER server_requeued AFTER UPDATE OF state ON tasks WHEN OLD.state = 'done' AND NEW.state != 'done'
BEGIN
    INSERT OR IGNORE INTO server_earlier_results
        SELECT task_id, results_file FROM server_jobs WHERE task_id = NEW.id AND results_file IS NOT NULL;
    UPDATE server_jobs SET collected = 0, results_file = NULL WHERE task_id = NEW.id;
END;

-- Whoever forgets a task, `tinksched clean` say, forgets its job.
DELETE FROM server_jobs WHERE task_id NOT IN (SELECT id FROM tasks);
DELETE FROM server_services WHERE task_id NOT IN (SELECT id FROM tasks);
CREATE TRIGGER server_cleaned AFTER DELETE ON tasks
BEGIN
    DELETE FROM server_jobs WHERE task_id = OLD.id;
    DELETE FROM server_services WHERE task_id = OLD.id;
    DELETE FROM server_earlier_results WHERE task_id = OLD.id;
END;

-- What ended last, of many thousands.
CREATE INDEX server_ended ON tasks (changed_at) WHERE state = 'done';
