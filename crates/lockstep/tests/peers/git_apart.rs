//! Both sides move the same refs while apart: real git, real mounts. The losing values stay real
//! refs, git finds nothing wrong, and no copy stands where git reads.

use crate::conflicts::listed;
use crate::merging::while_apart;
use crate::support::connected;
use crate::support::git::Git;
use crate::support::pair::Pair;
use crate::support::peer::Peer;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// A commit in `repo` that changes `file`; its id.
fn commit(git: &Git, repo: &Path, file: &str, text: &str) -> String {
    fs::write(repo.join(file), text).unwrap();
    git.run(repo, &["add", "."]);
    git.run(repo, &["commit", "-q", "-m", text]);
    git.run(repo, &["rev-parse", "HEAD"]).trim().to_owned()
}

/// Every file below `dir` whose name tells of a conflict.
fn conflict_copies(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if entry.file_name().to_string_lossy().contains("conflict from") {
                found.push(path);
            }
        }
    }
    found
}

/// On both sides git is content, each commit is reachable from a ref, and no copy of anything
/// stands where git reads.
#[track_caller]
fn kept_as_refs(pair: &Pair, git: &Git, repo: &str, git_dir: &str, commits: &[&str]) {
    for peer in [&pair.a, &pair.b] {
        let at = peer.at(repo);
        git.assert_sound(&at);
        let refs = git.attempt(&at, &["for-each-ref"]).success();
        assert_eq!(refs.stderr, "", "a ref that git rejects on {}", peer.name);
        for commit in commits {
            let holding = git.run(&at, &["for-each-ref", "--contains", commit]);
            assert_ne!(holding, "", "{commit} is reachable from no ref on {}", peer.name);
        }
        let git_dir = at.join(git_dir);
        for copy in conflict_copies(&git_dir) {
            assert!(copy.starts_with(git_dir.join("lockstep/conflicts")), "{copy:?}");
        }
    }
}

/// The copies that `peer` lists of `path`.
#[track_caller]
fn copies_of(peer: &Peer, path: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let ours = |conflict: &Value| text(&conflict["path"]).ends_with(path);
    listed(peer).iter().filter(|c| ours(c)).map(|c| text(&c["copy"])).collect()
}

#[test]
fn the_same_branch_committed_on_both_sides_keeps_both_as_refs() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let (on_a, on_b) = (pair.a.at("repo"), pair.b.at("repo"));
    fs::create_dir(&on_a).unwrap();
    git.run(&on_a, &["init", "-q"]);
    commit(&git, &on_a, "file", "base");
    pair.identical();
    let [from_a, from_b] = [std::cell::RefCell::default(), std::cell::RefCell::default()];
    while_apart(
        &pair,
        |_| *from_a.borrow_mut() = commit(&git, &on_a, "of-a", "from a"),
        |_| *from_b.borrow_mut() = commit(&git, &on_b, "of-b", "from b"),
    );
    pair.identical();
    let (from_a, from_b): (String, String) = (from_a.take(), from_b.take());
    kept_as_refs(&pair, &git, "repo", ".git", &[&from_a, &from_b]);
    for peer in [&pair.a, &pair.b] {
        let copies = copies_of(peer, "repo/.git/refs/heads/main");
        assert_eq!(copies.len(), 1, "{copies:?}");
        let name = copies[0].split("/.git/").nth(1).unwrap().to_owned();
        assert!(name.starts_with("refs/lockstep/") && name.ends_with("/heads/main"), "{name}");
        let head = git.run(&peer.at("repo"), &["rev-parse", "main"]).trim().to_owned();
        let kept = git.run(&peer.at("repo"), &["rev-parse", &name]).trim().to_owned();
        let mut both = [head, kept];
        both.sort();
        let mut expected = [from_a.clone(), from_b.clone()];
        expected.sort();
        assert_eq!(both, expected);
    }
    // Work goes on: the losing side merges what it had, and the ref has served its purpose.
    let copy = copies_of(&pair.a, "repo/.git/refs/heads/main").remove(0);
    let name = copy.split("/.git/").nth(1).unwrap();
    git.run(&on_a, &["reset", "-q", "--hard"]);
    git.run(&on_a, &["clean", "-q", "-f", "-d"]);
    git.run(&on_a, &["merge", "-q", "-m", "both", name]);
    git.run(&on_a, &["update-ref", "-d", name]);
    pair.identical();
    assert_eq!(copies_of(&pair.b, "repo/.git/refs/heads/main"), Vec::<String>::new());
    kept_as_refs(&pair, &git, "repo", ".git", &[&from_a, &from_b]);
    assert_eq!(fs::read_to_string(on_b.join("of-a")).unwrap(), "from a");
    assert_eq!(fs::read_to_string(on_b.join("of-b")).unwrap(), "from b");
}

#[test]
fn a_bare_repository_pushed_to_on_both_sides_keeps_branches_and_tags() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let work = [pair.outside("work-a"), pair.outside("work-b")];
    git.run(pair.a.mnt(), &["init", "-q", "--bare", "bare"]);
    git.run(&work[0], &["clone", "-q", pair.a.at("bare").to_str().unwrap(), "."]);
    commit(&git, &work[0], "file", "base");
    git.run(&work[0], &["push", "-q", "origin", "main"]);
    pair.identical();
    git.run(&work[1], &["clone", "-q", pair.b.at("bare").to_str().unwrap(), "."]);
    let commits = [0, 1].map(|side| {
        let id = commit(&git, &work[side], "file", ["from a", "from b"][side]);
        git.run(&work[side], &["tag", "v1"]);
        id
    });
    let push = |side: usize| {
        let (git, work) = (&git, &work);
        move |_: &Path| drop(git.run(&work[side], &["push", "-q", "origin", "main", "v1"]))
    };
    while_apart(&pair, push(0), push(1));
    pair.identical();
    kept_as_refs(&pair, &git, "bare", "", &[&commits[0], &commits[1]]);
    for path in ["bare/refs/heads/main", "bare/refs/tags/v1"] {
        let copies = copies_of(&pair.b, path);
        let kept = path.replace("bare/refs/", "");
        assert!(copies.len() == 1 && copies[0].ends_with(&kept), "{copies:?}");
        assert!(copies[0].contains("/bare/refs/lockstep/"), "{copies:?}");
    }
    let main = pair.b.at("bare/refs/heads/main");
    let args = ["conflicts", "resolve", main.to_str().unwrap(), "--keep", "mine"];
    pair.b.run(&args).success();
    pair.identical();
    for peer in [&pair.a, &pair.b] {
        assert_eq!(git.run(&peer.at("bare"), &["rev-parse", "main"]).trim(), commits[1]);
        assert_eq!(copies_of(peer, "bare/refs/heads/main"), Vec::<String>::new());
    }
}

#[test]
fn branches_packed_on_both_sides_are_kept_as_refs() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let (on_a, on_b) = (pair.a.at("repo"), pair.b.at("repo"));
    fs::create_dir(&on_a).unwrap();
    git.run(&on_a, &["init", "-q"]);
    commit(&git, &on_a, "file", "base");
    git.run(&on_a, &["branch", "same"]);
    pair.identical();
    let commits = std::cell::RefCell::new(Vec::new());
    let commit_and_gc = |repo: &Path, text: &str| {
        commits.borrow_mut().push(commit(&git, repo, &format!("of {text}"), text));
        git.run(repo, &["tag", "v1"]);
        git.run(repo, &["gc", "-q"]);
    };
    while_apart(&pair, |_| commit_and_gc(&on_a, "from a"), |_| commit_and_gc(&on_b, "from b"));
    pair.identical();
    let commits = commits.take();
    kept_as_refs(&pair, &git, "repo", ".git", &[&commits[0], &commits[1]]);
    for peer in [&pair.a, &pair.b] {
        assert_eq!(copies_of(peer, "repo/.git/packed-refs").len(), 1);
        let kept = git.run(&peer.at("repo"), &["for-each-ref", "refs/lockstep/"]);
        assert_eq!(kept.lines().count(), 2, "main and v1, for `same` is the same: {kept}");
    }
}

#[test]
fn a_branch_moved_and_packed_on_one_side_and_moved_on_the_other_is_kept_as_a_ref() {
    for packs_on_a in [true, false] {
        let pair = connected!();
        let git = Git::new(&pair.outside("git"));
        let (on_a, on_b) = (pair.a.at("repo"), pair.b.at("repo"));
        fs::create_dir(&on_a).unwrap();
        git.run(&on_a, &["init", "-q"]);
        commit(&git, &on_a, "file", "base");
        git.run(&on_a, &["branch", "untouched"]);
        pair.identical();
        let commits = std::cell::RefCell::new(Vec::new());
        let work = |repo: &Path, text: &str, packs: bool| {
            commits.borrow_mut().push(commit(&git, repo, &format!("of {text}"), text));
            if packs {
                git.run(repo, &["gc", "-q"]);
            }
        };
        while_apart(
            &pair,
            |_| work(&on_a, "from a", packs_on_a),
            |_| work(&on_b, "from b", !packs_on_a),
        );
        pair.identical();
        let commits = commits.take();
        kept_as_refs(&pair, &git, "repo", ".git", &[&commits[0], &commits[1]]);
        let kept = git.run(&on_a, &["for-each-ref", "refs/lockstep/"]);
        assert_eq!(kept.lines().count(), 1, "main only: {kept}");
    }
}

#[test]
fn a_branch_packed_on_one_side_and_moved_below_on_the_stopped_other_is_kept_as_a_ref() {
    let pair = connected!();
    let git = Git::new(&pair.outside("git"));
    let (on_a, below_b) = (pair.a.at("repo"), pair.b.backing.join("repo"));
    fs::create_dir(&on_a).unwrap();
    git.run(&on_a, &["init", "-q"]);
    commit(&git, &on_a, "file", "base");
    pair.identical();
    pair.b.stop();
    let packed = commit(&git, &on_a, "file", "from a");
    git.run(&on_a, &["pack-refs", "--all"]);
    let loose = commit(&git, &below_b, "file", "from b");
    pair.b.start();
    pair.identical();
    kept_as_refs(&pair, &git, "repo", ".git", &[&packed, &loose]);
}
