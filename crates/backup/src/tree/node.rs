//! Nodes of trees as JSON, read and written field by field.
//!
//! rustic's own types mean the same, and are slow: they collect all fields before they look at any, and ask for the time zone
//! at each time. Of a million files that is many seconds, several times in a restore. Times are written in UTC here, so that
//! a tree does not depend on where the process runs.

use crate::fault::Fault;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use jiff::tz::Offset;
use rustic_core::repofile::{Metadata, Node, NodeType, Tree};
use rustic_core::{DataId, TreeId};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt::{self, Formatter};
use std::io::{self, Read};

/// A node as it is read.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    mode: Option<u32>,
    mtime: Option<Time>,
    atime: Option<Time>,
    ctime: Option<Time>,
    uid: Option<u32>,
    gid: Option<u32>,
    user: Option<String>,
    group: Option<String>,
    #[serde(default)]
    inode: u64,
    #[serde(default)]
    device_id: u64,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    links: u64,
    linktarget: Option<String>,
    linktarget_raw: Option<String>,
    #[serde(default)]
    device: u64,
    extended_attributes: Option<serde_json::Value>,
    content: Option<Vec<DataId>>,
    subtree: Option<TreeId>,
}

/// A node as it is written.
#[derive(Serialize)]
struct Written<'a, A> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    atime: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctime: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    extended_attributes: Option<&'a [A]>,
    content: Option<&'a [DataId]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<TreeId>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A time as restic writes it.
struct Time(Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Time;
            fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
                formatter.write_str("a time")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map(Time).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.display_with_offset(Offset::UTC))
    }
}

impl Stored<'_> {
    fn into_node(self) -> Result<Node, String> {
        let node_type = match &*self.kind {
            "file" => NodeType::File,
            "dir" => NodeType::Dir,
            "symlink" => {
                let decode = |raw: String| BASE64_STANDARD.decode(raw).map_err(|err| format!("a link's target: {err}"));
                let linktarget = self.linktarget.ok_or("a link without a target")?;
                NodeType::Symlink { linktarget, linktarget_raw: self.linktarget_raw.map(decode).transpose()? }
            }
            "dev" => NodeType::Dev { device: self.device },
            "chardev" => NodeType::Chardev { device: self.device },
            "fifo" => NodeType::Fifo,
            "socket" => NodeType::Socket,
            other => return Err(format!("an entry of the unknown type {other:?}")),
        };
        let mut meta = Metadata {
            mode: self.mode,
            mtime: self.mtime.map(|time| time.0),
            atime: self.atime.map(|time| time.0),
            ctime: self.ctime.map(|time| time.0),
            uid: self.uid,
            gid: self.gid,
            user: self.user,
            group: self.group,
            inode: self.inode,
            device_id: self.device_id,
            size: self.size,
            links: self.links,
            extended_attributes: Vec::new(),
        };
        if let Some(attributes) = self.extended_attributes {
            let read = serde_json::from_value(attributes);
            meta.extended_attributes = read.map_err(|err| format!("extended attributes: {err}"))?;
        }
        Ok(Node::new(self.name.into_owned(), node_type, meta, self.content, self.subtree))
    }
}

/// A node that is read.
struct ReadNode(Node);

impl<'de> Deserialize<'de> for ReadNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Stored::deserialize(deserializer)?.into_node().map(ReadNode).map_err(D::Error::custom)
    }
}

#[derive(Deserialize)]
struct ReadTree {
    nodes: Option<Vec<ReadNode>>,
}

/// Reads a tree.
pub(crate) fn parse_tree(json: &[u8]) -> serde_json::Result<Tree> {
    let ReadTree { nodes } = serde_json::from_slice(json)?;
    Ok(Tree { nodes: nodes.unwrap_or_default().into_iter().map(|node| node.0).collect() })
}

/// A node as it stands in a tree.
pub(crate) fn node_json(node: &Node) -> serde_json::Result<Vec<u8>> {
    // Destructured, so that no field that a later rustic knows is forgotten.
    let Node { name, node_type, meta, content, subtree } = node;
    let Metadata {
        mode,
        mtime,
        atime,
        ctime,
        uid,
        gid,
        user,
        group,
        inode,
        device_id,
        size,
        links,
        extended_attributes,
    } = meta;
    let (kind, device, link) = match node_type {
        NodeType::File => ("file", None, None),
        NodeType::Dir => ("dir", None, None),
        NodeType::Symlink { linktarget, linktarget_raw } => ("symlink", None, Some((linktarget, linktarget_raw))),
        NodeType::Dev { device } => ("dev", Some(*device), None),
        NodeType::Chardev { device } => ("chardev", Some(*device), None),
        NodeType::Fifo => ("fifo", None, None),
        NodeType::Socket => ("socket", None, None),
    };
    let written = Written {
        name,
        kind,
        linktarget: link.map(|(target, _)| target.as_str()),
        linktarget_raw: link.and_then(|(_, raw)| raw.as_ref()).map(|raw| BASE64_STANDARD.encode(raw)),
        device,
        mode: *mode,
        mtime: mtime.map(Time),
        atime: atime.map(Time),
        ctime: ctime.map(Time),
        uid: *uid,
        gid: *gid,
        user: user.as_deref(),
        group: group.as_deref(),
        inode: *inode,
        device_id: *device_id,
        size: *size,
        links: *links,
        extended_attributes: (!extended_attributes.is_empty()).then_some(extended_attributes.as_slice()),
        content: content.as_deref(),
        subtree: *subtree,
    };
    serde_json::to_vec(&written)
}

/// So much is read at once, at least.
pub(super) const PORTION: usize = 256 << 10;

/// The nodes of a tree one by one, each with the bytes it stands in: so neither all nodes are in memory at once nor has an
/// unchanged one to be written anew.
#[derive(Default)]
pub(crate) struct Nodes {
    /// What was read and is not passed.
    json: Vec<u8>,
    at: usize,
    /// Where more comes from.
    rest: Option<Box<dyn Read + Send>>,
}

impl Nodes {
    /// Begins to read a tree.
    ///
    /// # Errors
    /// What begins in another way than restic's trees do is none.
    pub(crate) fn open(json: Vec<u8>) -> Result<Self, String> {
        Self { json, at: 0, rest: None }.begin()
    }

    /// The same of a tree that is too long to be in memory whole.
    ///
    /// # Errors
    /// Also where it cannot be read.
    pub(crate) fn stream(rest: Box<dyn Read + Send>) -> Result<Self, String> {
        let mut nodes = Self { json: Vec::new(), at: 0, rest: Some(rest) };
        nodes.fill().map_err(|err| err.to_string())?;
        nodes.begin()
    }

    fn begin(mut self) -> Result<Self, String> {
        for expected in [b"{".as_slice(), b"\"nodes\"", b":"] {
            if !self.take(expected) {
                return Err("it does not begin with its nodes".to_owned());
            }
        }
        if self.take(b"null") {
            (self.at, self.rest) = (self.json.len(), None);
        } else if !self.take(b"[") {
            return Err("its nodes are no list".to_owned());
        }
        Ok(self)
    }

    /// Passes these bytes, and white space before them, where they come next.
    fn take(&mut self, expected: &[u8]) -> bool {
        let rest = &self.json[self.at..];
        let begin = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let found = rest[begin..].starts_with(expected);
        if found {
            self.at += begin + expected.len();
        }
        found
    }

    /// Reads more; whether there was any. What was passed is given up.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        self.json.drain(..std::mem::take(&mut self.at));
        // A node that does not fit is looked at again each time: so each time there is twice as much.
        let wanted = PORTION.max(self.json.len()) as u64;
        let count = rest.by_ref().take(wanted).read_to_end(&mut self.json)?;
        if count == 0 {
            self.rest = None;
        }
        Ok(count > 0)
    }

    /// The next node.
    pub(crate) fn next(&mut self) -> serde_json::Result<Option<(Node, &[u8])>> {
        loop {
            let begin = self.at;
            self.take(b",");
            if self.take(b"]") {
                (self.at, self.rest) = (self.json.len(), None);
                return Ok(None);
            }
            let mut values = serde_json::Deserializer::from_slice(&self.json[self.at..]).into_iter::<ReadNode>();
            let read = values.next();
            let end = self.at + values.byte_offset();
            match read {
                Some(Ok(node)) => {
                    let stored = self.json[self.at..end].trim_ascii().len();
                    self.at = end;
                    return Ok(Some((node.0, &self.json[end - stored..end])));
                }
                Some(Err(err)) if !err.is_eof() => return Err(err),
                cut_off => {
                    self.at = begin;
                    let more = self.fill().map_err(serde_json::Error::io)?;
                    if !more {
                        return cut_off.transpose().map(|_| None);
                    }
                }
            }
        }
    }
}

impl Nodes {
    /// The same without its bytes.
    pub(crate) fn next_node(&mut self) -> Result<Option<Node>, Fault> {
        match self.next() {
            Ok(next) => Ok(next.map(|(node, _)| node)),
            Err(err) => Err(Fault::damaged(format!("a tree is no tree: {err}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;
    use rustic_core::Id;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn any_time() -> impl Strategy<Value = Timestamp> {
        (-60_000_000_000_i64..250_000_000_000, 0..1_000_000_000_i32)
            .prop_map(|(seconds, nanoseconds)| Timestamp::new(seconds, nanoseconds).unwrap())
    }

    fn any_type() -> impl Strategy<Value = NodeType> {
        prop_oneof![
            Just(NodeType::File),
            Just(NodeType::Dir),
            prop::collection::vec(1_u8.., 1..20)
                .prop_map(|target| NodeType::from_link(Path::new(OsStr::from_bytes(&target)))),
            any::<u64>().prop_map(|device| NodeType::Dev { device }),
            any::<u64>().prop_map(|device| NodeType::Chardev { device }),
            Just(NodeType::Fifo),
            Just(NodeType::Socket),
        ]
    }

    prop_compose! {
        fn any_metadata()(
            (mode, uid, gid, user, group) in (of(0_u32..), of(0_u32..), of(0_u32..), of("[a-zß\"]{0,5}"), of("[a-z]{0,5}")),
            (mtime, atime, ctime) in (of(any_time()), of(any_time()), of(any_time())),
            (inode, device_id, size, links) in (0_u64.., 0_u64..3, 0_u64.., 0_u64..3),
            attributes in prop::collection::vec(("[a-z.]{1,9}", of(prop::collection::vec(0_u8.., 0..9))), 0..3),
        ) -> Metadata {
            let attribute = |(name, value): (String, Option<Vec<u8>>)| {
                serde_json::json!({ "name": name, "value": value.map(|value| BASE64_STANDARD.encode(value)) })
            };
            let attributes: Vec<_> = attributes.into_iter().map(attribute).collect();
            let extended_attributes = serde_json::from_value(attributes.into()).unwrap();
            Metadata { mode, mtime, atime, ctime, uid, gid, user, group, inode, device_id, size, links, extended_attributes }
        }
    }

    prop_compose! {
        fn any_node()(
            name in prop::collection::vec(1_u8.., 1..12),
            kind in any_type(),
            meta in any_metadata(),
            content in of(prop::collection::vec(any::<[u8; 32]>(), 0..3)),
            subtree in of(any::<[u8; 32]>()),
        ) -> Node {
            let content = content.map(|ids| ids.into_iter().map(|id| DataId::from(Id::new(id))).collect());
            let subtree = subtree.map(|id| TreeId::from(Id::new(id)));
            Node { content, subtree, ..Node::new_node(OsStr::from_bytes(&name), kind, meta) }
        }
    }

    /// A tree of which so many bytes are there at first, and all others later.
    fn in_portions(mut json: Vec<u8>, portion: usize) -> Nodes {
        let rest = json.split_off(portion.min(json.len()));
        Nodes { json, at: 0, rest: Some(Box::new(io::Cursor::new(rest))) }.begin().unwrap()
    }

    /// As rustic writes it; what it writes as local times is written in UTC.
    fn by_rustic(node: &Node) -> serde_json::Value {
        let mut value = serde_json::to_value(node).unwrap();
        for (field, time) in [("mtime", node.meta.mtime), ("atime", node.meta.atime), ("ctime", node.meta.ctime)] {
            if let Some(time) = time {
                value[field] = time.display_with_offset(Offset::UTC).to_string().into();
            }
        }
        value
    }

    proptest! {
        /// Both ways, whatever else stands in the JSON.
        #[test]
        fn nodes_mean_what_rustic_means(
            nodes in prop::collection::vec(any_node(), 0..4),
            pretty: bool,
            portion in 20_usize..400,
        ) {
            let values: Vec<_> = nodes.iter().map(by_rustic).collect();
            for (node, value) in nodes.iter().zip(&values) {
                let json = node_json(node).unwrap();
                prop_assert_eq!(&serde_json::from_slice::<serde_json::Value>(&json).unwrap(), value);
                prop_assert_eq!(&serde_json::from_slice::<Node>(&json).unwrap(), node);
            }
            let tree = serde_json::json!({ "nodes": values });
            let write = if pretty { serde_json::to_vec_pretty } else { serde_json::to_vec };
            let json = write(&tree).unwrap();
            prop_assert_eq!(&parse_tree(&json).unwrap().nodes, &nodes);
            for mut one_by_one in [Nodes::open(json.clone()).unwrap(), in_portions(json, portion)] {
                for node in &nodes {
                    let (read, stored) = one_by_one.next().unwrap().unwrap();
                    prop_assert_eq!(&read, node);
                    prop_assert_eq!(&serde_json::from_slice::<Node>(stored).unwrap(), node);
                }
                prop_assert!(one_by_one.next().unwrap().is_none());
                prop_assert!(one_by_one.next().unwrap().is_none());
            }
        }
    }

    /// The order of the fields is rustic's, so that what it stored is found again.
    #[test]
    fn fields_stand_in_rustics_order() {
        let time = Timestamp::new(1_700_000_000, 5).unwrap();
        let meta = Metadata {
            mode: Some(0o644),
            mtime: Some(time),
            uid: Some(0),
            gid: Some(1),
            inode: 7,
            size: 3,
            links: 1,
            ..Default::default()
        };
        for kind in [NodeType::File, NodeType::from_link(Path::new("a")), NodeType::Dev { device: 3 }] {
            let node = Node::new_node(OsStr::new("x"), kind, meta.clone());
            let without_time = |json: &[u8]| {
                let json = String::from_utf8(json.to_vec()).unwrap();
                let at = json.find("\"mtime\"").unwrap();
                let end = at + json[at..].find(',').unwrap();
                json[..at].to_owned() + &json[end..]
            };
            let theirs = serde_json::to_vec(&node).unwrap();
            assert_eq!(without_time(&node_json(&node).unwrap()), without_time(&theirs));
        }
    }

    #[test]
    fn what_is_no_node_is_an_error() {
        for json in [
            r#"{"nodes":[{"name":"a","type":"box"}]}"#,
            r#"{"nodes":[{"name":"a","type":"symlink"}]}"#,
            r#"{"nodes":[{"type":"file"}]}"#,
            r#"{"nodes":[{"name":"a","type":"file","mtime":"yesterday"}]}"#,
            r#"{"nodes":[{"name":"a","type":"symlink","linktarget":"b","linktarget_raw":"!"}]}"#,
            r#"{"nodes":[7]}"#,
            r#"{"nodes":[{"name":"a","type":"file"}"#,
        ] {
            assert!(parse_tree(json.as_bytes()).is_err(), "{json}");
            assert!(serde_json::from_str::<Tree>(json).is_err(), "{json}");
            let mut nodes = Nodes::open(json.into()).unwrap();
            let all = std::iter::from_fn(|| nodes.next().map(|node| node.map(drop)).transpose());
            // What is missing behind the last node, only whoever reads the whole notices; the hash has been looked at before.
            assert!(json.ends_with("\"}") || all.take(3).any(|node| node.is_err()), "{json}");
        }
        assert!(parse_tree(br#"{"nodes":null}"#).unwrap().nodes.is_empty());
        assert!(Nodes::open(br#"{"nodes":null}"#.to_vec()).unwrap().next().unwrap().is_none());
        assert!(Nodes::open(br#"{"other":[]}"#.to_vec()).is_err());
        assert!(Nodes::open(br#"{"nodes":7}"#.to_vec()).is_err());
    }
}
