-- Code that the scan refused: who sent it when, what was found, and nothing of the code but its digest.
CREATE TABLE server_rejections (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id         TEXT NOT NULL,
    at              REAL NOT NULL,
    findings        TEXT NOT NULL,                       -- JSON: a list of texts
    code_sha256     TEXT NOT NULL                        -- hexadecimal
);
CREATE INDEX server_rejections_user ON server_rejections (user_id, id);
