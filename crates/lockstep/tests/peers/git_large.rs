//! The large repository, cloned on either side. Slow: about 400 MB each way.

use crate::support::connected;
use crate::support::git::Git;
use crate::support::peer::Peer;
use crate::support::repository::{LARGE, measured};
use std::time::Instant;

#[test]
fn slow_large_repository_both_directions() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let origin = pair.outside("origin");
    LARGE.generate(&git, &origin, 2);
    let (files, objects, pack_bytes) = measured(&git, &origin);
    assert_eq!((files, objects), (612, 2339));
    assert!((250_000_000..265_000_000).contains(&pack_bytes), "{pack_bytes} bytes packed");

    let url = format!("file://{}", origin.display());
    let clone = |from: &Peer, to: &Peer, name: &str| {
        let started = Instant::now();
        git.run(from.mnt(), &["clone", "--quiet", &url, name]);
        let cloned = started.elapsed();
        from.wait();
        let arrived = started.elapsed() - cloned;
        println!("{name}: clone {cloned:?}, then everything on the other side {arrived:?}");
        let there = to.at(name);
        git.assert_clean(&there);
        git.assert_sound(&there);
        std::fs::write(there.join("back.txt"), name).unwrap();
        git.run(&there, &["add", "back.txt"]);
        git.run(&there, &["commit", "--quiet", "-m", name]);
        to.wait();
        assert_eq!(git.run(&from.at(name), &["log", "-1", "--format=%s"]).trim(), name);
        git.assert_clean(&from.at(name));
    };
    clone(&pair.a, &pair.b, "from-a");
    clone(&pair.b, &pair.a, "from-b");
    pair.identical();
}
