//! What is announced of files that come and go.

use super::{O_CREAT_WRONLY, Replica, caller};
use lockstep_core::{NodeId, Op, Sequence};

#[test]
fn a_file_made_and_removed_before_its_change_left_never_leaves() {
    let replica = Replica::new();
    let volume = &replica.volume;
    volume.commit().unwrap();
    let before = volume.last();
    for name in ["index.lock", "tmp_obj_1"] {
        let (_, opened) =
            volume.create(&caller(), NodeId::ROOT, name.as_bytes(), 0o644, O_CREAT_WRONLY).unwrap();
        volume.write(opened.fh, 0, b"on its way", false, false).unwrap();
        volume.flush(opened.fh).unwrap();
        volume.release(opened.fh);
        volume.unlink(NodeId::ROOT, name.as_bytes()).unwrap();
    }
    volume.commit().unwrap();
    let times = volume.getattr(NodeId::ROOT).unwrap().times;
    let left = volume.log_after(before, 100).unwrap();
    let [only] = &left[..] else { panic!("the directory's times and nothing else: {left:?}") };
    assert_eq!(only.op, Op::SetTimes { node: NodeId::ROOT, times });
    assert_eq!(volume.last(), Sequence(before.0 + 1));
}
