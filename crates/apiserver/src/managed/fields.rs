//! Sets of fields: which fields of an object somebody owns, or which of them a write changed.
//!
//! Holds: a set is a tree of steps; a step leads on to further ones or ends at a member (or both), and no branch is empty.

use std::collections::BTreeMap;
use std::fmt;

/// One step of a path. Values are kept as JSON text: what is compared and shown is exactly that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A named field, or a key of a map.
    Field(String),
    /// The item of a list that has these values in its key fields, in the order of the fields' names.
    Key(Vec<(String, String)>),
    /// The item of a set with this value.
    Value(String),
    /// The item at this place of a list.
    Index(i64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Step::Value(value) => write!(f, "[={value}]"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// A path as errors show it.
pub(crate) fn shown(path: &[Step]) -> String {
    path.iter().map(Step::to_string).collect()
}

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    branches: BTreeMap<Step, Branch>,
}

/// What a step leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Branch {
    /// Whether the field at this step is itself in the set.
    pub(super) member: bool,
    /// The fields below it that are in the set.
    pub(super) below: FieldSet,
}

impl FieldSet {
    /// Adds the field at the path. The empty path, the whole object, is nobody's.
    pub(crate) fn insert(&mut self, path: &[Step]) {
        if let Some((first, rest)) = path.split_first() {
            let branch = self.branches.entry(first.clone()).or_default();
            if rest.is_empty() {
                branch.member = true;
            } else {
                branch.below.insert(rest);
            }
        }
    }

    /// Puts what a step leads to; a branch with nothing in it is left out.
    pub(super) fn put(&mut self, step: Step, branch: Branch) {
        if branch.member || !branch.below.is_empty() {
            self.branches.insert(step, branch);
        }
    }

    pub(super) fn branches(&self) -> impl Iterator<Item = (&Step, &Branch)> {
        self.branches.iter()
    }

    /// Whether the field at the path is in the set.
    pub(crate) fn contains(&self, path: &[Step]) -> bool {
        match path {
            [] => false,
            [only] => self.has(only),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.contains(rest)),
        }
    }

    /// Whether the field at this first step is in the set.
    pub(crate) fn has(&self, step: &Step) -> bool {
        self.branches.get(step).is_some_and(|branch| branch.member)
    }

    /// The fields below a first step.
    pub(crate) fn below(&self, step: &Step) -> Option<&FieldSet> {
        self.branches.get(step).map(|branch| &branch.below).filter(|below| !below.is_empty())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// The fields in either.
    pub(crate) fn union(&self, other: &FieldSet) -> FieldSet {
        combine(self, other, |left, right| left || right)
    }

    /// The fields in both.
    pub(crate) fn intersection(&self, other: &FieldSet) -> FieldSet {
        combine(self, other, |left, right| left && right)
    }

    /// The fields in this and not in the other. A field is not taken away because one above or below it is.
    pub(crate) fn difference(&self, other: &FieldSet) -> FieldSet {
        combine(self, other, |left, right| left && !right)
    }

    /// The fields whose first step is wanted.
    pub(crate) fn filtered(mut self, wanted: impl Fn(&Step) -> bool) -> FieldSet {
        self.branches.retain(|step, _| wanted(step));
        self
    }

    /// All paths in the set, those of one level before what is below them.
    pub(crate) fn paths(&self) -> Vec<Vec<Step>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut Vec<Step>, paths: &mut Vec<Vec<Step>>) {
        for (step, _) in self.branches.iter().filter(|(_, branch)| branch.member) {
            paths.push(at.iter().chain([step]).cloned().collect());
        }
        for (step, branch) in &self.branches {
            at.push(step.clone());
            branch.below.collect(at, paths);
            at.pop();
        }
    }
}

impl FromIterator<Vec<Step>> for FieldSet {
    fn from_iter<I: IntoIterator<Item = Vec<Step>>>(paths: I) -> FieldSet {
        let mut set = FieldSet::default();
        paths.into_iter().for_each(|path| set.insert(&path));
        set
    }
}

/// The fields for which `keep` holds, told whether they are in the left and in the right set.
fn combine(left: &FieldSet, right: &FieldSet, keep: fn(bool, bool) -> bool) -> FieldSet {
    let nothing = Branch::default();
    let mut result = FieldSet::default();
    let only_right = right.branches.keys().filter(|step| !left.branches.contains_key(step));
    for step in left.branches.keys().chain(only_right) {
        let (ours, theirs) =
            (left.branches.get(step).unwrap_or(&nothing), right.branches.get(step).unwrap_or(&nothing));
        let member = keep(ours.member, theirs.member);
        result.put(step.clone(), Branch { member, below: combine(&ours.below, &theirs.below, keep) });
    }
    result
}

/// Random sets for the properties of this module and of its neighbours.
#[cfg(test)]
pub(super) mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            "[a-c.:{}\"]{1,2}".prop_map(Step::Field),
            ("[a-b]", "[x-z\"]").prop_map(|(name, value)| Step::Key(vec![(name, format!("{value:?}"))])),
            (0..3_u8).prop_map(|value| Step::Value(value.to_string())),
            (0..3_i64).prop_map(Step::Index),
        ]
    }

    pub(crate) fn set() -> impl Strategy<Value = FieldSet> {
        proptest::collection::vec(proptest::collection::vec(step(), 1..4), 0..8)
            .prop_map(|paths| paths.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::arbitrary::set;
    use super::*;
    use proptest::prelude::*;

    fn field(name: &str) -> Step {
        Step::Field(String::from(name))
    }

    #[test]
    fn members_and_what_is_below_them_are_apart() {
        let (a, ab) = (vec![field("a")], vec![field("a"), field("b")]);
        let both: FieldSet = [a.clone(), ab.clone()].into_iter().collect();
        let upper: FieldSet = [a.clone()].into_iter().collect();
        let lower: FieldSet = [ab.clone()].into_iter().collect();
        assert!(both.contains(&a) && both.contains(&ab) && !both.contains(&[]));
        assert!(!lower.contains(&a), "a parent is no member because its child is");
        assert_eq!(both.difference(&upper), lower);
        assert_eq!(both.difference(&lower), upper);
        assert_eq!(upper.intersection(&lower), FieldSet::default());
        assert_eq!(upper.union(&lower), both);
        assert_eq!(both.paths(), [a, ab]);
    }

    #[test]
    fn paths_are_shown_as_kubernetes_shows_them() {
        let key =
            Step::Key(vec![(String::from("name"), String::from("\"x\"")), (String::from("port"), String::from("80"))]);
        let path = [field("spec"), field("list"), key, field("value")];
        assert_eq!(shown(&path), ".spec.list[name=\"x\",port=80].value");
        assert_eq!(shown(&[field("set"), Step::Value(String::from("\"x\""))]), ".set[=\"x\"]");
        assert_eq!(shown(&[field("list"), Step::Index(3)]), ".list[3]");
    }

    proptest! {
        #[test]
        fn the_laws_of_sets_hold(a in set(), b in set(), c in set()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
            prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.difference(&b.union(&c)), a.difference(&b).difference(&c));
            prop_assert!(a.difference(&a).is_empty());
            for path in a.union(&b).paths() {
                prop_assert!(a.contains(&path) || b.contains(&path));
            }
            let again: FieldSet = a.paths().into_iter().collect();
            prop_assert_eq!(again, a);
        }
    }
}
