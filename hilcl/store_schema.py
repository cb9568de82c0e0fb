"""The tables of a store."""

APPLICATION_ID = 0x68696C63
"""Marks an SQLite file as a hilcl store: the letters "hilc"."""

FORMAT = 2
"""Format 1 had no events, intents and sittings."""

_FIRST = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    finished TEXT,
    status TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    backend TEXT NOT NULL,
    experiment TEXT NOT NULL,
    settings TEXT NOT NULL,
    versions TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    arrays BLOB NOT NULL,
    summary TEXT,
    digest BLOB NOT NULL
);
CREATE TABLE steps (
    run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    loss REAL NOT NULL,
    contrast REAL NOT NULL,
    step_size REAL NOT NULL,
    residual REAL NOT NULL,
    lower_bound REAL NOT NULL,
    power REAL,
    clamp_error REAL NOT NULL,
    measure_s REAL NOT NULL,
    update_s REAL NOT NULL,
    program_s REAL NOT NULL,
    updates INTEGER NOT NULL,
    outputs BLOB NOT NULL,
    conductances BLOB NOT NULL,
    state BLOB,
    codes BLOB,
    pinned BLOB NOT NULL,
    generators TEXT,
    digest BLOB NOT NULL,
    PRIMARY KEY (run, epoch)
);
"""

_SECOND = """
CREATE TABLE sittings (
    run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    began TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started TEXT NOT NULL,
    boot TEXT NOT NULL,
    host TEXT NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE events (
    run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    time TEXT NOT NULL,
    instrument TEXT NOT NULL,
    what TEXT NOT NULL,
    action TEXT NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE intents (
    run INTEGER PRIMARY KEY REFERENCES runs(id) ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    codes BLOB NOT NULL,
    digest BLOB NOT NULL
);
CREATE INDEX events_of_runs ON events (run);
CREATE INDEX sittings_of_runs ON sittings (run);
"""


def additions(version: int) -> list[str]:
    """Return the statements that bring a store of this format (0 for none) to ``FORMAT``."""
    parts = [_FIRST, _SECOND][version:]
    return [statement.strip() for part in parts for statement in part.split(";") if statement.strip()]


RUN_COLUMNS = (
    "name",
    "created",
    "finished",
    "status",
    "reason",
    "backend",
    "experiment",
    "settings",
    "versions",
    "fingerprint",
    "arrays",
    "summary",
)
"""Columns a run's digest covers, in this order."""

SCALARS = (
    "epoch",
    "loss",
    "contrast",
    "step_size",
    "residual",
    "lower_bound",
    "power",
    "clamp_error",
    "measure_s",
    "update_s",
    "program_s",
)

STEP_COLUMNS = (*SCALARS, "updates", "outputs", "conductances", "state", "codes", "pinned", "generators")
"""Columns a step's digest covers, in this order."""

EVENT_COLUMNS = ("epoch", "time", "instrument", "what", "action")
SITTING_COLUMNS = ("began", "pid", "started", "boot", "host")
