//! Protobuf, as far as kubectl cannot do without it: its `create` shortcuts and `auth` commands send nothing else.
//!
//! Holds: only the kinds listed here are read, and of each every field that is listed; a field that is not listed refuses
//! the request instead of being lost. Answers are always JSON, which those clients take.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::refusal::Refusal;

/// The media type.
pub(crate) const TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";

/// What a field holds.
#[derive(Clone, Copy)]
enum Holds {
    Text,
    Texts,
    Number,
    Bool,
    /// Text by text.
    Map,
    /// Bytes by text: shown in base64.
    Bytes,
    One(&'static [Field]),
    Many(&'static [Field]),
    /// Not read: what only the server says.
    Ignored,
}

/// Number, name, content.
type Field = (u64, &'static str, Holds);

const METADATA: &[Field] = &[
    (1, "name", Holds::Text),
    (2, "generateName", Holds::Text),
    (3, "namespace", Holds::Text),
    (4, "selfLink", Holds::Ignored),
    (5, "uid", Holds::Text),
    (6, "resourceVersion", Holds::Text),
    (7, "generation", Holds::Ignored),
    (8, "creationTimestamp", Holds::Ignored),
    (11, "labels", Holds::Map),
    (12, "annotations", Holds::Map),
    (14, "finalizers", Holds::Texts),
    (17, "managedFields", Holds::Ignored),
];

const fn meta() -> Field {
    (1, "metadata", Holds::One(METADATA))
}

const RULES: Field = (
    2,
    "rules",
    Holds::Many(&[
        (1, "verbs", Holds::Texts),
        (2, "apiGroups", Holds::Texts),
        (3, "resources", Holds::Texts),
        (4, "resourceNames", Holds::Texts),
        (5, "nonResourceURLs", Holds::Texts),
    ]),
);

const BINDING: &[Field] = &[
    meta(),
    (
        2,
        "subjects",
        Holds::Many(&[
            (1, "kind", Holds::Text),
            (2, "apiGroup", Holds::Text),
            (3, "name", Holds::Text),
            (4, "namespace", Holds::Text),
        ]),
    ),
    (3, "roleRef", Holds::One(&[(1, "apiGroup", Holds::Text), (2, "kind", Holds::Text), (3, "name", Holds::Text)])),
];

const RESOURCE: Holds = Holds::One(&[
    (1, "namespace", Holds::Text),
    (2, "verb", Holds::Text),
    (3, "group", Holds::Text),
    (4, "version", Holds::Text),
    (5, "resource", Holds::Text),
    (6, "subresource", Holds::Text),
    (7, "name", Holds::Text),
]);
const PATH: Holds = Holds::One(&[(1, "path", Holds::Text), (2, "verb", Holds::Text)]);
const STATUS: Field = (3, "status", Holds::Ignored);

const KINDS: &[(&str, &str, &[Field])] = &[
    ("v1", "Namespace", &[meta(), (2, "spec", Holds::Ignored), STATUS]),
    (
        "v1",
        "Secret",
        &[
            meta(),
            (2, "data", Holds::Bytes),
            (3, "type", Holds::Text),
            (4, "stringData", Holds::Map),
            (5, "immutable", Holds::Bool),
        ],
    ),
    (
        "v1",
        "ConfigMap",
        &[meta(), (2, "data", Holds::Map), (3, "binaryData", Holds::Bytes), (4, "immutable", Holds::Bool)],
    ),
    ("v1", "ServiceAccount", &[meta(), (4, "automountServiceAccountToken", Holds::Bool)]),
    ("rbac.authorization.k8s.io/v1", "Role", &[meta(), RULES]),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", &[meta(), RULES]),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", BINDING),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", BINDING),
    (
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        &[
            meta(),
            (2, "spec", Holds::One(&[(1, "resourceAttributes", RESOURCE), (2, "nonResourceAttributes", PATH)])),
            STATUS,
        ],
    ),
    (
        "authorization.k8s.io/v1",
        "SelfSubjectRulesReview",
        &[meta(), (2, "spec", Holds::One(&[(1, "namespace", Holds::Text)])), STATUS],
    ),
    ("authentication.k8s.io/v1", "SelfSubjectReview", &[meta(), (2, "status", Holds::Ignored)]),
    (
        "authentication.k8s.io/v1",
        "TokenRequest",
        &[
            meta(),
            (
                2,
                "spec",
                Holds::One(&[
                    (1, "audiences", Holds::Texts),
                    (
                        3,
                        "boundObjectRef",
                        Holds::One(&[
                            (1, "kind", Holds::Text),
                            (2, "apiVersion", Holds::Text),
                            (3, "name", Holds::Text),
                            (4, "uid", Holds::Text),
                        ]),
                    ),
                    (4, "expirationSeconds", Holds::Number),
                ]),
            ),
            STATUS,
        ],
    ),
];

/// Around every object: what it is, and its bytes.
const ENVELOPE: &[Field] = &[
    (1, "typeMeta", Holds::One(&[(1, "apiVersion", Holds::Text), (2, "kind", Holds::Text)])),
    (2, "raw", Holds::Ignored),
    (3, "contentEncoding", Holds::Ignored),
    (4, "contentType", Holds::Ignored),
];

/// Reads an object.
pub(crate) fn object(body: &[u8]) -> Result<Value, Refusal> {
    let broken = |why: &str| Refusal::BadRequest(format!("the object provided is unrecognized: {why}"));
    let content = body.strip_prefix(MAGIC).ok_or_else(|| broken("it does not begin as protobuf of Kubernetes does"))?;
    let envelope = message(content, ENVELOPE).map_err(|why| broken(&why))?;
    let said = |field: &str| envelope["typeMeta"][field].as_str().unwrap_or_default();
    let (version, kind) = (said("apiVersion"), said("kind"));
    let known = KINDS.iter().find(|(known_version, known, _)| *known_version == version && *known == kind);
    let Some((_, _, fields)) = known else {
        return Err(Refusal::UnsupportedMediaType("application/json, application/yaml"));
    };
    let raw = raw(content).ok_or_else(|| broken("it holds no object"))?;
    let mut object = message(raw, fields).map_err(|why| broken(&why))?;
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    Ok(object)
}

/// One field as it is written.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The next field: its number and what it holds.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let tag = varint(bytes)?;
    let content = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (content, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(content)
        }
        _other => return None,
    };
    Some((tag >> 3, content))
}

fn raw(mut bytes: &[u8]) -> Option<&[u8]> {
    while let Some((number, content)) = next(&mut bytes) {
        if let (2, Wire::Bytes(raw)) = (number, content) {
            return Some(raw);
        }
    }
    None
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| String::from("a text is not UTF-8"))
}

fn message(mut bytes: &[u8], fields: &[Field]) -> Result<Value, String> {
    let mut object = Map::new();
    while !bytes.is_empty() {
        let (number, content) = next(&mut bytes).ok_or("it ends in the middle")?;
        let Some((_, name, holds)) = fields.iter().find(|(known, _, _)| *known == number) else {
            return Err(format!("field {number} is not read from protobuf; send JSON"));
        };
        put(&mut object, name, *holds, content).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(Value::Object(object))
}

fn put(object: &mut Map<String, Value>, name: &str, holds: Holds, content: Wire<'_>) -> Result<(), String> {
    let mut push = |value: Value| {
        if let Some(items) = object.entry(name).or_insert_with(|| json!([])).as_array_mut() {
            items.push(value);
        }
    };
    match (holds, content) {
        (Holds::Ignored, _) => {}
        (Holds::Texts, Wire::Bytes(bytes)) => push(Value::from(text(bytes)?)),
        (Holds::Many(fields), Wire::Bytes(bytes)) => push(message(bytes, fields)?),
        (Holds::One(fields), Wire::Bytes(bytes)) => drop(object.insert(String::from(name), message(bytes, fields)?)),
        // A text that was not said is written all the same, as an empty one.
        (Holds::Text, Wire::Bytes([])) => {}
        (Holds::Text, Wire::Bytes(bytes)) => drop(object.insert(String::from(name), Value::from(text(bytes)?))),
        (Holds::Number, Wire::Number(number)) => drop(object.insert(String::from(name), json!(number.cast_signed()))),
        (Holds::Bool, Wire::Number(number)) => drop(object.insert(String::from(name), json!(number != 0))),
        (Holds::Map | Holds::Bytes, Wire::Bytes(mut bytes)) => {
            let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
            while let Some((number, content)) = next(&mut bytes) {
                match (number, content) {
                    (1, Wire::Bytes(found)) => key = found,
                    (2, Wire::Bytes(found)) => value = found,
                    (_, _) => return Err(String::from("an entry is not readable")),
                }
            }
            let shown = if matches!(holds, Holds::Bytes) { STANDARD.encode(value) } else { text(value)? };
            object.entry(name).or_insert_with(|| json!({}))[text(key)?] = Value::from(shown);
        }
        (Holds::Text | Holds::Texts | Holds::Map | Holds::Bytes | Holds::One(_) | Holds::Many(_), Wire::Number(_))
        | (Holds::Number | Holds::Bool, Wire::Bytes(_)) => return Err(String::from("it has another type")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("short");
        assert!(length < 0x80, "one byte of length");
        [&[number << 3 | 2, length], content].concat()
    }

    fn envelope(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = [field(1, version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &kind), &field(2, raw), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn objects_are_read_as_kubectl_writes_them() {
        let meta =
            [field(1, b"s"), field(2, b""), field(8, b""), field(11, &[field(1, b"k"), field(2, b"v")].concat())];
        let meta = field(1, &meta.concat());
        let data = field(2, &[field(1, b"a"), field(2, b"\xff")].concat());
        let secret = object(&envelope("v1", "Secret", &[meta.clone(), data, vec![5 << 3, 1]].concat()));
        let expected = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "/w=="}, "immutable": true,
                              "metadata": {"name": "s", "labels": {"k": "v"}}});
        assert_eq!(secret, Ok(expected));

        let rule = field(2, &[field(1, b"get"), field(1, b"list"), field(2, b""), field(3, b"pods")].concat());
        let role = object(&envelope("rbac.authorization.k8s.io/v1", "Role", &[meta.clone(), rule].concat()));
        let role = role.expect("read");
        assert_eq!(role["rules"], json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]));

        let lost = envelope("v1", "ServiceAccount", &[meta, field(2, b"")].concat());
        assert!(object(&lost).is_err_and(|refusal| refusal.to_string().contains("field 2")));
        assert!(matches!(object(&envelope("v1", "Pod", b"")), Err(Refusal::UnsupportedMediaType(_))));
    }

    #[test]
    fn what_is_cut_or_of_another_type_is_refused() {
        let whole = envelope("v1", "Secret", &field(1, &field(1, b"s")));
        for length in 0..whole.len() - 4 {
            assert!(object(&whole[..length]).is_err(), "{length} bytes");
        }
        let wrong = [vec![1 << 3, 1], vec![5 << 3 | 2, 0], vec![2 << 3 | 2, 2, 8, 1], vec![1 << 3 | 5]];
        for raw in wrong {
            assert!(object(&envelope("v1", "Secret", &raw)).is_err(), "{raw:?}");
        }
    }
}
