//! One attempt: claim, heartbeat, copy, commit, report.
