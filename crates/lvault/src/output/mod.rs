//! How objects are printed: as tables for people, as JSON or YAML for programs.

mod rows;
mod table;

use jiff::Timestamp;
use lvault_api::{LogicalVolume, SnapshotBackupStorage};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Format;
use crate::error::CliError;
use crate::objects::Kind;

pub(crate) use rows::storage_phase;
pub use rows::{age, bytes, share, span};
pub use table::Table;

/// What a listing shows, kind by kind.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Volumes, restored ones included.
    pub volumes: Option<Vec<LogicalVolume>>,
    /// Snapshots.
    pub snapshots: Option<Vec<LogicalVolume>>,
    /// Volumes filled from a repository, with how far that is.
    pub restores: Option<Vec<LogicalVolume>>,
    /// Storages.
    pub storages: Option<Vec<SnapshotBackupStorage>>,
}

impl Listing {
    /// LogicalVolumes by what they are to a user.
    pub fn volumes(all: &[LogicalVolume]) -> Vec<LogicalVolume> {
        pick(all, |kind| kind != Kind::Snapshot)
    }

    /// The snapshots among LogicalVolumes.
    pub fn snapshots(all: &[LogicalVolume]) -> Vec<LogicalVolume> {
        pick(all, |kind| kind == Kind::Snapshot)
    }

    /// The restored ones among LogicalVolumes.
    pub fn restores(all: &[LogicalVolume]) -> Vec<LogicalVolume> {
        pick(all, |kind| kind == Kind::Restore)
    }

    /// The whole listing as text.
    pub fn render(&self, format: Format, now: Timestamp) -> Result<String, CliError> {
        match format {
            Format::Table => Ok(self.tables(false, now)),
            Format::Wide => Ok(self.tables(true, now)),
            Format::Json => document(&self.list(), format),
            Format::Yaml => document(&self.list(), format),
        }
    }

    fn tables(&self, wide: bool, now: Timestamp) -> String {
        let sections = [
            ("volumes", self.volumes.as_ref().map(|all| rows::volumes(all, wide, now))),
            ("snapshots", self.snapshots.as_ref().map(|all| rows::snapshots(all, wide, now))),
            ("restores", self.restores.as_ref().map(|all| rows::restores(all, wide, now))),
            ("storages", self.storages.as_ref().map(|all| rows::storages(all, wide, now))),
        ];
        let asked: Vec<_> = sections.into_iter().filter_map(|(name, table)| Some((name, table?))).collect();
        let alone = asked.len() == 1;
        let full: Vec<_> = asked.iter().filter(|(_, table)| !table.is_empty()).collect();
        match (full.as_slice(), asked.as_slice()) {
            ([], [(name, _)]) => format!("no {name}\n"),
            ([], _) => "nothing there yet: begin with `lvault volume create` and `lvault storage add`\n".to_owned(),
            (full, _) if alone => full.iter().map(|(_, table)| table.render()).collect(),
            (full, _) => {
                let parts = full.iter().map(|(name, table)| format!("{}\n{}", name.to_uppercase(), table.render()));
                parts.collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// What `kubectl get` prints for several objects, each object once.
    fn list(&self) -> Value {
        let mut items: Vec<Value> = Vec::new();
        let volumes = [&self.volumes, &self.snapshots, &self.restores].into_iter().flatten().flatten();
        let values = volumes.map(serde_json::to_value).chain(self.storages.iter().flatten().map(serde_json::to_value));
        for value in values.flatten() {
            if !items.contains(&value) {
                items.push(value);
            }
        }
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }
}

fn pick(all: &[LogicalVolume], wanted: impl Fn(Kind) -> bool) -> Vec<LogicalVolume> {
    all.iter().filter(|volume| wanted(Kind::of(volume))).cloned().collect()
}

/// One object, or a list, as JSON or YAML; JSON also where a table was asked for, as there is none of a single object.
/// Who manages which field is left out, as kubectl does.
pub fn document(object: &impl Serialize, format: Format) -> Result<String, CliError> {
    let failed = |error: String| CliError::Server {
        tried: "printing the object",
        happened: error,
        remedy: "try `-o table`".to_owned(),
    };
    let mut object = serde_json::to_value(object).map_err(|error| failed(error.to_string()))?;
    leave_managers_out(&mut object);
    match format {
        Format::Yaml => serde_yaml_ng::to_string(&object).map_err(|error| failed(error.to_string())),
        Format::Json | Format::Table | Format::Wide => {
            serde_json::to_string_pretty(&object).map_err(|error| failed(error.to_string()))
        }
    }
}

fn leave_managers_out(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(leave_managers_out);
    }
}

#[cfg(test)]
mod tests;
