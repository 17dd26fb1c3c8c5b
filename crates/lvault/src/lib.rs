//! Node-local volumes whose online snapshots are copied off the node exactly once.
