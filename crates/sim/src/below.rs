//! A model of the backing tree: names and what stands under them, nothing else. It refuses what a
//! real filesystem would refuse, so that an effect whose path is wrong is found at once.

use lockstep_core::tree::NodeBody;
use lockstep_core::{Effect, NodeId, Tree};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Paths and the nodes under them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below(BTreeMap<PathBuf, NodeId>);

impl Below {
    /// Carries out one effect.
    pub fn carry_out(&mut self, effect: &Effect) -> Result<(), String> {
        match effect {
            Effect::Made { node, path, .. } => self.put(path, *node),
            Effect::Linked { node, existing, path, .. } => {
                self.must_hold(existing, *node)?;
                self.put(path, *node)
            }
            Effect::Removed { node, path, .. } => {
                self.must_hold(path, *node)?;
                self.remove(path)
            }
            Effect::Moved { node, from_path, to_path, replaced, .. } => {
                self.must_hold(from_path, *node)?;
                if let Some(replaced) = replaced {
                    self.must_hold(to_path, *replaced)?;
                    self.remove(to_path)?;
                }
                self.rename(from_path, to_path)
            }
            Effect::Swapped { a_path, b_path, .. } => {
                let aside = PathBuf::from("\u{1}swap");
                self.rename(a_path, &aside)?;
                self.rename(b_path, a_path)?;
                self.rename(&aside, b_path)
            }
            Effect::SetAside { node, from, copy, to, .. } => {
                self.must_hold(from, *node)?;
                self.put(to, *copy)
            }
            // Only an exchange of state adopts, and the runs here meet by their logs.
            Effect::Adopted { .. }
            | Effect::Perm { .. }
            | Effect::Times { .. }
            | Effect::Xattr { .. }
            | Effect::Wanted { .. } => Ok(()),
        }
    }

    /// What `tree` says should be here.
    pub fn of(tree: &Tree) -> Below {
        let mut all = BTreeMap::new();
        for (id, node) in tree.iter() {
            for link in &node.links {
                if let Some(path) = tree.path_in(link.parent, link.shown.as_bytes()) {
                    all.insert(path, id);
                }
            }
        }
        Below(all)
    }

    fn put(&mut self, path: &Path, node: NodeId) -> Result<(), String> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent != Path::new("") && !self.0.contains_key(parent) {
            return Err(format!("no directory for {}", path.display()));
        }
        match self.0.insert(path.to_owned(), node) {
            None => Ok(()),
            Some(old) => Err(format!("{} would overwrite {old}", path.display())),
        }
    }

    fn must_hold(&self, path: &Path, node: NodeId) -> Result<(), String> {
        match self.0.get(path) {
            Some(held) if *held == node => Ok(()),
            held => Err(format!("{} holds {held:?}, not {node}", path.display())),
        }
    }

    fn remove(&mut self, path: &Path) -> Result<(), String> {
        if self.0.keys().any(|other| other != path && other.starts_with(path)) {
            return Err(format!("{} is not empty", path.display()));
        }
        self.0.remove(path).map(drop).ok_or(format!("{} is not there", path.display()))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Result<(), String> {
        if to.starts_with(from) && to != from {
            return Err(format!("{} would move below itself", from.display()));
        }
        let moved: Vec<(PathBuf, NodeId)> = self
            .0
            .iter()
            .filter(|(path, _)| path.starts_with(from))
            .map(|(path, node)| (path.clone(), *node))
            .collect();
        if moved.is_empty() {
            return Err(format!("{} is not there", from.display()));
        }
        for (path, _) in &moved {
            self.0.remove(path);
        }
        for (path, node) in moved {
            let rest = path.strip_prefix(from).map_err(|e| e.to_string())?;
            let path = if rest == Path::new("") { to.to_owned() } else { to.join(rest) };
            self.put(&path, node)?;
        }
        Ok(())
    }
}

/// Every path with its node and registers.
pub type View = BTreeMap<PathBuf, String>;

/// What users see of a tree.
pub fn view(tree: &Tree) -> View {
    let mut all = BTreeMap::new();
    for (id, node) in tree.iter() {
        let body = match &node.body {
            NodeBody::File(file) => {
                let (content, version) = match file.incoming {
                    Some(incoming) => (incoming.content, incoming.version),
                    None => (file.content, file.version),
                };
                format!("file {content:?} {version:?}")
            }
            NodeBody::Dir(_) => "dir".to_owned(),
            NodeBody::Symlink(target) => format!("symlink {target:?}"),
            NodeBody::Fifo => "fifo".to_owned(),
            NodeBody::Socket => "socket".to_owned(),
        };
        let times = node.file().and_then(|f| f.incoming).map_or(node.times, |i| i.times);
        let stat = format!("{id} {body} {:o} {times:?} nlink {}", node.perm.mode, node.nlink());
        for link in &node.links {
            if let Some(path) = tree.path_in(link.parent, link.shown.as_bytes()) {
                all.insert(path, stat.clone());
            }
        }
        if id == NodeId::ROOT {
            all.insert(PathBuf::new(), stat);
        }
    }
    all
}
