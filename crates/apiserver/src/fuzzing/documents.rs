//! Documents: exports, CustomResourceDefinitions with objects of theirs, and objects as protobuf.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::parts;
use crate::depth;
use crate::http::protobuf;
use crate::registry::Registry;
use crate::schema::{shape, validate};
use crate::store::file::{read_key, write_key};
use crate::store::{Key, Stored};
use crate::{archive as archives, metadata};

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::with_kinds(&super::requests::crds(), &[]).expect("it builds"));

/// An export: it is refused with the place, or what is read of it is what an export of it says.
pub(super) fn archive(data: &[u8]) {
    let (revision, objects) = match archives::read(&REGISTRY, data) {
        Ok(read) => read,
        Err(why) => return assert!(!why.is_empty()),
    };
    let mut items = Vec::new();
    for (key, json) in &objects {
        assert_eq!(read_key(&REGISTRY, &write_key(&REGISTRY, key)).as_ref(), Ok(key), "the file does not give it back");
        let object: Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(
            (metadata::text(&object, "name"), metadata::text(&object, "namespace")),
            (&*key.name, &*key.namespace)
        );
        let stored = Stored::of(REGISTRY.resource(key.resource), object.clone(), revision);
        assert_eq!(stored.uid, metadata::text(&object, "uid"));
        items.push(object);
    }
    let again = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": revision.to_string()}, "items": items});
    assert_eq!(archives::read(&REGISTRY, again.to_string().as_bytes()), Ok((revision, objects)));
}

/// A CustomResourceDefinition with a schema, and an object: what is brought into shape stays in it.
pub(super) fn schema(data: &[u8]) {
    let [schema, object] = parts::<2>(data);
    let Ok(schema) = serde_json::from_slice::<Value>(schema) else { return };
    let document = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let registry = match Registry::with_kinds(&[document], &[]) {
        Ok(registry) => registry,
        Err(refused) => return assert!(refused.to_string().contains("things.example.com"), "{refused}"),
    };
    let view = registry.view(registry.find("example.com", "v1", "things").expect("it was registered"));
    let Ok(mut object) = serde_json::from_slice::<Value>(object) else { return };
    if !object.is_object() || depth::check(&object).is_err() {
        return;
    }
    shape::shape(&view.schema, &mut object);
    let first = object.clone();
    let dropped = shape::shape(&view.schema, &mut object);
    assert!(object == first && dropped.is_empty(), "{first} became {object}, without {dropped:?}");
    let faults = validate::validate(&view.schema, &object, "");
    if faults.is_empty() {
        assert!(view.rules.as_ref().is_none_or(|rules| rules.broken(&object, None) == rules.broken(&object, None)));
    }
}

/// An object as protobuf: refused, or an object that JSON says as well.
pub(super) fn protobuf(data: &[u8]) {
    let Ok(object) = protobuf::object(data) else { return };
    assert!(object["kind"].is_string() && object["apiVersion"].is_string());
    assert!(depth::check(&object).is_ok());
    assert_eq!(serde_json::from_str::<Value>(&object.to_string()).expect("JSON"), object);
}

/// Whether an object that is stored under this key can be read again.
pub(super) fn is_readable(registry: &Registry, key: &Key, stored: &Stored) -> bool {
    let is_object = serde_json::from_slice::<Value>(&stored.json).is_ok_and(|object| object.is_object());
    is_object && read_key(registry, &write_key(registry, key)).as_ref() == Ok(key)
}
