//! Two nodes under one name: whether they are the same thing, and what the loser is called.

use super::Tree;
use super::node::{FileBody, NodeBody};
use crate::attr::Timespec;
use crate::ids::NodeId;
use crate::name::EntryName;

impl Tree {
    /// Whether two nodes under one name are the same thing: files, symlinks or pipes that cannot be
    /// told apart by content. Directories are not: their entries are joined one by one.
    pub fn alike(&self, a: NodeId, b: NodeId) -> bool {
        let (Some(a), Some(b)) = (self.nodes.get(&a), self.nodes.get(&b)) else { return false };
        match (&a.body, &b.body) {
            (NodeBody::File(x), NodeBody::File(y)) => {
                let settled = |f: &FileBody| !f.dirty && f.incoming.is_none();
                x.content == y.content
                    && settled(x)
                    && settled(y)
                    && a.links.len() <= 1
                    && b.links.len() <= 1
            }
            (NodeBody::Symlink(x), NodeBody::Symlink(y)) => x == y,
            (NodeBody::Fifo, NodeBody::Fifo) => true,
            _ => false,
        }
    }
}

/// `name (conflict from HOST DATE TIME).ext`, at most 255 bytes; `attempt` > 0 tells further
/// candidates apart. The extension starts at the last dot that is not the first byte.
pub fn conflict_name(name: &EntryName, host: &str, at: Timespec, attempt: u32) -> EntryName {
    let date = civil(at.secs);
    match attempt {
        0 => marked(name, host, &date),
        n => marked(name, host, &format!("{date} {n}")),
    }
}

/// `name (restored DATE TIME).ext`: what comes back from the trash while its name is taken.
pub fn restored_name(name: &EntryName, at: Timespec, attempt: u32) -> EntryName {
    let date = civil(at.secs);
    match attempt {
        0 => with_mark(name, &format!(" (restored {date})")),
        n => with_mark(name, &format!(" (restored {date} {n})")),
    }
}

/// The name under which a loser is shown until its author gives it a [`conflict_name`]: the same
/// on every replica, whatever happened to the node meanwhile. It ends in `.lock`, so that git takes
/// it neither for a ref nor for a reflog, wherever it is.
pub(super) fn shadow_name(name: &EntryName, host: &str, node: NodeId) -> EntryName {
    let suffix = format!(" (conflict from {} {:x}).lock", printable(host), node.0);
    let stem = name.as_bytes();
    let stem = &stem[..stem.len().min(EntryName::LEN_MAX_BYTES - suffix.len())];
    EntryName::new(&[stem, suffix.as_bytes()].concat()).expect("short and without a slash")
}

fn marked(name: &EntryName, host: &str, mark: &str) -> EntryName {
    with_mark(name, &format!(" (conflict from {} {mark})", printable(host)))
}

fn printable(host: &str) -> String {
    host.chars().filter(|c| !matches!(c, '/' | '\0') && !c.is_control()).take(24).collect()
}

/// `suffix` before the extension.
fn with_mark(name: &EntryName, suffix: &str) -> EntryName {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|b| *b == b'.').filter(|at| *at > 0).unwrap_or(bytes.len());
    let short = bytes.len() - dot <= 32;
    let (stem, ext) = if short { bytes.split_at(dot) } else { (bytes, &bytes[..0]) };
    let room = EntryName::LEN_MAX_BYTES - suffix.len() - ext.len();
    let stem = &stem[..stem.len().min(room)];
    EntryName::new(&[stem, suffix.as_bytes(), ext].concat()).expect("short and without a slash")
}

/// `YYYY-MM-DD HH.MM.SS` in UTC (days to civil date after H. Hinnant).
pub fn civil(secs: i64) -> String {
    let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}.{m:02}.{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflict_names_keep_the_extension_and_the_limit() {
        let at = Timespec { secs: 1_795_344_625, nanos: 0 };
        let name = |n: &str| EntryName::new(n.as_bytes()).expect("valid");
        assert_eq!(
            conflict_name(&name("notes.txt"), "ada", at, 0).to_string(),
            "notes (conflict from ada 2026-11-22 10.50.25).txt"
        );
        assert_eq!(
            conflict_name(&name(".profile"), "ada", at, 1).to_string(),
            ".profile (conflict from ada 2026-11-22 10.50.25 1)"
        );
        let long = conflict_name(&name(&"x".repeat(255)), "ada", at, 0);
        assert_eq!(long.as_bytes().len(), 255);
    }
}
