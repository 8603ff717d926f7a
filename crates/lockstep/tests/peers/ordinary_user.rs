//! The main job without root: FUSE through `fusermount3`.

use crate::support::command::{Outcome, run};
use crate::support::connected;
use crate::support::environment::{as_nobody, has_fuse, has_root, open_fuse_to_users};
use crate::support::git::Git;
use crate::support::pair::Layout;
use crate::support::peer::Peer;
use crate::support::repository::SMALL;
use std::time::Duration;

/// Runs a shell script in the mount of `on`; only the user that mounted it may look inside.
fn shell(git: &Git, on: &Peer, script: &str) -> Outcome {
    let mut command = as_nobody("sh");
    git.environ(&mut command).current_dir("/").env("MNT", on.mnt());
    run(command.args(["-ec", &format!("cd \"$MNT\"; {script}")]), Duration::from_secs(60))
}

#[test]
fn works_as_an_ordinary_user() {
    if !has_fuse() || !has_root("to become an ordinary user") {
        return;
    }
    open_fuse_to_users();
    let pair = connected!(Layout { as_nobody: true, ..Layout::default() });
    let git = Git::new(&pair.outside("git"));
    let origin = pair.outside("origin");
    SMALL.generate(&git, &origin, 3);

    let clone = format!("git clone --quiet file://{} repo", origin.display());
    shell(&git, &pair.a, &clone).success();
    pair.wait();
    let list = "find . -printf '%P %i %m %n %s %T@ %C@ %l\\n' | sort; git -C repo show-ref --head";
    let (on_a, on_b) = (shell(&git, &pair.a, list), shell(&git, &pair.b, list));
    assert_eq!(on_a.success().stdout, on_b.success().stdout);
    let check = "git -C repo status --porcelain; git -C repo fsck --full --no-dangling 2>&1";
    assert_eq!(shell(&git, &pair.b, check).success().stdout, "");

    let commit = "cd repo; echo from b > new.txt; git add new.txt; git commit --quiet -m from-b";
    shell(&git, &pair.b, commit).success();
    pair.b.wait();
    let log = shell(
        &git,
        &pair.a,
        "cd repo; git status --porcelain; git log -1 --format=%s; cat new.txt",
    );
    assert_eq!(log.success().stdout, "from-b\nfrom b\n");

    let links =
        "ln -s repo link; ln repo/new.txt hard; chmod 4750 hard; mkfifo pipe; rm -rf repo/dir00";
    shell(&git, &pair.a, links).success();
    pair.a.wait();
    assert_eq!(
        shell(&git, &pair.a, list).success().stdout,
        shell(&git, &pair.b, list).success().stdout
    );
    let foreign = run(std::process::Command::new("ls").arg(pair.a.mnt()), Duration::from_secs(10));
    println!("root looking into the user's mount: {foreign:?}");
}
