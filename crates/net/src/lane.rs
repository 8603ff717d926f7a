//! Lanes: separate connections, so that bulk never delays control. ALPN (RFC 7301) says which
//! lane a connection is and who calls on it.

/// Which lane a content stream travels on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// Someone is waiting for these bytes.
    Interactive,
    /// Background replication.
    Bulk,
}

/// What a lane is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Purpose {
    Control,
    Read,
    Bulk,
}

impl Purpose {
    pub(crate) fn index(self) -> usize {
        match self {
            Purpose::Control => 0,
            Purpose::Read => 1,
            Purpose::Bulk => 2,
        }
    }
}

impl From<Lane> for Purpose {
    fn from(lane: Lane) -> Purpose {
        match lane {
            Lane::Interactive => Purpose::Read,
            Lane::Bulk => Purpose::Bulk,
        }
    }
}

/// What a connection was opened for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Alpn {
    /// Pairing: the dialler calls, once.
    Pair,
    /// A lane of a session on which the dialler calls.
    Forward(Purpose),
    /// A lane of a session on which the acceptor calls.
    Back(Purpose),
}

impl Alpn {
    pub(crate) const ALL: [Alpn; 7] = [
        Alpn::Pair,
        Alpn::Forward(Purpose::Control),
        Alpn::Forward(Purpose::Read),
        Alpn::Forward(Purpose::Bulk),
        Alpn::Back(Purpose::Control),
        Alpn::Back(Purpose::Read),
        Alpn::Back(Purpose::Bulk),
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Alpn::Pair => "lockstep/1/pair",
            Alpn::Forward(Purpose::Control) => "lockstep/1/control",
            Alpn::Forward(Purpose::Read) => "lockstep/1/read",
            Alpn::Forward(Purpose::Bulk) => "lockstep/1/bulk",
            Alpn::Back(Purpose::Control) => "lockstep/1/control-back",
            Alpn::Back(Purpose::Read) => "lockstep/1/read-back",
            Alpn::Back(Purpose::Bulk) => "lockstep/1/bulk-back",
        }
    }

    pub(crate) fn parse(name: &[u8]) -> Option<Alpn> {
        Alpn::ALL.into_iter().find(|alpn| alpn.name().as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_name_is_read_back() {
        for alpn in Alpn::ALL {
            assert_eq!(Alpn::parse(alpn.name().as_bytes()), Some(alpn));
        }
        assert_eq!(Alpn::parse(b"h2"), None);
    }
}
