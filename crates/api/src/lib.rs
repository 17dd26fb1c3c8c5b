//! The resources of lvault as they stand on the wire, their validation and their CRDs.
