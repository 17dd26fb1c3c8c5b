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
/// Key of an S3 access key's id in a storage's Secret.
pub const AWS_ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
/// Key of an S3 access key in a storage's Secret.
pub const AWS_SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
/// Key of the token that belongs to a lent S3 access key in a storage's Secret.
pub const AWS_SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
/// Key of a Google Cloud project in a storage's Secret. Only restic needs it, to make buckets.
pub const GOOGLE_PROJECT_ID: &str = "GOOGLE_PROJECT_ID";
/// Key of a Google Cloud service account's key, a JSON document, in a storage's Secret.
pub const GOOGLE_SERVICE_ACCOUNT_JSON_KEY: &str = "GOOGLE_SERVICE_ACCOUNT_JSON_KEY";
/// Key of an Azure storage account's name in a storage's Secret.
pub const AZURE_ACCOUNT_NAME: &str = "AZURE_ACCOUNT_NAME";
/// Key of an Azure storage account's key in a storage's Secret.
pub const AZURE_ACCOUNT_KEY: &str = "AZURE_ACCOUNT_KEY";
/// Key of the certificates, in PEM, that a storage's server may be signed by, in a storage's Secret.
pub const CA_CERT_DATA: &str = "CA_CERT_DATA";

/// An object's name as a label's value, which holds at most 63 characters; for people, not for finding.
pub fn label_value(name: &str) -> &str {
    let end = name.len().min(63);
    name.get(..end).unwrap_or_default().trim_end_matches(['-', '.', '_'])
}
