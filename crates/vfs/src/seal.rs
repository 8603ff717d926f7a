//! What a transfer put in place, said by the file itself.
//!
//! A file reaches the disk by its name before it does by its bytes, and before the row that tells
//! of it. So who puts a content in place seals the file first: the seal is an attribute, which
//! reaches the disk with the name. After a power cut a sealed file is the content that the seal
//! names, or it is torn; it is never an edit made here. The first write breaks the seal.

use crate::volume::Volume;
use lockstep_core::{ContentRef, Timespec};
use lockstep_disk::{BackingStat, DiskFile};
use std::io;
use std::path::Path;

impl Volume {
    /// `file` has the bytes of `content`, and this modification time: whoever writes to it behind
    /// the volume's back changes that.
    pub(crate) fn seal(
        &self,
        file: &dyn DiskFile,
        content: ContentRef,
        mtime: Timespec,
    ) -> io::Result<()> {
        let seal = postcard::to_stdvec(&(content, mtime)).expect("it always encodes");
        file.set_seal(Some(&seal))
    }

    /// The same for a file in place, whose times are others now. If the disk refuses, a cut before the
    /// next sync takes what is left for an edit.
    pub(crate) fn seal_anew(&self, file: &dyn DiskFile, content: ContentRef, mtime: Timespec) {
        if let Err(error) = self.seal(file, content, mtime) {
            tracing::debug!(%error, "a file stays without a seal");
        }
    }

    /// `file` is about to be written to. Its time tells too, but that can be set back.
    pub(crate) fn break_seal(&self, file: &dyn DiskFile) {
        if let Err(error) = file.set_seal(None) {
            tracing::debug!(%error, "a file keeps its seal");
        }
    }

    /// Sets the times of the file at `path`, whose seal stays good.
    pub(crate) fn set_times_below(
        &self,
        path: &Path,
        atime: Timespec,
        mtime: Timespec,
    ) -> io::Result<()> {
        let sealed = self.disk.stat(path).and_then(|stat| self.sealed(path, &stat));
        self.disk.set_times(path, atime, mtime)?;
        if let Some(content) = sealed.ok().flatten() {
            self.seal_anew(&*self.disk.open(path)?, content, mtime);
        }
        Ok(())
    }

    /// The content that a transfer put in place at `path`, if nobody has written to the file since.
    pub(crate) fn sealed(&self, path: &Path, stat: &BackingStat) -> io::Result<Option<ContentRef>> {
        let seal = self.disk.seal(path)?;
        let seal = seal.and_then(|seal| postcard::from_bytes::<(ContentRef, Timespec)>(&seal).ok());
        Ok(seal.filter(|(_, mtime)| *mtime == stat.mtime).map(|(content, _)| content))
    }
}
