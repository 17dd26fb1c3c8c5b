//! Taking over volumes whose objects TopoLVM has written: they say `status.volumeID`, and not where it is
//! mounted.
//!
//! What holds here: a volume is taken over when its object says that it is there and the engine does not know it as ours;
//! what cannot be taken over is left as it is, and a deletion of its object does not wait for it.

use lvault_api::{AccessType, LogicalVolume, Wanted};
use lvault_engines::{Access, Adoption, Change, EngineError, Retry};
use tracing::warn;

use crate::agent::Agent;
use crate::observe::View;
use crate::perform::{Failed, in_full};

impl Agent {
    /// Takes the volume over, if TopoLVM's object names one; whether that changed anything.
    pub(crate) async fn adopt(&self, view: &View) -> Result<bool, EngineError> {
        let Some(adoption) = adoption(view) else { return Ok(false) };
        let changed = self.engine_call(move |engine| engine.ensure_adopted(&adoption)).await?;
        Ok(changed == Change::Changed)
    }

    /// As [`adopt`](Self::adopt), so that it can be removed.
    pub(crate) async fn adopt_for_removal(&self, view: &View) -> Result<bool, Failed> {
        match self.adopt(view).await {
            Ok(changed) => Ok(changed),
            Err(error) => match error.retry() {
                Retry::Later | Retry::Unknown => Err(Failed::ForNow(None, in_full(&error))),
                Retry::Never => {
                    warn!("the volume {} is left on this node: {}", view.id, in_full(&error));
                    Ok(false)
                }
            },
        }
    }
}

fn adoption(view: &View) -> Option<Adoption> {
    let object = &view.object;
    let spec = view.spec.as_ref().ok()?;
    let access = match &spec.wanted {
        Wanted::Volume | Wanted::LocalSnapshot { access: AccessType::Rw, .. } => Access::ReadWrite,
        Wanted::LocalSnapshot { access: AccessType::Ro, .. } => Access::ReadOnly,
        Wanted::OnlineSnapshot { .. } | Wanted::Restore { .. } => return None,
    };
    let device_class = object.spec.device_class.clone().filter(|name| !name.is_empty());
    is_topolvms(object).then(|| Adoption { id: view.id.clone(), size: spec.size, access, device_class })
}

/// Whether another program has published the volume, and lvault has not yet: lvault says where it is mounted.
fn is_topolvms(object: &LogicalVolume) -> bool {
    let Some(status) = &object.status else { return false };
    status.volume_id.is_some() && status.volume_id == object.metadata.uid && status.mount_path.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_another_program_has_published_under_its_own_uid_is_taken_over() {
        let object = |status: serde_json::Value| -> LogicalVolume {
            let spec = json!({"name": "v", "nodeName": "n", "size": "1Gi"});
            serde_json::from_value(json!({"metadata": {"name": "v", "uid": "u"}, "spec": spec, "status": status}))
                .expect("a volume")
        };
        for (status, is_theirs) in [
            (json!({"volumeID": "u"}), true),
            (json!({"volumeID": "another"}), false),
            (json!({"volumeID": "u", "mountPath": "/m"}), false),
            (json!({}), false),
            (json!(null), false),
        ] {
            assert_eq!(is_topolvms(&object(status.clone())), is_theirs, "{status}");
        }
    }
}
