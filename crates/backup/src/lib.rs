//! Repositories in restic's format: back up, restore, forget.
