//! Mount options: a pure function of the platform, tested for all platforms on each of them.

use std::time::Duration;

/// Where and as whom we mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// Linux, privileged: `mount(2)` itself.
    LinuxRoot,
    /// Linux through `fusermount3`.
    LinuxUser {
        /// Whether `/etc/fuse.conf` has `user_allow_other`.
        allow_other: bool,
    },
    /// macOS with macFUSE.
    MacOs,
}

/// Everything a mount is told beside its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// What stands as the mount's source, in `/proc/mounts` and `df`.
    pub fsname: String,
    /// Options for `-o`, without `fsname` and `subtype`.
    pub options: Vec<String>,
    /// Whether other users may enter.
    pub allow_other: bool,
    /// How long the kernel may keep names, absent names and attributes.
    pub cache_ttl: Duration,
    /// Threads that read requests.
    pub workers: usize,
    /// Whether each of them has its own `/dev/fuse` descriptor.
    pub clone_fd: bool,
    /// Whether new files are passed to the kernel, where it takes them.
    pub passthrough: bool,
}

/// The mount's type, after `fuse.`.
pub const SUBTYPE: &str = "lockstep";
/// What a mount's source begins with; the volume's name follows.
pub const FSNAME_PREFIX: &str = "lockstep:";

/// Every remote change is pushed as an invalidation, so a day is as good as for ever.
const TTL_PUSHED: Duration = Duration::from_secs(24 * 60 * 60);
/// Where nothing can be pushed, caches expire by themselves.
const TTL_NOT_PUSHED: Duration = Duration::from_secs(1);

const WORKERS_MIN: usize = 2;
const WORKERS_MAX: usize = 8;

impl Platform {
    /// This process on this machine; `fuse_conf` is the content of `/etc/fuse.conf`.
    pub fn here(effective_uid: u32, fuse_conf: &str) -> Platform {
        if cfg!(target_os = "macos") {
            return Platform::MacOs;
        }
        if effective_uid == 0 {
            return Platform::LinuxRoot;
        }
        let allow_other = fuse_conf.lines().any(|line| line.trim() == "user_allow_other");
        Platform::LinuxUser { allow_other }
    }
}

/// The options for `volume` on `platform` with `cores` processors.
pub fn mount_options(platform: Platform, volume: &str, cores: usize) -> MountOptions {
    let fsname = format!("{FSNAME_PREFIX}{}", printable(volume));
    let allow_other = match platform {
        Platform::LinuxRoot => true,
        Platform::LinuxUser { allow_other } => allow_other,
        Platform::MacOs => false,
    };
    match platform {
        Platform::LinuxRoot | Platform::LinuxUser { .. } => MountOptions {
            fsname,
            options: words(&["nosuid", "nodev", "default_permissions"], allow_other),
            allow_other,
            cache_ttl: TTL_PUSHED,
            workers: cores.clamp(WORKERS_MIN, WORKERS_MAX),
            clone_fd: true,
            passthrough: true,
        },
        // Seed bug 3: `negative_vncache` hides files that arrive later, as nothing can be pushed.
        // Seed bug 6: without `defer_permissions` macOS refuses to run what has its x bit set.
        // It stands in for `default_permissions`, with which it conflicts.
        Platform::MacOs => MountOptions {
            fsname,
            options: words(&["nosuid", "nodev", "defer_permissions"], allow_other),
            allow_other,
            cache_ttl: TTL_NOT_PUSHED,
            workers: 1,
            clone_fd: false,
            passthrough: false,
        },
    }
}

fn words(fixed: &[&str], allow_other: bool) -> Vec<String> {
    let other = allow_other.then_some("allow_other");
    fixed.iter().copied().chain(other).map(str::to_owned).collect()
}

/// A name that cannot be taken for further options (`,` and `\` have a meaning there).
fn printable(volume: &str) -> String {
    volume
        .chars()
        .map(|c| if matches!(c, ',' | '\\') || c.is_control() { '_' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Platform; 4] = [
        Platform::LinuxRoot,
        Platform::LinuxUser { allow_other: true },
        Platform::LinuxUser { allow_other: false },
        Platform::MacOs,
    ];

    fn has(platform: Platform, option: &str) -> bool {
        mount_options(platform, "v", 4).options.iter().any(|o| o == option)
    }

    #[test]
    fn seed_bug_3_negative_lookups_are_never_cached_where_nothing_is_pushed() {
        for platform in ALL {
            assert!(!has(platform, "negative_vncache"), "{platform:?}");
        }
        assert!(mount_options(Platform::MacOs, "v", 4).cache_ttl <= Duration::from_secs(1));
        assert!(mount_options(Platform::LinuxRoot, "v", 4).cache_ttl >= Duration::from_secs(3600));
    }

    #[test]
    fn seed_bug_6_macos_defers_permissions_so_that_hooks_run() {
        assert!(has(Platform::MacOs, "defer_permissions"));
        assert!(!has(Platform::MacOs, "default_permissions"));
        for platform in ALL {
            assert!(!has(platform, "noexec"), "{platform:?}");
        }
    }

    #[test]
    fn linux_checks_permissions_in_the_kernel_and_admits_others_where_allowed() {
        assert!(has(Platform::LinuxRoot, "default_permissions"));
        assert!(has(Platform::LinuxRoot, "allow_other"));
        assert!(has(Platform::LinuxUser { allow_other: true }, "allow_other"));
        assert!(!has(Platform::LinuxUser { allow_other: false }, "allow_other"));
    }

    #[test]
    fn the_configuration_file_decides_for_users_only() {
        let user = |conf| Platform::here(1000, conf);
        assert_eq!(user("# user_allow_other\n"), Platform::LinuxUser { allow_other: false });
        assert_eq!(
            user("mount_max = 9\nuser_allow_other\n"),
            Platform::LinuxUser { allow_other: true }
        );
        assert_eq!(Platform::here(0, ""), Platform::LinuxRoot);
    }

    #[test]
    fn workers_follow_the_cores_within_limits() {
        let workers = |cores| mount_options(Platform::LinuxRoot, "v", cores).workers;
        assert_eq!([workers(1), workers(4), workers(64)], [2, 4, 8]);
    }

    #[test]
    fn a_volume_name_cannot_smuggle_in_options() {
        let fsname = mount_options(Platform::LinuxRoot, "a,dev\\b\nc", 1).fsname;
        assert_eq!(fsname, "lockstep:a_dev_b_c");
    }
}
