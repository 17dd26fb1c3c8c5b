//! Nodes against rustic's own reading and writing.

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
