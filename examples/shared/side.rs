//! Who wrote what is on the wire.

/// Who wrote a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// HAProxy.
    Haproxy,
    /// The agent.
    Agent,
}

impl Side {
    /// As options and JSON call it.
    #[allow(dead_code, reason = "who prints no sides needs no names of them")]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Agent => "agent",
        }
    }
}
