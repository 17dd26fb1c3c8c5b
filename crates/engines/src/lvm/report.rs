//! What LVM says of all its volumes at one moment: one call of `lvm fullreport`, however many there are.

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::{LvmError, Percent};

/// What is asked for. An option without a part of the report makes LVM write all of that part, so two are emptied.
pub(super) const ARGUMENTS: [&str; 24] = [
    "fullreport",
    "--reportformat",
    "json",
    "--units",
    "b",
    "--nosuffix",
    "--configreport",
    "vg",
    "-o",
    "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size",
    "--configreport",
    "pv",
    "-o",
    "pv_name,pv_uuid,pv_missing",
    "--configreport",
    "lv",
    "-o",
    "lv_name,lv_uuid,lv_size,lv_attr,lv_tags,lv_layout,origin,pool_lv,data_percent,metadata_percent,lv_health_status",
    "--configreport",
    "pvseg",
    "-Spvseg_start=-1",
    "--configreport",
    "seg",
    "-Sseg_type=none",
];

/// All volume groups, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    pub(super) groups: BTreeMap<String, Group>,
}

/// A volume group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    pub(super) uuid: String,
    pub(super) size: u64,
    pub(super) free: u64,
    pub(super) extent: u64,
    /// Names or ids of physical volumes that are not there.
    pub(super) missing: Vec<String>,
    pub(super) volumes: BTreeMap<String, Lv>,
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lv {
    pub(super) uuid: String,
    /// Its own extents or virtual size; of a thick snapshot, its exception store.
    pub(super) size: u64,
    attributes: String,
    pub(super) tags: Vec<String>,
    pub(super) layout: String,
    pub(super) origin: Option<String>,
    pub(super) pool: Option<String>,
    pub(super) data: Percent,
    pub(super) metadata: Percent,
    health: String,
}

impl Lv {
    fn attribute(&self, index: usize) -> char {
        self.attributes.chars().nth(index).unwrap_or('-')
    }

    /// A snapshot with an exception store.
    pub(super) fn is_thick_snapshot(&self) -> bool {
        matches!(self.attribute(0), 's' | 'S')
    }

    /// A thick snapshot that its source has outrun.
    pub(super) fn is_lost_snapshot(&self) -> bool {
        self.is_thick_snapshot()
            && (matches!(self.attribute(4), 'I' | 'S') || self.data.0.is_some_and(|used| used >= 100.0))
    }

    pub(super) fn is_thin(&self) -> bool {
        self.attribute(0) == 'V'
    }

    pub(super) fn is_thin_pool(&self) -> bool {
        self.attribute(0) == 't'
    }

    /// A volume with extents of its own: no pool, no part of another volume.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.attribute(0), '-' | 'o' | 'm' | 'M' | 'r' | 'R')
    }

    /// A thin pool that gives no block away with what was in it.
    pub(super) fn zeroes(&self) -> bool {
        self.attribute(7) == 'z'
    }

    /// What is wrong with it, in LVM's words.
    pub(super) fn problem(&self) -> Option<String> {
        let by_attribute = match self.attribute(8) {
            'F' => Some("failed"),
            'D' => Some("out of data space"),
            'M' => Some("metadata read only"),
            'p' => Some("partial"),
            'X' => Some("unknown"),
            _ => None,
        };
        let said = (!self.health.is_empty()).then_some(self.health.as_str());
        said.or(by_attribute).map(str::to_owned)
    }
}

impl Report {
    /// Reads what `lvm fullreport` has written.
    pub(super) fn parse(text: &str) -> Result<Report, LvmError> {
        let wrong = |why: String| LvmError::Output { why };
        let json: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let reports = json.get("report").and_then(Value::as_array).ok_or_else(|| wrong("it lacks report".into()))?;
        let mut groups = BTreeMap::new();
        for report in reports {
            let part = |name: &str| report.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            // What belongs to no volume group is listed too.
            let Some(vg) = part("vg").first() else { continue };
            let row = Row(vg);
            let name = row.text("vg_name")?;
            if name.is_empty() {
                continue;
            }
            let missing =
                part("pv").iter().map(Row).filter_map(|pv| pv.missing().transpose()).collect::<Result<_, _>>()?;
            let volumes = part("lv").iter().map(|lv| Row(lv).volume()).collect::<Result<_, _>>()?;
            let group = Group {
                uuid: row.text("vg_uuid")?,
                size: row.number("vg_size")?,
                free: row.number("vg_free")?,
                extent: row.number("vg_extent_size")?.max(1),
                missing,
                volumes,
            };
            groups.insert(name, group);
        }
        Ok(Report { groups })
    }
}

struct Row<'j>(&'j Value);

impl Row<'_> {
    fn text(&self, field: &str) -> Result<String, LvmError> {
        let value = self.0.get(field).and_then(Value::as_str);
        value.map(|text| text.trim().to_owned()).ok_or_else(|| LvmError::Output { why: format!("a row lacks {field}") })
    }

    fn number(&self, field: &str) -> Result<u64, LvmError> {
        let text = self.text(field)?;
        text.parse().map_err(|_| LvmError::Output { why: format!("{field} is '{text}'") })
    }

    fn optional(&self, field: &str) -> Result<Option<String>, LvmError> {
        self.text(field).map(|text| (!text.is_empty()).then_some(text))
    }

    fn percent(&self, field: &str) -> Result<Percent, LvmError> {
        let text = self.text(field)?;
        match text.parse::<f64>() {
            // "NaN" and "inf" are numbers to the reader, and comparisons with them go wrong silently.
            Ok(value) if value.is_finite() => Ok(Percent(Some(value))),
            Err(_) if text.is_empty() => Ok(Percent(None)),
            Ok(_) | Err(_) => Err(LvmError::Output { why: format!("{field} is '{text}'") }),
        }
    }

    /// The physical volume's name, if it is not there.
    fn missing(&self) -> Result<Option<String>, LvmError> {
        let (name, uuid) = (self.text("pv_name")?, self.text("pv_uuid")?);
        let known = !name.is_empty() && !name.contains("unknown");
        Ok((!self.text("pv_missing")?.is_empty()).then_some(if known { name } else { format!("the disk {uuid}") }))
    }

    fn volume(&self) -> Result<(String, Lv), LvmError> {
        let volume = Lv {
            uuid: self.text("lv_uuid")?,
            size: self.number("lv_size")?,
            attributes: self.text("lv_attr")?,
            tags: self.text("lv_tags")?.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            layout: self.text("lv_layout")?,
            origin: self.optional("origin")?,
            pool: self.optional("pool_lv")?,
            data: self.percent("data_percent")?,
            metadata: self.percent("metadata_percent")?,
            health: self.text("lv_health_status")?,
        };
        Ok((self.text("lv_name")?, volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = r#"{"report":[
        {"vg":[{"vg_name":"vg1","vg_uuid":"2VK0-CT","vg_size":"3217031168","vg_free":"1505755136","vg_extent_size":"4194304"}],
         "pv":[{"pv_name":"/dev/ubda","pv_uuid":"T2","pv_missing":""},{"pv_name":"[unknown]","pv_uuid":"T3","pv_missing":"missing"}],
         "lv":[LV],"pvseg":[],"seg":[]},
        {"vg":[{"vg_name":"","vg_uuid":"","vg_size":"0","vg_free":"0","vg_extent_size":"0"}],"pv":[],"lv":[]}]}"#;
    const LV: &str = r#"{"lv_name":"k1s","lv_uuid":"wi-eP","lv_size":"104857600","lv_attr":"sri-a-s---","lv_tags":"a,b=c",
        "lv_layout":"linear","origin":"k1","pool_lv":"","data_percent":"0.01","metadata_percent":"","lv_health_status":""}"#;

    fn volume(from: &str, to: &str) -> Lv {
        assert!(LV.contains(from), "{from}");
        let report = Report::parse(&GROUP.replace("LV", &LV.replace(from, to))).unwrap();
        report.groups["vg1"].volumes["k1s"].clone()
    }

    #[test]
    fn a_report_is_read_whole() {
        let report = Report::parse(&GROUP.replace("LV", LV)).unwrap();
        assert_eq!(report.groups.len(), 1, "what belongs to no group is none");
        let group = &report.groups["vg1"];
        assert_eq!((group.size, group.free, group.extent), (3_217_031_168, 1_505_755_136, 4 << 20));
        assert_eq!(group.missing, ["the disk T3"]);
        let lv = &group.volumes["k1s"];
        assert_eq!(
            (lv.tags.as_slice(), lv.origin.as_deref()),
            (["a".to_owned(), "b=c".to_owned()].as_slice(), Some("k1"))
        );
        assert!(lv.is_thick_snapshot() && !lv.is_lost_snapshot() && !lv.is_thin() && lv.problem().is_none());
        assert_eq!(Report::parse(r#"{"report":[]}"#).unwrap(), Report::default());
    }

    #[test]
    fn what_is_wrong_with_a_volume_is_seen() {
        assert!(volume("sri-a-s---", "sri-I-s---").is_lost_snapshot());
        assert!(volume("\"0.01\"", "\"100.00\"").is_lost_snapshot());
        let pool = volume("sri-a-s---", "twi-aotz--");
        assert!(pool.is_thin_pool() && pool.zeroes() && pool.problem().is_none());
        assert!(!volume("sri-a-s---", "twi-aot---").zeroes());
        assert_eq!(volume("sri-a-s---", "twi-aotzD-").problem().as_deref(), Some("out of data space"));
        assert_eq!(volume("sri-a-s---", "twi-aotzM-").problem().as_deref(), Some("metadata read only"));
        assert_eq!(volume("sri-a-s---", "twi-aotzF-").problem().as_deref(), Some("failed"));
        assert_eq!(volume("status\":\"\"", "status\":\"partial\"").problem().as_deref(), Some("partial"));
    }

    #[test]
    fn what_is_no_report_is_said() {
        for (from, to, says) in [
            ("104857600", "10 GB", "lv_size is '10 GB'"),
            ("lv_uuid", "lv_id", "lacks lv_uuid"),
            ("\"0.01\"", "\"much\"", "data_percent"),
            ("\"0.01\"", "\"NaN\"", "data_percent is 'NaN'"),
            ("\"0.01\"", "\"inf\"", "data_percent is 'inf'"),
            ("\"k1s\"", "7", "lacks lv_name"),
        ] {
            assert!(LV.contains(from), "{from}");
            let error = Report::parse(&GROUP.replace("LV", &LV.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for text in ["", "{", "{\"report\":1}", "Volume group not found"] {
            assert!(matches!(Report::parse(text), Err(LvmError::Output { .. })), "{text}");
        }
    }
}
