//! Every limit of the replication protocol, by name and unit; `status` shows them all.

macro_rules! limits {
    ($($(#[$doc:meta])* pub const $name:ident: $kind:ty = $value:expr;)*) => {
        $($(#[$doc])* pub const $name: $kind = $value;)*

        /// Every limit with its name, in the order of this file.
        pub const ALL: &[(&str, u64)] = &[$((stringify!($name), $name as u64)),*];
    };
}

limits! {
    /// Notifications in one `BatchNotify` (seed bug 4).
    pub const BATCH_NOTIFICATIONS_MAX: usize = 64;
    /// Batches sent and not yet acknowledged, per peer.
    pub const BATCHES_IN_FLIGHT_MAX: usize = 16;
    /// Content up to this size travels inside its notification.
    pub const INLINE_CONTENT_MAX_BYTES: u64 = 32 * 1024;
    /// Background content fetches at a time, per volume (seed bug 4).
    pub const BACKGROUND_FETCHES_MAX: usize = 8;
    /// Local changes not yet in the log, per volume; beyond this writers wait.
    pub const PENDING_CHANGES_MAX: usize = 65_536;
    /// Changes kept in the log for peers that are away; who was away for more is told the state.
    pub const LOG_KEPT_MAX: u64 = 1_048_576;
    /// A new file's announcement waits this long for its first close.
    pub const CREATE_HOLD_MS: u64 = 10;
    /// A file that was just closed holds the log back this long while its content is being named, so
    /// that no peer sees it empty first.
    pub const DESCRIBE_HOLD_MS: u64 = 100;
    /// Repeated content changes of one file within this time are announced once, at the least.
    pub const CONTENT_DEBOUNCE_MIN_MS: u64 = 20;
    /// The same for files that take long to announce.
    pub const CONTENT_DEBOUNCE_MS: u64 = 200;
    /// A file that keeps changing is announced at least this often.
    pub const CONTENT_DEBOUNCE_MAX_MS: u64 = 2_000;
    /// A file held open and written is announced at least this often.
    pub const CONTENT_OPEN_ANNOUNCE_MS: u64 = 1_000;
    /// Largest content-defined chunk.
    pub const CHUNK_MAX_BYTES: u32 = 1024 * 1024;
    /// Contents that a peer is asked about at once, before their bytes are given up here.
    pub const KEPT_ASKED_MAX: usize = 1024;
    /// One message of a content stream.
    pub const STREAM_MESSAGE_BYTES: usize = 256 * 1024;
    /// Target of a symlink (`PATH_MAX`).
    pub const SYMLINK_TARGET_MAX_BYTES: usize = 4095;
    /// Value of one extended attribute (`XATTR_SIZE_MAX`).
    pub const XATTR_VALUE_MAX_BYTES: usize = 65_536;
    /// Name of one extended attribute (`XATTR_NAME_MAX`).
    pub const XATTR_NAME_MAX_BYTES: usize = 255;
    /// Extended attributes of one node.
    pub const XATTRS_PER_NODE_MAX: usize = 1024;
    /// Names and values of all extended attributes of one node.
    pub const XATTRS_TOTAL_MAX_BYTES: usize = 2 * 1024 * 1024;
    /// Largest file.
    pub const FILE_MAX_BYTES: u64 = i64::MAX as u64;
}
