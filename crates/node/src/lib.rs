//! The node agent: observe, decide, perform.
