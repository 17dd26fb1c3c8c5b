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

    /// The same without its bytes.
    pub(crate) fn next_node(&mut self) -> Result<Option<Node>, Fault> {
        match self.next() {
            Ok(next) => Ok(next.map(|(node, _)| node)),
            Err(err) => Err(Fault::damaged(format!("a tree is no tree: {err}"))),
        }
    }
}

#[cfg(test)]
mod tests;
