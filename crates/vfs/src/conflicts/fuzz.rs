//! What is decoded about conflicts: marks, and files of git that a peer wrote.

use super::{Mark, packed, repository};
use crate::fuzz::Decoder;
use lockstep_core::{EntryName, NodeId, Slot, Timespec};

pub(crate) fn decoders() -> [Decoder; 3] {
    let mark = Mark {
        kept: NodeId(7),
        kept_by: Slot(1),
        copy_of: Slot(2),
        place: (NodeId::ROOT, EntryName::new(b"name").expect("a name")),
        at: Timespec::default(),
    };
    let object = "0123456789".repeat(4);
    let packed = format!("# pack-refs with: peeled\n{object} refs/heads/main\n^{object}\n");
    let loose = [format!("{object}\n").into(), b"ref: refs/heads/main\n".to_vec()];
    [
        ("conflict mark", vec![postcard::to_stdvec(&mark).expect("marks encode")], |b| {
            postcard::from_bytes::<Mark>(b).is_ok()
        }),
        ("packed-refs", vec![packed.into()], |b| {
            let refs = packed::parse(b);
            let fit =
                |name: &String| name.split('/').all(|part| EntryName::new(part.as_bytes()).is_ok());
            assert!(refs.keys().all(fit));
            !refs.is_empty()
        }),
        ("ref", loose.into(), |b| repository::value_of(b).is_some()),
    ]
}
