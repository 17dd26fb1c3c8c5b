//! The lvault binary.

fn main() {}
