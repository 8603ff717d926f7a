//! The small repository: cloned in one mount, worked on from both.

use crate::support::git::Git;
use crate::support::pair::{Layout, Pair};
use crate::support::peer::Peer;
use crate::support::repository::{SMALL, measured, noise};
use crate::support::tree::{assert_identical, walk};
use crate::support::{SOON, connected, eventually};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A pair with the small repository cloned into `a`'s mount as `repo`.
struct Cloned {
    pair: Pair,
    git: Git,
}

impl Cloned {
    fn new() -> Option<Cloned> {
        let pair = Pair::connected(Layout::default())?;
        let git = Git::new(&pair.outside("git"));
        let origin = pair.outside("origin");
        SMALL.generate(&git, &origin, 1);
        let (files, objects, _) = measured(&git, &origin);
        assert_eq!((files, objects), (8, 24));
        assert_eq!(u64::from(SMALL.objects()), objects);
        let url = format!("file://{}", origin.display());
        git.run(pair.a.mnt(), &["clone", "--quiet", &url, "repo"]);
        pair.wait();
        Some(Cloned { pair, git })
    }

    /// Both sides agree with each other and with git.
    #[track_caller]
    fn agrees(&self, step: &str) {
        eprintln!("step: {step}");
        let (a, b) = (self.pair.a.at("repo"), self.pair.b.at("repo"));
        self.pair.wait();
        for dir in [&a, &b] {
            self.git.assert_clean(dir);
            self.git.assert_sound(dir);
        }
        assert_eq!(self.git.refs(&a), self.git.refs(&b), "refs after {step}");
        self.pair.wait();
        assert_identical(self.pair.a.mnt(), self.pair.b.mnt());
    }

    #[track_caller]
    fn commit(&self, on: &Peer, file: &str, text: &str) {
        let repo = on.at("repo");
        std::fs::write(repo.join(file), text).unwrap();
        self.git.run(&repo, &["add", "-A"]);
        self.git.run(&repo, &["commit", "--quiet", "-m", text]);
    }
}

/// Rewrites the index on `peer` once all its entries are older than a whole second, so that git
/// need not compare content to tell whether they changed.
fn settle_index(git: &Git, peer: &Peer) {
    let repo = peer.at("repo");
    let newest = walk(&repo).values().map(|entry| entry.mtime.0).max().unwrap();
    eventually("the clock leaves the second of the clone", SOON, || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        now > newest.unsigned_abs()
    });
    git.assert_clean(&repo);
}

#[test]
fn small_repository_clone_is_clean_on_the_peer() {
    let Some(cloned) = Cloned::new() else { return };
    let (pair, git) = (&cloned.pair, &cloned.git);
    cloned.agrees("clone");
    settle_index(git, &pair.a);
    pair.wait();
    let index = pair.b.at("repo/.git/index");
    let before = (std::fs::read(&index).unwrap(), index.metadata().unwrap());
    git.assert_clean(&pair.b.at("repo"));
    let after = (std::fs::read(&index).unwrap(), index.metadata().unwrap());
    assert!(before.0 == after.0, "status rewrote the index on b");
    assert_eq!(before.1.ino(), after.1.ino());
    let times = |meta: &std::fs::Metadata| (meta.mtime(), meta.mtime_nsec());
    assert_eq!(times(&before.1), times(&after.1));

    git.run(&pair.b.at("repo"), &["checkout", "--quiet", "-b", "from-b"]);
    cloned.commit(&pair.b, "new-on-b.txt", "written on b");
    pair.b.wait();
    let log = git.run(&pair.a.at("repo"), &["log", "-1", "--format=%D %s"]);
    assert_eq!(log.trim(), "HEAD -> from-b written on b");
    cloned.agrees("branch and commit on b");
}

#[test]
fn ten_commits_alternating_sides_then_amend_rebase_stash_merge_tag_gc_worktree() {
    let Some(cloned) = Cloned::new() else { return };
    let (a, b) = (&cloned.pair.a, &cloned.pair.b);
    cloned.agrees("clone");
    for round in 1..=10 {
        let side = if round % 2 == 0 { a } else { b };
        cloned.commit(side, "shared.txt", &format!("commit {round:02} on {}", side.name));
        cloned.agrees(&format!("commit {round} on {}", side.name));
    }
    let git = |side: &Peer, args: &[&str]| cloned.git.run(&side.at("repo"), args);

    std::fs::write(b.at("repo/shared.txt"), "amended").unwrap();
    git(b, &["commit", "--quiet", "-a", "--amend", "-m", "amended on b"]);
    cloned.agrees("amend on b");

    git(a, &["checkout", "--quiet", "-b", "feature", "HEAD~3"]);
    cloned.commit(a, "feature.txt", "feature on a");
    git(a, &["rebase", "--quiet", "main"]);
    cloned.agrees("rebase on a");

    std::fs::write(b.at("repo/feature.txt"), "not yet").unwrap();
    git(b, &["stash", "push", "--quiet"]);
    cloned.agrees("stash on b");
    git(a, &["stash", "pop", "--quiet"]);
    git(a, &["commit", "--quiet", "-a", "-m", "what b had stashed"]);
    cloned.agrees("stash popped on a");

    git(b, &["checkout", "--quiet", "main"]);
    cloned.commit(b, "main-only.txt", "main moves on b");
    git(b, &["merge", "--quiet", "--no-ff", "-m", "merged on b", "feature"]);
    cloned.agrees("merge on b");

    git(a, &["tag", "-a", "v2", "-m", "tagged on a"]);
    cloned.agrees("tag on a");
    git(a, &["gc", "--quiet", "--prune=now"]);
    cloned.agrees("gc on a");
    git(b, &["worktree", "add", "--quiet", "../second", "feature"]);
    cloned.agrees("worktree add on b");
    cloned.git.assert_clean(&b.at("second"));
    assert_eq!(git(a, &["log", "--format=%s", "-1"]).trim(), "merged on b");
}

/// One entry of `git ls-files --debug`: the `stat` that git expects to find.
fn expected_stats(debug: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut entries: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for line in debug.lines() {
        match line.strip_prefix("  ") {
            None => entries.push((line.to_owned(), Vec::new())),
            Some(fields) => {
                let of_last = &mut entries.last_mut().unwrap().1;
                for field in fields.split('\t') {
                    let (key, value) = field.split_once(": ").unwrap();
                    of_last.push((key.trim().to_owned(), value.trim().to_owned()));
                }
            }
        }
    }
    entries
}

fn shown_stat(path: &Path) -> Vec<(String, String)> {
    let meta = path.symlink_metadata().unwrap();
    let fields = [
        ("ctime", format!("{}:{}", meta.ctime(), meta.ctime_nsec())),
        ("mtime", format!("{}:{}", meta.mtime(), meta.mtime_nsec())),
        ("ino", format!("{}", meta.ino() as u32)),
        ("uid", meta.uid().to_string()),
        ("gid", meta.gid().to_string()),
        ("size", meta.size().to_string()),
    ];
    fields.map(|(key, value)| (key.to_owned(), value)).to_vec()
}

#[test]
fn peer_git_status_reads_no_file_content() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let repo = pair.a.at("repo");
    std::fs::create_dir(&repo).unwrap();
    git.run(&repo, &["init", "--quiet", "."]);
    for file in 0..200 {
        let dir = repo.join(format!("dir{}", file % 10));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("file{file}")), noise(file, 3000)).unwrap();
    }
    std::os::unix::fs::symlink("dir0", repo.join("link")).unwrap();
    git.run(&repo, &["add", "-A"]);
    git.run(&repo, &["commit", "--quiet", "-m", "all"]);
    settle_index(&git, &pair.a);
    pair.wait();

    let (on_a, on_b) = (pair.a.at("repo"), pair.b.at("repo"));
    let debug = git.run(&on_b, &["ls-files", "--debug"]);
    assert_eq!(git.run(&on_a, &["ls-files", "--debug"]), debug);
    for (path, expected) in expected_stats(&debug) {
        let shown = shown_stat(&on_b.join(&path));
        let missing = shown.iter().find(|field| !expected.contains(field));
        assert_eq!(missing, None, "{path} is stat-dirty on b: index {expected:?}");
    }

    let index = on_b.join(".git/index");
    let stamp = |path: &Path| {
        let meta = path.metadata().unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
    };
    let before = (std::fs::read(&index).unwrap(), stamp(&index));
    let reads = pair.b.requests("read");
    let scanned = git.files_read_by_status(&on_b, &pair.outside("trace").join("b.json"));
    let reads = pair.b.requests("read") - reads;
    assert_eq!(scanned, 0, "files of the work tree whose content git status read on b");
    println!("git status on b over 200 files: {reads} read requests, all for .git");
    assert!(reads < 50, "{reads} read requests: more than there are files in .git that it reads");
    assert!(before == (std::fs::read(&index).unwrap(), stamp(&index)), "b's index was rewritten");
    pair.identical();
}
