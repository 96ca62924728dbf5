CREATE TRIGGER artifacts_count_delete AFTER DELETE ON artifacts BEGIN
    UPDATE counters SET value = value - OLD.size
        WHERE (name = 'artifacts' AND key = 'bytes') OR (name = 'job_bytes' AND key = OLD.job_id);
    UPDATE counters SET value = value - 1 WHERE name = 'job_files' AND key = OLD.job_id;
END;
CREATE TRIGGER artifacts_count_insert AFTER INSERT ON artifacts BEGIN
    INSERT INTO counters VALUES ('artifacts', 'bytes', NEW.size)
        ON CONFLICT (name, key) DO UPDATE SET value = value + excluded.value;
    INSERT INTO counters VALUES ('job_files', NEW.job_id, 1)
        ON CONFLICT (name, key) DO UPDATE SET value = value + 1;
    INSERT INTO counters VALUES ('job_bytes', NEW.job_id, NEW.size)
        ON CONFLICT (name, key) DO UPDATE SET value = value + excluded.value;
END;
CREATE TRIGGER artifacts_count_update AFTER UPDATE OF size ON artifacts BEGIN
    UPDATE counters SET value = value + NEW.size - OLD.size
        WHERE (name = 'artifacts' AND key = 'bytes') OR (name = 'job_bytes' AND key = NEW.job_id);
END;
CREATE TRIGGER jobs_count_delete AFTER DELETE ON jobs BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'jobs' AND key = OLD.state;
END;
CREATE TRIGGER jobs_count_insert AFTER INSERT ON jobs BEGIN
    INSERT INTO counters VALUES ('jobs', NEW.state, 1)
        ON CONFLICT (name, key) DO UPDATE SET value = value + 1;
END;
CREATE TRIGGER jobs_count_update AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'jobs' AND key = OLD.state;
    INSERT INTO counters VALUES ('jobs', NEW.state, 1)
        ON CONFLICT (name, key) DO UPDATE SET value = value + 1;
END;
CREATE TRIGGER sandboxes_count_delete AFTER DELETE ON sandboxes BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'sandboxes' AND key = OLD.state;
END;
CREATE TRIGGER sandboxes_count_insert AFTER INSERT ON sandboxes BEGIN
    INSERT INTO counters VALUES ('sandboxes', NEW.state, 1)
        ON CONFLICT (name, key) DO UPDATE SET value = value + 1;
END;
CREATE TRIGGER sandboxes_count_update AFTER UPDATE OF state ON sandboxes WHEN OLD.state <> NEW.state BEGIN
    UPDATE counters SET value = value - 1 WHERE name = 'sandboxes' AND key = OLD.state;
    INSERT INTO counters VALUES ('sandboxes', NEW.state, 1)
        ON CONFLICT (name, key) DO UPDATE SET value = value + 1;
END;
CREATE TABLE addresses (
    vmid       INTEGER PRIMARY KEY,
    sandbox_id TEXT    NOT NULL REFERENCES sandboxes (id),
    address    TEXT    NOT NULL DEFAULT '',
    mac        TEXT    NOT NULL DEFAULT '',
    interface  TEXT    NOT NULL DEFAULT '',
    burned     INTEGER NOT NULL DEFAULT 0,
    attempted  INTEGER NOT NULL DEFAULT 0,
    reason     TEXT    NOT NULL,
    created_at INTEGER NOT NULL
, creates_interface INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE artifacts (
    job_id     TEXT    NOT NULL REFERENCES jobs (id),
    path       TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    sha256     TEXT    NOT NULL,
    mime       TEXT    NOT NULL DEFAULT '',
    flagged    TEXT    NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL,
    PRIMARY KEY (job_id, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE counters (
    name  TEXT    NOT NULL,
    key   TEXT    NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (name, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE credentials (
    sandbox_id TEXT    PRIMARY KEY REFERENCES sandboxes (id),
    token_hash BLOB    NOT NULL,
    hash       BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    sandbox_id TEXT    NOT NULL DEFAULT '',
    job_id     TEXT    NOT NULL DEFAULT '',
    operation  TEXT    NOT NULL DEFAULT '',
    message    TEXT    NOT NULL DEFAULT '',
    fields     TEXT    NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE jobs (
    seq              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    sandbox_id       TEXT    NOT NULL REFERENCES sandboxes (id),
    state            TEXT    NOT NULL,
    reason           TEXT    NOT NULL DEFAULT '',
    exit_code        INTEGER NOT NULL DEFAULT -1,
    task             TEXT    NOT NULL,
    profile          TEXT    NOT NULL DEFAULT '',
    repo_url         TEXT    NOT NULL DEFAULT '',
    repo_id          TEXT    NOT NULL DEFAULT '',
    ref              TEXT    NOT NULL DEFAULT '',
    mode             TEXT    NOT NULL DEFAULT '',
    ttl              INTEGER NOT NULL DEFAULT 0, -- milliseconds
    borrowed         INTEGER NOT NULL DEFAULT 0,
    stage            TEXT    NOT NULL DEFAULT '',
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    report           TEXT    NOT NULL DEFAULT '',
    last_seen        INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER NOT NULL DEFAULT 0,
    deadline         INTEGER NOT NULL DEFAULT 0,
    ended_at         INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE operations (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    kind        TEXT    NOT NULL,
    subject     TEXT    NOT NULL REFERENCES sandboxes (id),
    job_id      TEXT    NOT NULL DEFAULT '',
    state       TEXT    NOT NULL,
    step        TEXT    NOT NULL DEFAULT '',
    step_index  INTEGER NOT NULL DEFAULT 0,
    attempt     INTEGER NOT NULL DEFAULT 0,
    error       TEXT    NOT NULL DEFAULT '',
    error_class TEXT    NOT NULL DEFAULT '',
    hint        TEXT    NOT NULL DEFAULT '',
    cancel      INTEGER NOT NULL DEFAULT 0,
    not_before  INTEGER NOT NULL DEFAULT 0,
    deadline    INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE repos (
    id         TEXT    PRIMARY KEY,
    size       INTEGER NOT NULL,
    used_by    TEXT    NOT NULL DEFAULT '',
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sandboxes (
    seq        INTEGER PRIMARY KEY,
    id         TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    vmid       INTEGER NOT NULL DEFAULT 0,
    address    TEXT    NOT NULL DEFAULT '',
    mac        TEXT    NOT NULL DEFAULT '',
    interface  TEXT    NOT NULL DEFAULT '',
    owner      TEXT    NOT NULL DEFAULT '',
    state      TEXT    NOT NULL,
    reason     TEXT    NOT NULL DEFAULT '',
    spec       TEXT    NOT NULL,
    profile    TEXT    NOT NULL DEFAULT '',
    job_id     TEXT    NOT NULL DEFAULT '',
    host_key   TEXT    NOT NULL DEFAULT '',
    boot_id    TEXT    NOT NULL DEFAULT '',
    runner     TEXT    NOT NULL DEFAULT '',
    generation INTEGER NOT NULL DEFAULT 0,
    keep       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    ready_at   INTEGER NOT NULL DEFAULT 0,
    expires_at INTEGER NOT NULL DEFAULT 0,
    ended_at   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE sqlite_sequence(name,seq);
CREATE TABLE tokens (
    hash       BLOB    PRIMARY KEY,
    sandbox_id TEXT    NOT NULL REFERENCES sandboxes (id),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX addresses_address ON addresses (address) WHERE burned = 0;
CREATE UNIQUE INDEX addresses_mac ON addresses (mac) WHERE burned = 0;
CREATE UNIQUE INDEX addresses_sandbox ON addresses (sandbox_id) WHERE burned = 0;
CREATE INDEX events_job ON events (job_id) WHERE job_id <> '';
CREATE INDEX events_operation ON events (operation) WHERE operation <> '';
CREATE INDEX events_sandbox ON events (sandbox_id) WHERE sandbox_id <> '';
CREATE INDEX jobs_open ON jobs (state) WHERE ended_at = 0;
CREATE INDEX jobs_sandbox ON jobs (sandbox_id);
CREATE INDEX operations_job ON operations (job_id) WHERE job_id <> '';
CREATE UNIQUE INDEX operations_open ON operations (subject, kind) WHERE ended_at = 0;
CREATE INDEX operations_open_seq ON operations (seq) WHERE ended_at = 0;
CREATE INDEX operations_state ON operations (state, seq);
CREATE INDEX operations_subject ON operations (subject);
CREATE UNIQUE INDEX sandboxes_address ON sandboxes (address) WHERE state <> 'DESTROYED' AND address <> '';
CREATE INDEX sandboxes_live ON sandboxes (state) WHERE state <> 'DESTROYED';
CREATE UNIQUE INDEX sandboxes_name ON sandboxes (name) WHERE state <> 'DESTROYED';
CREATE INDEX sandboxes_vmid ON sandboxes (vmid);
CREATE INDEX tokens_sandbox ON tokens (sandbox_id);
