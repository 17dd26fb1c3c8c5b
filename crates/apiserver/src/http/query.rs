//! Query strings and path segments.
//!
//! Holds: decoding never fails; a malformed escape stands for itself, as in Go's lenient reading.

use crate::refusal::Refusal;

/// The parameters of a request; of one given twice, the first counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Parses what stands after the question mark.
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Query { pairs: pairs.collect() }
    }

    /// The parameter of that name, empty when it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    /// Whether there is a parameter of that name, whatever its value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(found, _)| found == name)
    }

    /// A parameter that is on or off.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.get(name) {
            "" | "false" | "0" | "False" | "f" => Ok(false),
            "true" | "1" | "True" | "t" => Ok(true),
            other => Err(unreadable(name, other, "true or false")),
        }
    }

    /// A parameter that is a number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| unreadable(name, text, "a whole number of at least 0")),
        }
    }
}

fn unreadable(name: &str, found: &str, expected: &str) -> Refusal {
    Refusal::BadRequest(format!("the query parameter {name} is {found:?}; it has to be {expected}"))
}

/// Undoes percent-encoding.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                plain.push(decoded);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let query = Query::parse("&limit=500&labelSelector=a%3Db%2Cc+in+%28d%29&watch=1&odd=%zz%&limit=7");
        assert_eq!(query.number("limit"), Ok(Some(500)));
        assert_eq!(query.get("labelSelector"), "a=b,c in (d)");
        assert_eq!(query.flag("watch"), Ok(true));
        assert_eq!(query.get("odd"), "%zz%");
        assert!(query.number("odd").is_err());
        assert!(query.flag("odd").is_err());
        assert_eq!(decode("%c3%a4%ff"), "ä\u{fffd}");
    }
}
