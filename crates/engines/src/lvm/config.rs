//! `lvmd.yaml`: the device classes of a node, in TopoLVM's words.
//!
//! What holds: a file is taken whole or refused whole; a refusal names the file, the line and the field; a field that is
//! not known is refused, for a misspelt one would otherwise silently mean its default.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use super::error::LvmError;

/// GiB that a thick class leaves free when its file does not say.
const SPARE_GIB: u64 = 10;
const GIB: u64 = 1 << 30;

/// A file that was read and makes sense.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    pub(crate) classes: Vec<DeviceClass>,
    pub(crate) option_classes: Vec<OptionClass>,
    /// What every call of LVM begins with.
    pub(crate) command_prefix: Vec<String>,
}

/// Where volumes of one kind go, and how they are made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DeviceClass {
    pub(crate) name: String,
    pub(crate) volume_group: String,
    pub(crate) default: bool,
    pub(crate) lvcreate_options: Vec<String>,
    pub(crate) kind: Kind,
}

/// Thick or thin, with what only the one or the other has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Extents of their own.
    Thick {
        /// Bytes of the volume group that stay free.
        spare: u64,
        /// Over how many physical volumes.
        stripes: Option<u32>,
        /// As LVM writes it: `64`, `64k`.
        stripe_size: Option<String>,
    },
    /// Blocks of a shared pool, taken when they are written to.
    Thin {
        /// The pool's name.
        pool: String,
        /// How many times the pool's size may be promised.
        overprovision: f64,
    },
}

/// Options that stand in for those of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionClass {
    pub(crate) name: String,
    pub(crate) options: Vec<String>,
}

impl Config {
    /// Reads a file. Nothing is remembered: see `reload.rs` for that.
    pub(crate) fn read(path: &Path) -> Result<Config, LvmError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| LvmError::ConfigUnreadable { path: path.to_owned(), why: error.to_string() })?;
        Config::parse(path, &text)
    }

    /// Reads a file's text; `path` is for messages.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Config, LvmError> {
        let refuse = |line: Option<usize>, why: String| LvmError::Config { path: path.to_owned(), at: At(line), why };
        // The reader's own messages name field, line and column.
        let file: File = serde_yaml_ng::from_str(text).map_err(|error| refuse(None, error.to_string()))?;
        if file.device_classes.is_empty() {
            return Err(refuse(None, "device-classes: at least one is needed".to_owned()));
        }
        let mut classes: Vec<DeviceClass> = Vec::new();
        for (index, class) in file.device_classes.into_iter().enumerate() {
            let line = line_of(text, "device-classes", &class.name.0);
            let field = format!("device-classes[{index}] '{}'", class.name.0);
            let class = class.parse().map_err(|why| refuse(line, format!("{field}: {why}")))?;
            if classes.iter().any(|other| other.name == class.name) {
                return Err(refuse(line, format!("{field}: name: it is taken by another device class")));
            }
            if let Some(other) = classes.iter().find(|other| other.default && class.default) {
                let why = format!("default: '{}' is the default already, and there is one", other.name);
                return Err(refuse(line, format!("{field}: {why}")));
            }
            if let Some(other) = classes.iter().find(|other| other.shares_storage_with(&class)) {
                let why = format!("volume-group: '{}' has the same storage, whose room would count twice", other.name);
                return Err(refuse(line, format!("{field}: {why}")));
            }
            classes.push(class);
        }
        let mut option_classes: Vec<OptionClass> = Vec::new();
        for (index, class) in file.lvcreate_option_classes.into_iter().enumerate() {
            if option_classes.iter().any(|other| other.name == class.name.0) {
                let line = line_of(text, "lvcreate-option-classes", &class.name.0);
                let why = "name: it is taken by another lvcreate-option-class";
                return Err(refuse(line, format!("lvcreate-option-classes[{index}] '{}': {why}", class.name.0)));
            }
            option_classes.push(OptionClass { name: class.name.0, options: class.options });
        }
        if file.socket_name.as_deref().is_some_and(|name| !name.starts_with('/')) {
            return Err(refuse(None, "socket-name: it has to be an absolute path".to_owned()));
        }
        Ok(Config { path: path.to_owned(), classes, option_classes, command_prefix: file.lvm_command_prefix })
    }

    /// The class of this name, or the default one.
    pub(crate) fn class(&self, name: Option<&str>) -> Result<&DeviceClass, LvmError> {
        let known = || self.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", ");
        match name {
            Some(name) => self.classes.iter().find(|class| class.name == name).ok_or_else(|| LvmError::NoSuchClass {
                class: name.to_owned(),
                known: known(),
                path: self.path.clone(),
            }),
            None => self
                .classes
                .iter()
                .find(|class| class.default)
                .ok_or_else(|| LvmError::NoDefaultClass { known: known(), path: self.path.clone() }),
        }
    }

    /// The options of this option class.
    pub(crate) fn option_class(&self, name: &str) -> Result<&OptionClass, LvmError> {
        self.option_classes.iter().find(|class| class.name == name).ok_or_else(|| LvmError::NoSuchOptionClass {
            class: name.to_owned(),
            known: self.option_classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>().join(", "),
            path: self.path.clone(),
        })
    }
}

impl DeviceClass {
    /// Thin classes share only a pool; thick ones share a volume group's free space.
    fn shares_storage_with(&self, other: &DeviceClass) -> bool {
        let same = match (&self.kind, &other.kind) {
            (Kind::Thick { .. }, Kind::Thick { .. }) => true,
            (Kind::Thin { pool, .. }, Kind::Thin { pool: other, .. }) => pool == other,
            (Kind::Thick { .. }, Kind::Thin { .. }) | (Kind::Thin { .. }, Kind::Thick { .. }) => false,
        };
        same && self.volume_group == other.volume_group
    }

    /// What `lvcreate` is told beside name and size: an option class replaces all of it.
    pub(crate) fn create_options(&self, instead: Option<&OptionClass>) -> Vec<String> {
        if let Some(class) = instead {
            return class.options.clone();
        }
        let mut options = Vec::new();
        match &self.kind {
            Kind::Thick { stripes, stripe_size, .. } => {
                options.extend(stripes.iter().flat_map(|count| ["-i".to_owned(), count.to_string()]));
                options.extend(stripe_size.iter().flat_map(|size| ["-I".to_owned(), size.clone()]));
            }
            Kind::Thin { .. } => {}
        }
        options.extend(self.lvcreate_options.iter().cloned());
        options
    }
}

/// Where in a file something is, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At(pub(crate) Option<usize>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

/// The line on which the last item of this name in a list begins.
fn line_of(text: &str, list: &str, name: &str) -> Option<usize> {
    let names_it = |line: &str| {
        let line = line.trim().trim_start_matches("- ").trim();
        let value = line.strip_prefix("name:").map(|value| value.split(" #").next().unwrap_or(value).trim());
        value.is_some_and(|value| value.trim_matches(['"', '\'']) == name)
    };
    let begins = text.lines().position(|line| line.starts_with(list))?;
    let within = |line: &&str| line.starts_with([' ', '-', '#']) || line.trim().is_empty();
    let lines = text.lines().enumerate().skip(begins + 1).take_while(|(_, line)| within(line));
    lines.filter(|(_, line)| names_it(line)).last().map(|(index, _)| index + 1)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a mapping with device-classes")]
struct File {
    /// Where TopoLVM's own daemon listens; there is none here.
    socket_name: Option<String>,
    device_classes: Vec<WireClass>,
    #[serde(default)]
    lvcreate_option_classes: Vec<WireOptions>,
    #[serde(default)]
    lvm_command_prefix: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireClass {
    name: ClassName,
    volume_group: LvmName,
    #[serde(default)]
    default: bool,
    spare_gb: Option<u64>,
    stripe: Option<Stripes>,
    stripe_size: Option<StripeSize>,
    #[serde(default)]
    lvcreate_options: Vec<String>,
    #[serde(default, rename = "type")]
    kind: WireKind,
    thin_pool: Option<WirePool>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WireKind {
    #[default]
    Thick,
    Thin,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WirePool {
    name: LvmName,
    overprovision_ratio: Ratio,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireOptions {
    name: ClassName,
    options: Vec<String>,
}

impl WireClass {
    fn parse(self) -> Result<DeviceClass, String> {
        let kind = match (self.kind, self.thin_pool) {
            (WireKind::Thin, None) => return Err("thin-pool: it is missing, and type is thin".to_owned()),
            (WireKind::Thick, Some(_)) => return Err("thin-pool: it is there, but type is thick".to_owned()),
            (WireKind::Thick, None) => Kind::Thick {
                spare: self.spare_gb.unwrap_or(SPARE_GIB).saturating_mul(GIB),
                stripes: self.stripe.map(|stripes| stripes.0),
                stripe_size: self.stripe_size.map(|size| size.0),
            },
            (WireKind::Thin, Some(pool)) => {
                if self.stripe.is_some() || self.stripe_size.is_some() {
                    tracing::warn!(class = self.name.0, "stripes of a thin class are those of its pool: ignored");
                }
                Kind::Thin { pool: pool.name.0, overprovision: pool.overprovision_ratio.0 }
            }
        };
        Ok(DeviceClass {
            name: self.name.0,
            volume_group: self.volume_group.0,
            default: self.default,
            lvcreate_options: self.lvcreate_options,
            kind,
        })
    }
}

/// A value that is checked while it is read, so that the reader's message names its own field and line.
macro_rules! checked {
    ($name:ident($to:ty), $what:literal, $deserialize:ident, $visit:ident($from:ty), $check:expr) => {
        struct $name($to);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Checking;

                impl Visitor<'_> for Checking {
                    type Value = $to;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }

                    fn $visit<E: Error>(self, value: $from) -> Result<$to, E> {
                        let check: fn($from) -> Result<$to, String> = $check;
                        check(value).map_err(E::custom)
                    }
                }
                deserializer.$deserialize(Checking).map($name)
            }
        }
    };
}

checked!(ClassName(String), "a name", deserialize_str, visit_str(&str), |name| {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.len() <= 63 && edge(name.chars().next()) && edge(name.chars().last()) && name.chars().all(inside) {
        return Ok(name.to_owned());
    }
    Err(format!("'{name}' is no name: 1 to 63 letters, digits, '-', '_', '.', the first and last a letter or digit"))
});
checked!(LvmName(String), "a name of LVM", deserialize_str, visit_str(&str), |name| {
    let inside = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
    if (1..=127).contains(&name.len()) && !name.starts_with(['-', '.']) && name.chars().all(inside) {
        return Ok(name.to_owned());
    }
    Err(format!("'{name}' is no name of LVM: letters, digits, '+', '_', '.', '-', not beginning with '-' or '.'"))
});
checked!(Stripes(u32), "a number of stripes", deserialize_u64, visit_u64(u64), |count| {
    u32::try_from(count).ok().filter(|count| *count > 0).ok_or(format!("{count} is no number of stripes: at least 1"))
});
checked!(StripeSize(String), "a size", deserialize_str, visit_str(&str), |size| {
    let digits = size.trim_end_matches(|c: char| "bBsSkKmMgGtTpPeE".contains(c));
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) && size.len() - digits.len() <= 1 {
        return Ok(size.to_owned());
    }
    Err(format!("'{size}' is no size: a number, perhaps with b, s, k, m, g, t, p or e after it"))
});
checked!(Ratio(f64), "a number", deserialize_f64, visit_f64(f64), |ratio| {
    if ratio >= 1.0 && ratio.is_finite() {
        return Ok(ratio);
    }
    Err(format!("{ratio} is less than 1.0: the pool itself could not be used up"))
});

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
