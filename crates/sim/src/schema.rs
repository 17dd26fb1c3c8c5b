//! Values for every field of a LogicalVolume's spec, legal and illegal, taken from the schema of its CRD: alone in a new
//! object, and in sequence by changing one that is there. Every one is refused with a reason, or comes to rest and says what
//! became of it; nothing panics, and no law is broken, hot loops among them.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kube::ResourceExt;
use lvault_api::{LogicalVolume, Phase};
use serde_json::{Map, Value, json};

use crate::run::alone;
use crate::world::users::{Said, phase};
use crate::world::{NODE, World};

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    /// Fields of the schema.
    pub fields: usize,
    /// Values in them, each in a new object and as a change.
    pub values: usize,
    /// Objects and changes that the API took.
    pub taken: usize,
    /// Those that it refused.
    pub refused: usize,
}

static PANICS: AtomicU64 = AtomicU64::new(0);
static COUNTING: Once = Once::new();

fn count_panics() {
    COUNTING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(panic);
        }));
    });
}

/// A field: its path below `spec`, and its schema.
type Field = (Vec<String>, Value);

fn fields() -> Said<Vec<Field>> {
    let crds = lvault_api::crds::all();
    let schema = crds.iter().find(|crd| crd.pointer("/spec/names/kind") == Some(&json!("LogicalVolume")));
    let spec = schema.and_then(|crd| crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec"));
    let spec = spec.ok_or("the CRD of LogicalVolume has no schema for its spec")?;
    let mut found = Vec::new();
    collect(spec, &mut Vec::new(), &mut found);
    Ok(found)
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Field>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, schema) in properties {
        path.push(name.clone());
        found.push((path.clone(), schema.clone()));
        collect(schema, path, found);
        path.pop();
    }
}

/// Values that this schema allows and values that it does not.
fn values(schema: &Value) -> Vec<Value> {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        let wrong = [json!("Sideways"), json!(""), json!(7)];
        return allowed.iter().filter(|value| !value.is_null()).cloned().chain(wrong).collect();
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("string");
    match kind {
        "integer" => [-1_i64, 0, 1, 2, 3, 1000, i64::from(i32::MAX), i64::MAX]
            .iter()
            .map(|number| json!(number))
            .chain([json!("1"), json!(1.5), json!(true)])
            .collect(),
        "boolean" => vec![json!(true), json!(false), json!("true"), json!(1)],
        "object" => vec![json!({}), json!([]), json!("text"), json!({"unknown": 1}), json!(null)],
        "array" => vec![json!([]), json!({}), json!(["a"])],
        _ => ["", "x", "data", NODE, "10Mi", "0", "-5Mi", "1.5Gi", "20000Pi", "1e400", "ß/../ü", " "]
            .iter()
            .map(|text| json!(text))
            .chain([json!("a".repeat(300)), json!(12), json!(null), json!("0123456789abcdef")])
            .collect(),
    }
}

/// The objects that values are put into.
fn bases(name: &str) -> [(&'static str, Value); 4] {
    let storage = json!({"name": "vault"});
    [
        ("volume", json!({"name": name, "nodeName": NODE, "size": "10Mi"})),
        ("clone", json!({"name": name, "nodeName": NODE, "size": "10Mi", "source": "data", "accessType": "rw"})),
        (
            "snapshot",
            json!({"name": name, "nodeName": NODE, "size": "10Mi", "source": "data",
                            "onlineSnapshot": {"storage": storage}}),
        ),
        (
            "restore",
            json!({"name": name, "nodeName": NODE, "size": "10Mi",
                           "restore": {"storage": storage, "path": "default/data", "snapshotID": "0123456789abcdef"}}),
        ),
    ]
}

/// The object with this value in this field, or `None` where the field's parent is not part of it.
fn with(base: &Value, path: &[String], value: &Value) -> Option<Value> {
    let mut object = base.clone();
    let (last, parents) = path.split_last()?;
    let mut at = &mut object;
    for parent in parents {
        at = at.get_mut(parent)?;
    }
    at.as_object_mut()?.insert(last.clone(), value.clone());
    Some(object)
}

/// A merge patch that sets this value in this field.
fn change(path: &[String], value: &Value) -> Value {
    path.iter().rev().fold(value.clone(), |inner, name| {
        let mut outer = Map::new();
        outer.insert(name.clone(), inner);
        Value::Object(outer)
    })
}

/// Tries every value of every field.
///
/// # Errors
/// What was wrong with the first value that broke something.
pub fn check() -> Said<Tried> {
    count_panics();
    let fields = fields()?;
    let mut tried = Tried { fields: fields.len(), ..Tried::default() };
    for (path, schema) in &fields {
        let values = values(schema);
        tried.values += values.len();
        let panics = PANICS.load(Ordering::SeqCst);
        let (taken, refused) =
            alone(field(path, &values)).map_err(|error| format!("spec.{}: {error}", path.join(".")))?;
        if PANICS.load(Ordering::SeqCst) != panics {
            return Err(format!("spec.{}: something panicked", path.join(".")));
        }
        tried.taken += taken;
        tried.refused += refused;
    }
    Ok(tried)
}

async fn field(path: &[String], values: &[Value]) -> Said<(usize, usize)> {
    let world = World::new(1).await?;
    world.create_storage().await?;
    world.create_volume("data").await?;
    world.until_ready("data").await?;
    let (mut taken, mut refused) = (0, 0);
    for (number, value) in values.iter().enumerate() {
        for (kind, base) in bases(&format!("v{number}")) {
            let Some(spec) = with(&base, path, value) else { continue };
            let name = format!("{kind}-{number}");
            count(world.create(&name, spec).await.map(drop), value, (&mut taken, &mut refused))?;
        }
    }
    // In sequence: each value over the one before, in objects that are there already.
    for (kind, base) in bases("changed") {
        world.create(&format!("changed-{kind}"), base).await.map_err(|error| error.to_string())?;
    }
    for value in values {
        tokio::time::sleep(Duration::from_secs(20)).await;
        for (kind, base) in bases("changed") {
            if with(&base, path, value).is_some() {
                let changed = world.patch(&format!("changed-{kind}"), change(path, value)).await;
                count(changed, value, (&mut taken, &mut refused))?;
            }
        }
    }
    // Longer than the start deadline: what waits for something that never comes has failed by then.
    tokio::time::sleep(Duration::from_secs(1000)).await;
    world.rest().await?;
    let objects = world.volumes().list(&kube::api::ListParams::default()).await.map_err(|error| error.to_string())?;
    objects.items.iter().try_for_each(says_what_became_of_it)?;
    for object in &objects.items {
        world.delete(&object.name_any()).await?;
    }
    for object in objects.items.iter().filter(|object| object.spec.node_name == NODE) {
        world.until_gone(&object.name_any()).await?;
    }
    match world.shared.with(|inner| inner.laws.broken.first().cloned()) {
        Some(broken) => Err(broken),
        None => Ok((taken, refused)),
    }
}

fn count(answer: Result<(), kube::Error>, value: &Value, (taken, refused): (&mut usize, &mut usize)) -> Said<()> {
    match answer {
        Ok(()) => *taken += 1,
        Err(kube::Error::Api(status)) if [400, 422].contains(&status.code) && !status.message.is_empty() => {
            *refused += 1;
        }
        // Our own client refuses to send what its types do not hold.
        Err(kube::Error::SerdeError(_)) => *refused += 1,
        Err(other) => return Err(format!("{value} is refused in an unexpected way: {other}")),
    }
    Ok(())
}

fn says_what_became_of_it(object: &LogicalVolume) -> Said<()> {
    let name = object.name_any();
    if object.spec.node_name != NODE {
        return Ok(());
    }
    let status = object.status.clone().unwrap_or_default();
    let ended = matches!(phase(object), Some(Phase::Succeeded | Phase::Failed));
    let problem = status.code.unwrap_or(0) != 0 && status.message.as_ref().is_some_and(|text| !text.is_empty());
    let transfer = status.online_snapshot.as_ref().or(status.restore.as_ref());
    let waits = transfer.and_then(|transfer| transfer.message.as_ref()).is_some_and(|text| !text.is_empty());
    if status.volume_id.is_some() || ended || problem || waits {
        return Ok(());
    }
    Err(format!("{name} says nothing: {:?} {:?}", object.spec, object.status))
}
