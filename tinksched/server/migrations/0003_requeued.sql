-- `tinksched --workspace STATE retry JOB`: the new run has an end and results of its own; the old results file stays.
-- A migration of the store that makes the table of tasks anew must make this again.
CREATE TRIGGER server_requeued AFTER UPDATE OF state ON tasks WHEN OLD.state = 'done' AND NEW.state != 'done'
BEGIN
    UPDATE server_jobs SET collected = 0, results_file = NULL WHERE task_id = NEW.id;
END;
