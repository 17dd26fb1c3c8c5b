//! The columns of a kind's table.
//!
//! Holds: what a column shows is decided at registration; filling its cells is the table's business.

use crate::jsonpath::JsonPath;

/// How a cell gets its value.
#[derive(Debug)]
pub(crate) enum Cell {
    /// The first thing the path finds.
    Path(JsonPath),
    /// The time since the first thing that any of the paths finds.
    Age(Vec<JsonPath>),
    /// How many entries the map or the list has.
    Count(JsonPath),
    /// `kind/name` of what an event is about.
    Subject(JsonPath),
    /// `Kind/name` of what a binding refers to.
    Reference(JsonPath),
}

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    /// 0 is always shown, more only in wide output.
    pub(crate) priority: i64,
    pub(crate) cell: Cell,
}
