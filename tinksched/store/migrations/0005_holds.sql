-- Who wants a queued task to wait, since when, and until when if that is known.
ALTER TABLE tasks ADD COLUMN hold TEXT;                  -- JSON: model.Hold
