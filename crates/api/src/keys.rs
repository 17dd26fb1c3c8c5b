//! Names that other programs look for: finalizers, annotations, labels, repository tags.

/// API group of all resources.
pub const GROUP: &str = "topolvm.io";
/// API version of all resources.
pub const VERSION: &str = "v1";
/// The finalizer under which the node agent tears a volume down. Only the agent takes it off.
pub const FINALIZER: &str = "topolvm.io/logicalvolume";
/// Annotation of a Kubernetes Node: bytes available in a device class, the class name appended.
pub const CAPACITY_PREFIX: &str = "capacity.topolvm.io/";
/// The default device class in [`CAPACITY_PREFIX`] annotations.
pub const DEFAULT_CLASS: &str = "00default";
/// Label of executor pods and leases: the LogicalVolume they work for.
pub const LABEL_VOLUME: &str = "topolvm.io/logical-volume";
/// Label of executor pods and leases: what they do.
pub const LABEL_OPERATION: &str = "topolvm.io/snapshot-operation";
/// Label that marks executor pods and leases.
pub const LABEL_EXECUTOR: &str = "topolvm.io/snapshot-pod";
/// Label of executor pods: the uid of the LogicalVolume they work for.
pub const LABEL_UID: &str = "lvault.io/volume-uid";
/// Label of executor pods: the attempt they were launched for; removals have none.
pub const LABEL_ATTEMPT: &str = "lvault.io/attempt";
/// Label of executor pods: which launch of that attempt they are.
pub const LABEL_LAUNCH: &str = "lvault.io/launch";
/// The finalizer under which an ended executor pod stays until the node agent has taken note of how it ended.
pub const POD_FINALIZER: &str = "lvault.io/executor";
/// Annotation of executor pods: why the node agent ended them.
pub const ENDED_BECAUSE: &str = "lvault.io/ended-because";
/// Key of the repository password in a storage's Secret.
pub const RESTIC_PASSWORD: &str = "RESTIC_PASSWORD";

/// An object's name as a label's value, which holds at most 63 characters; for people, not for finding.
pub fn label_value(name: &str) -> &str {
    let end = name.len().min(63);
    name.get(..end).unwrap_or_default().trim_end_matches(['-', '.', '_'])
}
