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
/// Key of the repository password in a storage's Secret.
pub const RESTIC_PASSWORD: &str = "RESTIC_PASSWORD";
