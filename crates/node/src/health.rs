//! The health of the storage beneath volumes: looked at by one loop, told as a condition of each volume concerned.
//!
//! What holds here: the condition is written when a problem begins, becomes another one, or ends, and not while it stands,
//! however its figures change. A volume that never had a problem has no such condition. All of it comes from the
//! engine's remembered report; an engine without device classes is not asked at all, unless somebody publishes its room.

use std::collections::HashMap;

use jiff::Timestamp;
use lvault_api::conditions::{self, Said};
use lvault_api::{LogicalVolume, LogicalVolumeStatus};
use lvault_core::VolumeId;
use lvault_engines::{Capacity, ClassReport, Problem, ProblemKind};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::agent::Agent;

/// What the last look at a node's storage has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// The room of the default device class, or of the engine where it has no classes.
    pub capacity: Capacity,
    /// Every device class; none where the engine has no such.
    pub classes: Vec<ClassReport>,
}

/// Looks at the storage, for ever: publishes its room, and wakes the volumes whose problems have changed.
pub(crate) async fn watch(
    agent: &Agent,
    room: Option<&watch::Sender<Option<Room>>>,
    wake: mpsc::UnboundedSender<VolumeId>,
) {
    let mut ticks = tokio::time::interval(agent.config.health_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut of_volumes, mut of_classes) = (HashMap::new(), HashMap::new());
    loop {
        ticks.tick().await;
        let classes = match agent.engine_call(|engine| engine.classes()).await {
            Ok(classes) => classes,
            Err(problem) => {
                warn!("the device classes of this node cannot be looked at: {problem}");
                continue;
            }
        };
        if classes.is_empty() && room.is_none() {
            return std::future::pending().await;
        }
        if let Some(room) = room {
            match agent.engine_call(|engine| engine.capacity()).await {
                Ok(capacity) => {
                    let now = Room { capacity, classes: classes.clone() };
                    room.send_if_modified(|before| before.replace(now.clone()).as_ref() != Some(&now));
                }
                Err(problem) => warn!("the room of this node cannot be found out: {problem}"),
            }
        }
        if classes.is_empty() {
            continue;
        }
        for class in &classes {
            let (name, kinds) = (class.name.clone(), kinds(&class.problems));
            if of_classes.insert(name, kinds.clone()).unwrap_or_default() != kinds {
                log(class);
            }
        }
        match agent.engine_call(|engine| engine.list()).await {
            Ok(volumes) => {
                let now: HashMap<_, _> = volumes.into_iter().map(|it| (it.id, kinds(&it.problems))).collect();
                let changed = |(id, kinds): &(&VolumeId, &Vec<ProblemKind>)| {
                    of_volumes.get(*id).is_none_or(|before| before != *kinds)
                };
                for (id, _) in now.iter().filter(changed) {
                    // Nobody listens any more when the agent ends.
                    let _ = wake.send(id.clone());
                }
                of_volumes = now;
            }
            Err(problem) => debug!("the volumes of this node cannot be listed: {problem}"),
        }
    }
}

fn log(class: &ClassReport) {
    if class.problems.is_empty() {
        info!("device class {}: nothing is wrong with it any more", class.name);
    }
    for problem in &class.problems {
        warn!("device class {}: {}: {}", class.name, problem.kind.reason(), problem.message);
    }
}

fn kinds(problems: &[Problem]) -> Vec<ProblemKind> {
    problems.iter().map(|problem| problem.kind).collect()
}

/// Whether the object's condition says something else than what is so.
pub(crate) fn is_news(object: &LogicalVolume, problems: &[Problem]) -> bool {
    let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    match conditions::ailment(conditions) {
        Some(said) => said.reason != reasons(problems),
        None => !problems.is_empty(),
    }
}

/// Says in a status what is wrong with the storage beneath the volume, or that it is over.
pub(crate) fn set(object: &LogicalVolume, status: &mut LogicalVolumeStatus, problems: &[Problem], now: Timestamp) {
    if !is_news(object, problems) {
        return;
    }
    let said = match problems {
        [] => Said {
            kind: conditions::HEALTHY,
            holds: true,
            reason: "Recovered".to_owned(),
            message: "nothing is wrong any more".to_owned(),
        },
        problems => {
            let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            let message = messages.join("; ");
            Said { kind: conditions::HEALTHY, holds: false, reason: reasons(problems), message }
        }
    };
    conditions::set(&mut status.conditions, said, object.metadata.generation, now);
}

fn reasons(problems: &[Problem]) -> String {
    let reasons: Vec<&str> = problems.iter().map(|problem| problem.kind.reason()).collect();
    reasons.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_and_conditions_agree_on_what_spoils_copies() {
        let spoiling: Vec<&str> =
            ProblemKind::ALL.into_iter().filter(|kind| kind.spoils_copies()).map(ProblemKind::reason).collect();
        assert_eq!(spoiling, conditions::SPOILS_COPIES);
        assert!(ProblemKind::ALL.is_sorted(), "the worst first");
    }

    #[test]
    fn a_condition_changes_with_the_problem_and_not_with_its_figures() {
        let problem = |kind, message: &str| Problem { kind, message: message.to_owned() };
        let full = |message| [problem(ProblemKind::PoolNearlyFull, message)];
        let object = serde_json::json!({
            "apiVersion": "topolvm.io/v1", "kind": "LogicalVolume", "metadata": {"name": "v"},
            "spec": {"name": "v", "nodeName": "n", "size": "1Gi"},
        });
        let mut object: LogicalVolume = serde_json::from_value(object).unwrap();
        let mut tell = |problems: &[Problem], second: i64| {
            let mut status = object.status.clone().unwrap_or_default();
            set(&object, &mut status, problems, Timestamp::from_second(second).unwrap());
            object.status = Some(status);
            let conditions = &object.status.as_ref().unwrap().conditions;
            conditions.first().map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
        };
        let said = |status: &str, reason: &str, message: &str| Some((status.into(), reason.into(), message.into()));
        assert_eq!(tell(&[], 1), None, "what was never ill is not said to be well");
        assert_eq!(tell(&full("91%"), 2), said("False", "PoolNearlyFull", "91%"));
        assert_eq!(tell(&full("92%"), 3), said("False", "PoolNearlyFull", "91%"));
        let both = [problem(ProblemKind::PoolFailed, "no space"), full("100%")[0].clone()];
        assert_eq!(tell(&both, 4), said("False", "PoolFailed,PoolNearlyFull", "no space; 100%"));
        assert_eq!(tell(&[], 5), said("True", "Recovered", "nothing is wrong any more"));
        assert_eq!(tell(&[], 6), said("True", "Recovered", "nothing is wrong any more"));
    }
}
